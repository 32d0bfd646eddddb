"""The exchange of a model for an equal one in ONNX: whether it is wanted, and what was found out about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# What of the tolerance is relative; absolute it is as much of the answers' usual size, but never of more than 1.
TOLERANCE = 1e-5
# The adapters whose models have converters.
CONVERTED_ADAPTERS = ("sklearn", "xgboost", "lightgbm")
ONNX_FILE = "model.onnx"
REPORT_FILE = "conversion.json"


class Accelerate(Enum):
    """Whether a model is exchanged: never, where its answers agree, or else the build fails."""

    OFF = "off"
    AUTO = "auto"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How both models answered the same inputs.

    `rows` were asked, `recorded` of them are the user's example; to `refused` more both said no for the same reason.
    Labels must be equal, numbers may differ by `tolerance` (relative, and absolute in units of the usual answer);
    `largest` is the largest difference there was, in the same measure.
    """

    rows: int
    recorded: int
    refused: int
    largest: float
    tolerance: float = TOLERANCE


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians of one call, in microseconds, with one row and with `batch_rows`; before is the original."""

    row_before_us: float
    row_after_us: float
    batch_before_us: float
    batch_after_us: float
    batch_rows: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of an attempt. `reason` says why the original stays; empty when the ONNX model takes its place.

    `original` is the digest of the model file, `tools` the packages that took part (`skl2onnx 1.19.1`).
    """

    original: str
    reason: str = ""
    agreement: Agreement | None = None
    speed: Speed | None = None
    tools: tuple[str, ...] = ()
    platform: str = ""

    @property
    def accelerated(self) -> bool:
        """Whether the ONNX model takes the original's place."""
        return not self.reason
