"""`corten serve`: the image's server on this Python and its packages, for the loop while writing a model."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from corten.adapters.base import SourceFile
from corten.builder.inspecting import inspect
from corten.builder.pipeline import spec_json
from corten.builder.plan import spec_of
from corten.builder.source import read_project
from corten.core.home import Home
from corten.core.model import SPEC_FILE
from corten.errors import UsageError

# The server ends by itself within its drain time, 30 s.
_END_S = 40.0


def serve(
    source: str | Path,
    *,
    home: Home,
    name: str = "",
    method: str = "",
    requirements: Iterable[str] = (),
    extra_files: Iterable[str | Path] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
) -> int:
    """Serve a source in the foreground until it ends; gives the server's exit code.

    The folders of an image are made of links in a temporary folder, so that the server finds what it would find there.
    Raises UsageError when numpy, which every server needs, is not installed beside Corten.
    """
    project = read_project(source, name=name, requirements=requirements, method=method, extra_files=extra_files)
    _, inspection = inspect(project.source, cache=home.cache)
    if importlib.util.find_spec("numpy") is None:
        raise UsageError(
            "serve.packages_missing",
            f"`{project.name}` cannot be served by this Python",
            where=sys.executable,
            why="numpy is not installed; the model needs " + ", ".join(inspection.requirements),
            hint=f"install them here, or let Corten do it: corten up {source}",
        )
    with tempfile.TemporaryDirectory(prefix="corten-serve-") as folder:
        app, models = Path(folder, "app"), Path(folder, "models")
        _link(inspection.code, app)
        _link(inspection.weights, models)
        (app / SPEC_FILE).write_bytes(spec_json(spec_of(project, inspection, None)))
        server = {"CORTEN_LISTEN": f"{host}:{port}", "CORTEN_APP_DIR": str(app), "CORTEN_MODELS_DIR": str(models)}
        env = {**os.environ, **project.settings.env, **server}
        # A terminal's Ctrl-C reaches the server as well: it drains, and its exit code says how it went.
        process = subprocess.Popen([sys.executable, "-m", "corten.serve"], env=env, cwd=app)
        try:
            while True:
                try:
                    return process.wait()
                except KeyboardInterrupt:
                    continue
        finally:
            # Only we were told to end (`kill`): the server must not outlive the folders it was given.
            process.terminate()
            try:
                process.wait(timeout=_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _link(files: Sequence[SourceFile], folder: Path) -> None:
    folder.mkdir(parents=True)
    for file in files:
        place = folder / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(file.path.absolute())
