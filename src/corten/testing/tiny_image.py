"""A small real image for tests of engines, made from the Python of this machine without network.

Its layers are what Corten's builder makes, in small: a base (interpreter, its standard library and the shared
libraries they need), one weights layer, one code layer.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from corten.core.digest import Digest
from corten.core.image import CONFIG, KIND_ANNOTATION, LAYER, MANIFEST, TITLE_ANNOTATION, Descriptor, LayerKind
from corten.core.platform import Platform
from corten.store.layout import Layout

# Large, and nothing a small server imports.
_LEFT_OUT = ("test", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "__pycache__", "dist-packages", "tkinter")
_ENV = ("PATH=/usr/bin", "LANG=C.UTF-8", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1")


class TinyImage:
    """Builds images into a layout; the base layer is made once and shared."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._base: tuple[Descriptor, Digest] | None = None

    @staticmethod
    def possible() -> bool:
        """Whether this machine has a Python that can be taken: a dynamically linked one below /usr."""
        return shutil.which("ldd") is not None and _python() is not None

    def build(
        self, entrypoint: Sequence[str], *, code: Mapping[str, str], weights: Mapping[str, bytes] | None = None
    ) -> Digest:
        """An image with these files below /app and /models; returns its manifest's digest."""
        files = weights if weights is not None else {"weights.bin": b"weights"}
        if self._base is None:
            self._base = self.layer(_base(), LayerKind.BASE)
        layers = [
            self._base,
            *(self.layer({f"models/{name}": data}, LayerKind.WEIGHTS) for name, data in sorted(files.items())),
            self.layer({f"app/{name}": text.encode() for name, text in code.items()}, LayerKind.CODE),
        ]
        return self.image(layers, entrypoint)

    def layer(self, files: Mapping[str, bytes | Path], kind: LayerKind | None) -> tuple[Descriptor, Digest]:
        """An uncompressed layer of files (a path ending in `/` is an empty folder); its descriptor and diff_id."""
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
            # With the folders above them, as the builder's: Docker without root keeps those not told of to itself.
            folders = {f"{folder}/": b"" for name in files for folder in PurePosixPath(name).parents if folder.name}
            for name, content in sorted({**folders, **files}.items()):
                member = tarfile.TarInfo(name.rstrip("/"))
                member.mode = 0o755
                if name.endswith("/"):
                    member.type = tarfile.DIRTYPE
                    tar.addfile(member)
                    continue
                body = content if isinstance(content, bytes) else content.read_bytes()
                member.size = len(body)
                tar.addfile(member, io.BytesIO(body))
        return self.raw_layer(data.getvalue(), kind)

    def raw_layer(
        self, data: bytes, kind: LayerKind | None, *, diff_id: Digest | None = None, media_type: str = LAYER
    ) -> tuple[Descriptor, Digest]:
        """A layer of given bytes; `diff_id` where it is not their digest."""
        described = self._layout.put(data, media_type)
        notes = {} if kind is None else {KIND_ANNOTATION: kind.value, TITLE_ANNOTATION: kind.value}
        return Descriptor(media_type, described.digest, len(data), notes), diff_id or described.digest

    def image(self, layers: Sequence[tuple[Descriptor, Digest]], entrypoint: Sequence[str]) -> Digest:
        """Config and manifest over layers, lowest first."""
        platform = Platform.of_machine()
        config = {
            "architecture": platform.architecture,
            "os": platform.os,
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for _, diff_id in layers]},
            "config": {"Env": list(_ENV), "Entrypoint": list(entrypoint), "WorkingDir": "/app", "User": "65532:65532"},
        }
        described = self._layout.put(json.dumps(config, sort_keys=True).encode(), CONFIG)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _document(described),
            "layers": [_document(layer) for layer, _ in layers],
        }
        return self._layout.put(json.dumps(manifest, sort_keys=True).encode(), MANIFEST).digest


def _document(descriptor: Descriptor) -> dict[str, object]:
    return {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size_bytes,
        "annotations": dict(descriptor.annotations),
    }


def _python() -> Path | None:
    found = shutil.which("python3", path="/usr/bin")
    return Path(found).resolve() if found else None


def _base() -> dict[str, bytes | Path]:
    python = _python()
    if python is None:
        raise FileNotFoundError("/usr/bin/python3")
    library = Path("/usr/lib") / python.name
    modules = [path for path in library.rglob("*") if path.is_file() and not _left_out(path.relative_to(library))]
    native = [python, *(path for path in modules if path.suffix == ".so")]
    files: dict[str, bytes | Path] = {"usr/bin/python3": python, f"usr/bin/{python.name}": python}
    for path in (*modules, *_libraries(native)):
        files[str(path).lstrip("/")] = path
    return files


def _left_out(path: Path) -> bool:
    return any(part in _LEFT_OUT or part.startswith("config-") for part in path.parts)


def _libraries(programs: Sequence[Path]) -> Iterator[Path]:
    """The shared libraries programs name, by the paths the loader finds them under."""
    listed = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False, timeout=60)
    for name in sorted(set(re.findall(r"(/\S+) \(0x", listed.stdout))):
        yield Path(name)
