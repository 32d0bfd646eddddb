"""Another image as the base: what is known of it, which Python of it is used, what is put between it and ours.

::

    layers of the base     as they are, by the same digests
    accounts and folders   user 65532, /app, /models, and whiteouts of distributions that are installed anew above
    wheels, server, weights, code

How it is read is in `oci_base_facts`, which a build on Debian's packages does without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from corten.builder.accounts import with_account
from corten.builder.entry import Entry, EntryKind
from corten.builder.interpreter import Interpreter, LibcFamily
from corten.builder.lock import Pin
from corten.builder.tar import in_order
from corten.core.image import Layer, LayerKind
from corten.errors import UsageError

ACCOUNTS_TITLE: Final = "accounts and folders"
OLDEST_MINOR: Final = 11  # `requires-python` of pyproject.toml


@dataclass(frozen=True, slots=True)
class Installed:
    """A package of a base. `kind` is `deb`, `apk`, `rpm` or `wheel`."""

    kind: str
    name: str
    version: str
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """What an os-release says (os-release(5)): `ID`, `VERSION_ID` and `PRETTY_NAME`, empty where it is silent."""

    id: str = ""
    version: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the layers of a base tell.

    `pythons` are those that can be used, the first on its PATH first; `unusable` says of others why not. `listed` says
    whether a package database that can be read is there. `records` are the files of what is installed, and the
    folder with its metadata, by site folder and distribution, below the root.
    """

    system: System
    pythons: tuple[Interpreter, ...]
    unusable: tuple[str, ...]
    packages: tuple[Installed, ...]
    listed: bool
    records: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    passwd: str = ""
    group: str = ""
    certificates: bool = False
    libstdcxx: bool = False


@dataclass(frozen=True, slots=True)
class OciBase:
    """An image to build on. `env` is its own, `python` the one that is used of it."""

    pin: Pin
    layers: tuple[Layer, ...]
    env: Mapping[str, str]
    facts: Facts
    python: Interpreter

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.pin.reference}@{self.pin.digest.short}, {self.facts.system.title or 'an unnamed system'}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may go wrong on it."""
        if self.facts.libstdcxx or self.python.libc.family is LibcFamily.MUSL:
            return ()
        return (f"the base {self.pin.reference} has no libstdc++.so.6, which numpy and its like are linked with",)


def as_base(layers: Sequence[Layer], pin: Pin) -> tuple[Layer, ...]:
    """The layers of an image as those of a base; whatever it says of them is about that image, not about ours."""
    return tuple(
        replace(layer, kind=LayerKind.BASE, title=f"{pin.reference} {number}/{len(layers)}")
        for number, layer in enumerate(layers, start=1)
    )


def choose_python(facts: Facts, pin: Pin, *, asked: str, preferred: str) -> Interpreter:
    """The base's Python of the minor version asked for, or else the preferred one if it is there, or else its first.

    Raises UsageError `base.no_python`, saying what was found.
    """
    by_version = {python.version: python for python in reversed(facts.pythons)}
    if found := by_version.get(asked) if asked else by_version.get(preferred) or next(iter(facts.pythons), None):
        return found
    usable = [f"Python {python.version} at {python.program}" for python in facts.pythons]
    seen = "; ".join([*usable, *facts.unusable][:6]) or "nothing called bin/python3"
    raise UsageError(
        "base.no_python",
        f"`{pin.reference}` has no Python {asked or 'that Corten can use'}",
        where=str(pin),
        why=f"{facts.system.title or 'it'} has: {seen}",
        hint=f'set `python = "{facts.pythons[0].version}"`, or take another base'
        if facts.pythons
        else f"take a base with Python 3.{OLDEST_MINOR} or newer, or leave `base` out: Corten makes one",
    )


def accounts(base: OciBase, distributions: Iterable[str]) -> list[Entry]:
    """The entries of the layer between a base and what Corten installs, for these distributions (normalised names).

    A distribution the base has in the very folder ours go to is hidden, file by file as its RECORD lists them, as pip
    removes it before it installs another version: two versions in one folder would be neither.
    """
    installed = base.facts.records.get(base.python.site, {})
    hidden = {name for one in distributions for name in installed.get(one, ())}
    return in_order(
        [
            Entry("app", EntryKind.DIRECTORY, 0o755),
            Entry("models", EntryKind.DIRECTORY, 0o755),
            *with_account(base.facts.passwd, base.facts.group),
            *(Entry(name, EntryKind.WHITEOUT) for name in hidden),
        ]
    )


def env_on(base: OciBase, own: Mapping[str, str]) -> dict[str, str]:
    """The environment of an image on this base: the base's, and ours where it says nothing.

    Of our certificates nothing is said where they are not.
    """
    ours = {name: text for name, text in own.items() if name != "SSL_CERT_FILE" or base.facts.certificates}
    return ours | dict(base.env)
