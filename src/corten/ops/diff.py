"""What changed between two images: packages, weights, code, schema, settings, sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.builder.acceleration import told
from corten.builder.contents import FileFact
from corten.builder.sbom import Component
from corten.core.home import Home
from corten.core.image import BASE_DIGEST, BASE_NAME, SCHEMA_LABEL, SPEC_LABEL, Image, LayerKind
from corten.core.model import SPEC_FILE
from corten.core.platform import Platform
from corten.ops.inspect import Inspected, inspect
from corten.ops.schema_changes import SchemaChange, schema_changes

_WEIGHTS = "models/"
# Said in other words: as fields of the model, and as the schema.
_OWN_LABELS = (SPEC_LABEL, SCHEMA_LABEL, BASE_NAME, BASE_DIGEST)
_SPEC_FIELDS = ("adapter", "entry", "method", "files", "batching", "limits", "trusted")


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was one thing and is another; empty where it was or is not there. `kind` is `wheel`, `env` ..."""

    kind: str
    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What leads from one image to another. Sizes are of stored layers, by kind of layer, in bytes."""

    before: Inspected
    after: Inspected
    packages: tuple[Change, ...]
    files: tuple[Change, ...]
    schema: tuple[SchemaChange, ...]
    settings: tuple[Change, ...]
    sizes: Mapping[str, tuple[int, int]]

    @property
    def same(self) -> bool:
        """Whether it is one image by two names."""
        return self.before.image.digest == self.after.image.digest

    @property
    def breaking(self) -> bool:
        """Whether a client of the one may not be understood by the other."""
        return any(change.breaking for change in self.schema)

    def as_dict(self) -> dict[str, Any]:
        """The difference as it stands in `--json` output."""
        return {
            "before": self.before.reference,
            "after": self.after.reference,
            "same": self.same,
            "breaking": self.breaking,
            "packages": [msgspec.to_builtins(one) for one in self.packages],
            "files": [msgspec.to_builtins(one) for one in self.files],
            "schema": [msgspec.to_builtins(one) for one in self.schema],
            "settings": [msgspec.to_builtins(one) for one in self.settings],
            "size_bytes": {"before": self.before.image.size_bytes, "after": self.after.image.size_bytes},
            "sizes": {kind: {"before": old, "after": new} for kind, (old, new) in self.sizes.items()},
        }


def diff(before: str, after: str, *, home: Home | None = None, platform: Platform | None = None) -> Difference:
    """Compare two images of the store, by name or digest. Raises what `inspect` raises."""
    home = home or Home.from_env(os.environ, uid=os.getuid())
    return difference(inspect(before, home=home, platform=platform), inspect(after, home=home, platform=platform))


def difference(before: Inspected, after: Inspected) -> Difference:
    """Compare two descriptions. Pure."""
    old, new = before.spec, after.spec
    return Difference(
        before=before,
        after=after,
        packages=tuple(_packages(before, after)),
        files=tuple(_files(before, after)),
        schema=schema_changes(old.schema if old else None, new.schema if new else None),
        settings=tuple(_settings(before, after)),
        sizes={kind.value: (_size(before, kind), _size(after, kind)) for kind in LayerKind},
    )


def _packages(before: Inspected, after: Inspected) -> Iterator[Change]:
    old = {(one.kind, one.name): one for one in before.packages}
    new = {(one.kind, one.name): one for one in after.packages}
    for key in sorted(old.keys() | new.keys()):
        change = Change(*key, *_versions(old.get(key), new.get(key)))
        if change.before != change.after:
            yield change


def _versions(old: Component | None, new: Component | None) -> tuple[str, str]:
    """Both versions; with the file's digest when it is another file of the same version."""
    if old and new and old.version == new.version and old.digest and new.digest and old.digest != new.digest:
        return f"{old.version} ({old.digest.short})", f"{new.version} ({new.digest.short})"
    return old.version if old else "", new.version if new else ""


def _files(before: Inspected, after: Inspected) -> Iterator[Change]:
    old, new = ({one.name: one for one in side.files} for side in (before, after))
    for name in sorted(old.keys() | new.keys()):
        one, other = _file(old.get(name)), _file(new.get(name))
        # What it says is compared field by field.
        if one != other and name != f"app/{SPEC_FILE}":
            yield Change("weights" if name.startswith(_WEIGHTS) else "code", f"/{name}", one, other)


def _file(fact: FileFact | None) -> str:
    return f"{fact.digest.short} ({fact.size_bytes} bytes)" if fact else ""


def _settings(before: Inspected, after: Inspected) -> Iterator[Change]:
    old, new = _described(before), _described(after)
    for kind, name in sorted(old.keys() | new.keys()):
        change = Change(kind, name, old.get((kind, name), ""), new.get((kind, name), ""))
        if change.before != change.after:
            yield change


def _described(one: Inspected) -> dict[tuple[str, str], str]:
    image, spec = one.image, msgspec.to_builtins(one.spec) or {}
    return {
        ("image", "platform"): str(image.platform),
        ("image", "base"): one.base or _layers(image, LayerKind.BASE),
        ("gate", "result"): str(one.tested or "not tested"),
        ("image", "server"): _layers(image, LayerKind.RUNTIME),
        ("image", "entrypoint"): " ".join(image.entrypoint),
        ("image", "working directory"): image.working_dir,
        **{("env", name): text for name, text in image.env.items()},
        **{("label", name): text for name, text in image.labels.items() if name not in _OWN_LABELS},
        ("model", "accelerated"): told(one.acceleration.conversion) if one.acceleration else "",
        **{("model", name): _plain(spec[name]) for name in _SPEC_FIELDS if name in spec},
    }


def _layers(image: Image, kind: LayerKind) -> str:
    return ", ".join(f"{layer.title} ({layer.digest.short})" for layer in image.layers if layer.kind is kind)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()


def _size(one: Inspected, kind: LayerKind) -> int:
    return sum(layer.size_bytes for layer in one.image.layers if layer.kind is kind)
