"""Write a deployment down for another system: manifests, charts, units. Nothing is asked and nothing is sent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corten.core.deployment import Settings
from corten.core.home import Home
from corten.errors import CortenError
from corten.exporters.base import Cluster, Exporter, SecretVariable, Workload
from corten.ops.workload import workload_of
from corten.plugin import find


@dataclass(frozen=True, slots=True)
class Rendered:
    """The files of a workload by their relative paths, in the order they are to be read."""

    exporter: str
    workload: Workload
    files: Mapping[str, str]

    @property
    def text(self) -> str:
        """All of them in one: as they are where they are YAML documents, else each led by its path."""
        if all(path.endswith((".yaml", ".yml")) and text.startswith("---\n") for path, text in self.files.items()):
            return "".join(self.files.values())
        return "".join(f"# {path}\n{text}" for path, text in self.files.items())

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "name": self.workload.name,
            "to": self.exporter,
            "image": str(self.workload.image),
            "files": dict(self.files),
        }


def render(
    image: str,
    to: str = "kubernetes",
    *,
    name: str = "",
    settings: Settings | None = None,
    cluster: Cluster | None = None,
    weights: str = "",
    secrets: Sequence[SecretVariable] = (),
    host: str = "",
    home: Home | None = None,
) -> Rendered:
    """Render an image that has been pushed (a name or digest here, or `REGISTRY/REPOSITORY@sha256:...`).

    Raises UsageError `render.not_pushed`, `render.unsupported`, NotFoundError `plugin.unknown`.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    exporter: Exporter = find("exporters", to)()
    workload = replace(
        workload_of(image, name, settings or Settings(), home=home, weights=weights),
        secrets=tuple(secrets),
        host=host,
        cluster=cluster or Cluster(),
    )
    return Rendered(to, workload, exporter.render(workload))


def write(rendered: Rendered, folder: Path) -> list[Path]:
    """Write the files below a folder, each whole or not at all; gives their paths. What else is there is left alone.

    Raises CortenError `render.write_failed`.
    """
    written: list[Path] = []
    try:
        for name, text in rendered.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.new")
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
            written.append(path)
    except OSError as error:
        raise CortenError(
            "render.write_failed", f"`{folder}` cannot be written", where=str(error.filename), why=str(error.strerror)
        ) from error
    return written
