"""The files beside an ONNX model that hold its weights."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from corten.adapters.base import SourceFile
from corten.adapters.onnx_file import OnnxFile
from corten.errors import UsageError


def external_files(path: Path, model: OnnxFile) -> tuple[SourceFile, ...]:
    """The files the model says its weights are in, named as it names them.

    Raises UsageError `adapter.unsafe_path` for one outside of the model's folder, `adapter.missing_weights`.
    """
    files = []
    for location in model.external:
        name = PurePosixPath(location)
        if not location or name.is_absolute() or ".." in name.parts or "\\" in location or "\0" in location:
            raise UsageError(
                "adapter.unsafe_path",
                f"the model wants its weights from `{location[:80]}`",
                where=str(path),
                why="weights must lie in the model's folder or below",
                hint="save it again with `onnx.save_model(..., save_as_external_data=True, location=NAME)`",
            )
        beside = path.parent / name
        if not beside.is_file():
            raise UsageError(
                "adapter.missing_weights",
                f"`{location}`, which holds weights of `{path.name}`, is not there",
                where=str(beside),
                why="the model was exported with external data",
                hint="copy that file beside the model",
            )
        files.append(SourceFile(beside, name.as_posix()))
    return tuple(files)
