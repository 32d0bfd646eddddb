"""A small whole image in a store, made by the builder's own parts without network: for tests of what is told of images."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from corten.adapters.base import Source
from corten.builder import image as documents
from corten.builder import proof
from corten.builder.debian.release import RELEASES, Deb
from corten.builder.entry import Entry, EntryKind
from corten.builder.layer import write_layer
from corten.builder.lineage import Commit
from corten.builder.lock import Lock
from corten.builder.pipeline import spec_json
from corten.builder.plan import Plan, WheelGroup
from corten.builder.pylock import Locked
from corten.builder.source import Project
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import CONFIG, MANIFEST, Compression, Descriptor, Image, Layer, LayerKind
from corten.core.model import Example, ModelSpec
from corten.core.platform import Platform
from corten.core.schema import DType, Schema, Style, Tensor
from corten.store.layout import Layout

PLATFORM = Platform("amd64")
SCHEMA = Schema(Style.ROWS, (Tensor("x", DType.FLOAT64, (None, 4)),), (Tensor("y", DType.INT64, (None,)),))
SPEC = ModelSpec("iris", "sklearn", ("m.joblib",), schema=SCHEMA, example=Example([[1, 2, 3, 4]], [0]))
COMMIT = Commit("a" * 40, dirty=True, branch="main", remote="https://git.example/team/iris", path="models")
SITE = "usr/local/lib/python3.11/dist-packages"
METADATA = "Metadata-Version: 2.4\nName: Six_Pack\nVersion: 1.17.0\nLicense-Expression: MIT\n\nLicense: no field\n"
COPYRIGHT = (
    b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: Zlib\n x\n"
)


def wheel(version: str = "1.17.0", url: str = "https://me:secret@files.example/six_pack.whl?token=secret") -> Locked:
    return Locked("six-pack", version, url, Digest.of(version.encode()), 11_000, "six_pack-1.17.0-py3-none-any.whl")


def deb(name: str = "zlib1g", version: str = "1:1.2.13+b1") -> Deb:
    return Deb(name, version, "amd64", f"https://deb.example/{name}.deb", Digest.of(name.encode()), 5_000)


def plan(*, spec: ModelSpec = SPEC, wheels=None, debs=None, labels=None) -> Plan:
    locked = tuple(wheels if wheels is not None else [wheel()])
    return Plan(
        name=spec.name,
        platform=PLATFORM,
        base=RELEASES["bookworm"],
        spec=spec,
        lock=Lock("k", PLATFORM, "bookworm", "3.11", tuple(debs if debs is not None else [deb()]), locked),
        wheels=(WheelGroup("small wheels", locked),),
        weights=(),
        code=(),
        labels=labels or {},
    )


def project(name: str = "iris", folder: Path = Path("/home/someone/secret-folder")) -> Project:
    requirements = ("six-pack @ https://me:secret@files.example/six_pack.whl",)
    return Project(name, Source(folder / "m.joblib", requirements=requirements), folder)


def wheel_file(path: Path, metadata: str = METADATA) -> Path:
    """A wheel in the cache, with the metadata of another package vendored inside."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("six_pack/_vendor/other-1.dist-info/METADATA", "Name: other\nVersion: 1\n")
        archive.writestr("six_pack-1.17.0.dist-info/METADATA", metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.getvalue())
    return path


def entries(kind: LayerKind, spec: ModelSpec, weights: bytes, metadata: str) -> list[Entry]:
    match kind:
        case LayerKind.BASE:
            found = [
                Entry("usr/share/doc/zlib1g", EntryKind.SYMLINK, target="zlib-common"),
                Entry("usr/share/doc/zlib-common/copyright", data=COPYRIGHT),
                Entry("var/lib/dpkg/status.d/zlib1g", data=b"Package: zlib1g\nVersion: 1:1.2.13+b1\n"),
            ]
        case LayerKind.WHEELS:
            found = [
                Entry(f"{SITE}/six_pack-1.17.0.dist-info/METADATA", data=metadata.encode()),
                Entry(f"{SITE}/six_pack/_vendor/other-1.dist-info/METADATA", data=b"Name: other\nVersion: 1\n"),
            ]
        case LayerKind.RUNTIME:
            found = [Entry(f"{SITE}/corten/__init__.py", data=b"")]
        case LayerKind.WEIGHTS:
            found = [Entry("models/m.joblib", data=weights)]
        case LayerKind.CODE:
            found = [Entry("app/corten.json", data=spec_json(spec)), Entry("app/run.sh", mode=0o755, data=b"#!\n")]
    return sorted(found, key=lambda entry: entry.name)


@dataclass(frozen=True)
class Small:
    """An image in a home's store, with what is attached to it."""

    home: Home
    layout: Layout
    plan: Plan
    image: Image
    manifest: Descriptor

    def attach(self, commit: Commit | None = COMMIT, project=None):
        return proof.attach(
            self.image,
            self.manifest,
            project=project or globals()["project"](self.plan.name),
            plan=self.plan,
            layout=self.layout,
            cache=self.home.cache,
            commit=commit,
        )


def store(home: Home, made: Plan | None = None, *, weights: bytes = b"weights", metadata: str = METADATA) -> Small:
    """Store an image of one layer a kind and tag it with its name; nothing is attached yet."""
    made = made or plan()
    layout = Layout(home.store)
    layers: list[Layer] = [
        write_layer(
            entries(kind, made.spec, weights, metadata),
            layout,
            kind=kind,
            title="m.joblib" if kind is LayerKind.WEIGHTS else kind.value,
            compression=Compression.NONE if kind is LayerKind.WEIGHTS else Compression.ZSTD,
        )
        for kind in LayerKind
    ]
    config = layout.put(documents.config_json(made, layers), CONFIG)
    manifest = layout.put(documents.manifest_json(config, layers), MANIFEST)
    layout.tag(made.name, manifest)
    return Small(home, layout, made, layout.image(manifest.digest), manifest)


def renamed(spec: ModelSpec, name: str) -> ModelSpec:
    return msgspec.structs.replace(spec, name=name)
