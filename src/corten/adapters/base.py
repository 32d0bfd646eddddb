"""What an adapter is: `detect` and `inspect` on the builder's side, `load` inside the image.

The builder's side never executes anything of the model and imports no framework; `load` may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

from corten.core.model import Example, ModelSpec
from corten.core.schema import Schema

if TYPE_CHECKING:
    import numpy as np


class Source(msgspec.Struct, frozen=True):  # every server imports this: a dataclass would take a millisecond to make
    """What the user gave: a model file, a folder, or `file.py:Class`, with what their settings add.

    `path` is a file or folder that exists. `entry` is the class name for a Python source.
    `requirements` are PEP 508 lines the user declared; they win over inferred ones.
    `trusted` are digests (`sha256:...`) of files that may name what no model needs.
    `extra_files` are further model files or folders (relative to the source's folder) to put under /models.
    """

    path: Path
    entry: str = ""
    requirements: tuple[str, ...] = ()
    extra_files: tuple[Path, ...] = ()
    method: str = ""
    trusted: tuple[str, ...] = ()


class SourceFile(msgspec.Struct, frozen=True):
    """A file to go into the image: where it is here, and its name below /models or /app (posix, relative)."""

    path: Path
    name: str


class Inspection(msgspec.Struct, frozen=True):
    """What an adapter found out about a source without running it.

    `requirements` are what the files say; the builder puts the declared ones over them, by name.
    `notes` say what was seen and what was inferred from it, for people; `warnings` what may go wrong.
    `python` is the minor version the model was made with ("3.11"), empty when the file does not tell.
    `example` is one the source brings along; the user's own wins.
    `constraints` are PEP 508 lines for packages that are needed anyway: a uv.lock's pins, a `-c` file's lines.
    `trusted` are digests of files that would be refused if the user had not said to trust them.
    """

    adapter: str
    requirements: tuple[str, ...]
    weights: tuple[SourceFile, ...] = ()
    code: tuple[SourceFile, ...] = ()
    entry: str = ""
    method: str = "predict"
    schema: Schema | None = None
    python: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    example: Example | None = None
    constraints: tuple[str, ...] = ()
    trusted: tuple[str, ...] = ()


class InputError(ValueError):
    """A request that does not fit the model: raised (or returned in `CallModel.call`) by a loaded model.

    `path` is the JSON path of the element that is wrong, as in `inputs[3][7]` or `options.top`; empty for the whole.
    The server answers 422 with it; everything else a model raises is a 500.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class RowsModel(Protocol):
    """A loaded model that takes whole batches of arrays."""

    schema: Schema

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Arrays by input name, equal first dimension n, give arrays by output name with first dimension n."""
        ...


class CallModel(Protocol):
    """A loaded model that takes calls with named arguments.

    One that answers them one after the other says so by an attribute `joinable = False` (absent: True): it then gets
    one call at a time, so that no answer waits for those behind it. One that has an attribute `embed`, a function of a
    list of texts that gives as many vectors, answers `/v1/embeddings`.
    """

    schema: Schema

    def call(self, calls: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """One result a call, in order; an exception object stands for the call that raised it."""
        ...


class Adapter(Protocol):
    """A framework's part. Stateless; made without arguments."""

    name: ClassVar[str]

    def detect(self, source: Source) -> bool:
        """Whether this adapter can take the source, told by content and not by the file's name. Cheap."""
        ...

    def inspect(self, source: Source) -> Inspection:
        """All that can be told without running it. Raises UsageError for what looks right but is broken."""
        ...

    def load(self, spec: ModelSpec, models: Path, app: Path) -> RowsModel | CallModel:
        """Load the model from its folder, inside the image; raises what the framework raises."""
        ...
