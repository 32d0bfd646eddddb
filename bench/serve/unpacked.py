"""`unpacked.py SOURCE FOLDER [FILES]`: what an image of the source has in /app and /models, as FOLDER/app and FOLDER/models."""

from __future__ import annotations

import sys
from pathlib import Path

from corten.builder.inspecting import inspect
from corten.builder.pipeline import spec_json
from corten.builder.plan import spec_of
from corten.builder.source import read_project
from corten.core.model import SPEC_FILE


def main(source: str, folder: Path, files: Path) -> None:
    project = read_project(source)
    _, inspection = inspect(project.source, cache=folder / "cache")
    app, models = folder / "app", folder / "models"
    for place, found in ((app, inspection.code), (models, inspection.weights)):
        place.mkdir(parents=True)
        for file in found:
            link(file.path, place / file.name)
    for name in ("embed.onnx", "tokenizer.json"):
        if ".py:" in source:
            link(files / name, models / name)
    (app / SPEC_FILE).write_bytes(spec_json(spec_of(project, inspection, None)))


def link(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(file.absolute())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
