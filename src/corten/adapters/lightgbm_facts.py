"""What the head of a LightGBM model means for an image: its requirement, its schema, and what to tell people."""

from __future__ import annotations

from corten.adapters.distributions import installed, numbers
from corten.adapters.lightgbm_file import LightgbmFile
from corten.core.schema import DType, Schema, Style, Tensor

INPUT, OUTPUT = "inputs", "outputs"
DISTRIBUTION = "lightgbm"
# The format's number follows the major release, which reads all older ones.
_NEWEST_FORMAT = 4


def requirement_of(file: LightgbmFile) -> tuple[str, str]:
    """The release to install, and what is said of it: the file has only its format's number."""
    here = installed(DISTRIBUTION)
    told = f"the file tells only that LightGBM {file.format} or newer reads it"
    if here and numbers(here)[:1] >= (file.format,):
        return f"{DISTRIBUTION}=={here}", f"{told}: taking {here}, which is installed here"
    return f"{DISTRIBUTION}>={min(file.format, _NEWEST_FORMAT)}", f"{told}: taking the newest; declare `requirements`"


def schema_of(file: LightgbmFile) -> Schema:
    """The rows that go in and what `Booster.predict` gives for each."""
    inputs = Tensor(INPUT, DType.FLOAT64, (None, file.n_features), file.columns)
    outputs = Tensor(OUTPUT, DType.FLOAT64, (None, file.width) if file.width > 1 else (None,))
    return Schema(Style.ROWS, inputs=(inputs,), outputs=(outputs,))


def notes_of(file: LightgbmFile) -> list[str]:
    """What was seen in the file."""
    named = f", named {', '.join(file.columns[:3])} …" if file.columns else ""
    what = "the probability of each class" if file.width > 1 else "what `Booster.predict` gives"
    return [
        f"LightGBM booster, {file.objective or 'an objective of its own'}, text format v{file.format}",
        f"{file.n_features} features{named}; null is a missing value",
        f"answers with {what}",
    ]


def warnings_of(file: LightgbmFile) -> list[str]:
    """What may go wrong."""
    if not file.categories:
        return []
    shown = "; ".join(
        ", ".join(f"{value}={code}" for code, value in enumerate(some[:4])) for some in file.categories[:3]
    )
    return [f"categorical columns of a data frame: requests give codes ({shown}), as the trees have them"]
