"""Packages indexes and dependencies: which package files give what is asked for. Pure; reads and fetches nothing.

An index has 63,000 paragraphs, of which an image needs twenty-odd: it is kept as it came, with a list of which name is
where, and only the wanted paragraphs are cut out and parsed (50 ms in all, against 1.5 s for parsing all of them).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from corten.builder.deb import parse_paragraph, version_key
from corten.builder.debian.release import PACKAGE_NAME, Deb
from corten.core.digest import Digest
from corten.errors import NotFoundError, PolicyError, UsageError

# What makes a system administrable, and an image attackable: never in an image of ours, whoever depends on it. Beside
# these, everything that Debian marks essential.
DENIED = frozenset(
    {
        "adduser", "apt", "bash", "busybox", "busybox-static", "coreutils", "csh", "dash", "debconf", "debianutils",
        "diffutils", "dpkg", "e2fsprogs", "findutils", "fish", "gawk", "grep", "gzip", "init-system-helpers", "ksh",
        "libpam-modules", "libpam-modules-bin", "libpam-runtime", "login", "mawk", "mksh", "mount", "original-awk",
        "passwd", "perl", "perl-base", "sed", "sudo", "systemd", "sysvinit-utils", "tar", "tcsh", "ucf", "udev",
        "util-linux", "zsh",
    }
)  # fmt: skip

_GAP = b"\n\n"
_NAMES = re.compile(rb"\n\nPackage: ([^\n]+)")
_RELATION = re.compile(
    r"\s*(?P<name>[a-z0-9][a-z0-9+.-]*)(?::[a-z0-9-]+)?\s*(?:\(\s*(?P<op><<|<=|=|>=|>>)\s*(?P<version>[^\s)]+)\s*\))?\s*"
)


@dataclass(frozen=True, slots=True)
class Relation:
    """`name (op version)`; `op` is empty for any version."""

    name: str
    op: str = ""
    version: str = ""

    def allows(self, version: str) -> bool:
        """Whether a version of the named package will do."""
        if not self.op:
            return True
        have, want = version_key(version), version_key(self.version)
        match self.op:
            case "<<":
                return have < want
            case "<=":
                return have <= want
            case "=":
                return have == want
            case ">=":
                return have >= want
            case _:
                return have > want

    def __str__(self) -> str:
        return f"{self.name} ({self.op} {self.version})" if self.op else self.name


def parse_relations(text: str, *, where: str) -> tuple[tuple[Relation, ...], ...]:
    """`a (>= 1), b | c` as groups of alternatives, all of which have to be met (policy 7.1). Raises PolicyError."""
    groups = [group for group in text.split(",") if group.strip()]
    return tuple(tuple(_relation(one, where) for one in group.split("|")) for group in groups)


def _relation(text: str, where: str) -> Relation:
    match = _RELATION.fullmatch(text)
    if match is None:
        raise PolicyError("deb.control", f"malformed dependency: `{text.strip()[:80]}`", where=where)
    return Relation(match["name"], match["op"] or "", match["version"] or "")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A package as an index describes it."""

    deb: Deb
    depends: tuple[tuple[Relation, ...], ...]
    provides: tuple[Relation, ...]
    essential: bool


class Index:
    """The paragraphs of one Packages file, found by name. `base_url` is what its `Filename`s are relative to."""

    def __init__(self, pieces: Iterable[bytes], base_url: str) -> None:
        self._base_url = base_url
        self._blocks: list[bytes] = []  # of whole paragraphs, each after an empty line
        self._places: dict[bytes, list[int]] = {}  # the blocks that have a package of this name
        rest = _GAP
        for piece in pieces:  # in pieces, because the whole has 50 MB
            rest += piece
            if (end := rest.rfind(_GAP)) > 0:
                self._add(rest[:end])
                rest = rest[end:]
        self._add(rest)

    def _add(self, block: bytes) -> None:
        # Every paragraph of a Packages file begins with its name; one that does not is found by nobody.
        for name in _NAMES.findall(block):
            self._places.setdefault(name, []).append(len(self._blocks))
        self._blocks.append(block)

    def named(self, name: str) -> tuple[Candidate, ...]:
        """All versions of a real package."""
        places = dict.fromkeys(self._places.get(name.encode("ascii"), ()))
        found = (paragraph for place in places for paragraph in _named(self._blocks[place], name.encode("ascii")))
        return tuple(_candidate(paragraph, self._base_url) for paragraph in found)

    def providing(self, name: str) -> tuple[Candidate, ...]:
        """All packages that provide a virtual one."""
        wanted = name.encode("ascii")
        found = [paragraph for paragraph in self._with_provides if wanted in paragraph]
        candidates = [_candidate(paragraph, self._base_url) for paragraph in found]
        return tuple(one for one in candidates if any(relation.name == name for relation in one.provides))

    def near(self, name: str) -> list[str]:
        """Up to three real packages with names like this one, the nearest first."""
        import difflib

        start = name[:3].encode("ascii", "ignore")
        # The first letters are seldom wrong, and 60,000 names would take seconds to compare.
        like = [one.decode("ascii", "replace") for one in self._places if one.startswith(start)]
        return difflib.get_close_matches(name, like, n=3, cutoff=0.75)

    @cached_property
    def _with_provides(self) -> list[bytes]:
        return [one for block in self._blocks for one in _paragraphs(block) if _name(one) and b"\nProvides: " in one]


def _named(block: bytes, name: bytes) -> Iterator[bytes]:
    """The paragraphs of a package; looked for instead of splitting the block, which has a thousand of others."""
    mark, begin = _GAP + b"Package: " + name, 0
    while (begin := block.find(mark, begin)) >= 0:
        end = block.find(_GAP, begin + len(_GAP))
        paragraph = block[begin + len(_GAP) : end if end >= 0 else None]
        if _name(paragraph) == name:  # and not the first letters of another
            yield paragraph
        begin += len(mark)


def _paragraphs(block: bytes) -> list[bytes]:
    return block.split(_GAP)


def _name(paragraph: bytes) -> bytes:
    label, _, name = paragraph.partition(b"\n")[0].partition(b": ")
    return name if label == b"Package" else b""


def _candidate(paragraph: bytes, base_url: str) -> Candidate:
    fields = parse_paragraph(paragraph.decode("utf-8", "replace"), where=base_url)
    try:
        name, version, filename = fields["package"], fields["version"], fields["filename"]
        digest = Digest.parse(f"sha256:{fields['sha256']}")
        deb = Deb(name, version, fields["architecture"], _url(base_url, filename), digest, int(fields["size"]))
    except (KeyError, ValueError, UsageError) as error:
        name = fields.get("package", "?")
        raise PolicyError("deb.control", f"incomplete paragraph of `{name}`", where=base_url, why=str(error)) from error
    groups = [parse_relations(fields.get(field, ""), where=name) for field in ("pre-depends", "depends")]
    provides = parse_relations(fields.get("provides", ""), where=name)
    return Candidate(
        deb,
        depends=groups[0] + groups[1],
        provides=tuple(relation for group in provides for relation in group),
        essential=fields.get("essential") == "yes",
    )


def _url(base_url: str, filename: str) -> str:
    if filename.startswith("/") or ".." in filename.split("/"):
        raise ValueError(f"not a name below the mirror: {filename}")
    return f"{base_url}/{quote(filename, safe='/+~:-._')}"


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, sorted by name; and what was left out of it though something depends on it, with who does."""

    debs: tuple[Deb, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def choose(indexes: Sequence[Index], base: Iterable[str], wanted: Iterable[str] = ()) -> Choice:
    """The newest version of each base package, and of each wanted one with all it depends on, less what is denied.

    Base packages bring nothing along: the list of them is complete and tested. Of alternatives the first that is
    there already wins, else the first that exists (as apt does). Conflicts are not looked at: within one release they
    are between alternatives, which a user does not name together.

    Raises NotFoundError (`debian.package_unknown`), PolicyError (`debian.package_denied`, `debian.unsatisfied`),
    UsageError (`debian.package_name`).
    """
    return _Closure(indexes).choose(tuple(base), tuple(wanted))


class _Closure:
    def __init__(self, indexes: Sequence[Index]) -> None:
        self._indexes = indexes
        self._chosen: dict[str, Candidate] = {}
        self._left_out: dict[str, str] = {}

    def choose(self, base: Sequence[str], wanted: Sequence[str]) -> Choice:
        for name in base:
            self._chosen[name] = self._must_exist(name)
        queue = [name for name in dict.fromkeys(wanted) if self._add_wanted(name)]
        while queue:
            name = queue.pop(0)
            for group in self._chosen[name].depends:
                queue += self._meet(group, name)
        debs = sorted((one.deb for one in self._chosen.values()), key=lambda deb: deb.name)
        return Choice(tuple(debs), tuple(sorted(self._left_out.items())))

    def _add_wanted(self, name: str) -> bool:
        if not PACKAGE_NAME.fullmatch(name):
            raise UsageError(
                "debian.package_name",
                f"not a Debian package name: `{name[:60]}`",
                why="expected a-z, 0-9, `+`, `-`, `.`",
            )
        candidate = self._must_exist(name)
        if _is_denied(candidate):
            raise PolicyError(
                "debian.package_denied",
                f"`{name}` does not go into an image",
                why="shells, package managers and essential tools are kept out, so that an intruder finds none",
                hint="leave it out, or call what you need from Python",
            )
        new = name not in self._chosen
        self._chosen[name] = candidate
        return new

    def _must_exist(self, name: str) -> Candidate:
        candidate = self._newest(Relation(name))
        if candidate is None:
            near = self._near(name)
            raise NotFoundError(
                "debian.package_unknown",
                f"no Debian package `{name}`",
                why="none of the release's suites has it in `main` for this platform",
                hint=f"did you mean {' or '.join(f'`{one}`' for one in near)}?"
                if near
                else "look the name up on https://packages.debian.org",
            )
        return candidate

    def _near(self, name: str) -> list[str]:
        return list(dict.fromkeys(near for index in self._indexes for near in index.near(name)))[:3]

    def _meet(self, group: Sequence[Relation], dependent: str) -> list[str]:
        """Names newly chosen so that one of the alternatives is met."""
        if any(self._is_met(relation) for relation in group):
            return []
        candidates = [candidate for relation in group for candidate in self._candidates(relation)]
        denied = next((one.deb.name for one in candidates if _is_denied(one)), "")
        if denied:
            # Whatever else would do (cdebconf for debconf, gawk for mawk) is a system tool as well.
            self._left_out.setdefault(denied, dependent)
            return []
        if not candidates:
            raise PolicyError(
                "debian.unsatisfied",
                f"`{dependent}` needs what no package gives",
                why=" or ".join(str(relation) for relation in group),
                hint="the mirror may be in the middle of an update: try again in a few minutes",
            )
        name = candidates[0].deb.name
        self._chosen[name] = candidates[0]
        return [name]

    def _is_met(self, relation: Relation) -> bool:
        own = self._chosen.get(relation.name)
        if own is not None and relation.allows(own.deb.version):
            return True
        return any(_provides(candidate, relation) for candidate in self._chosen.values())

    def _candidates(self, relation: Relation) -> Iterable[Candidate]:
        real = self._newest(relation)
        if real is not None:
            yield real
        virtual = [one for index in self._indexes for one in index.providing(relation.name) if _provides(one, relation)]
        for name in sorted({one.deb.name for one in virtual}):
            newest = self._newest(Relation(name))
            if newest is not None and _provides(newest, relation):
                yield newest

    def _newest(self, relation: Relation) -> Candidate | None:
        found = [candidate for index in self._indexes for candidate in index.named(relation.name)]
        newest = max(found, key=lambda one: version_key(one.deb.version), default=None)
        # Only the newest is a choice: an older one that would do is one with known holes.
        return newest if newest is not None and relation.allows(newest.deb.version) else None


def _provides(candidate: Candidate, relation: Relation) -> bool:
    # Policy 7.5: a provided name without a version meets no dependency with one.
    return any(
        given.name == relation.name and (not relation.op or (given.op == "=" and relation.allows(given.version)))
        for given in candidate.provides
    )


def _is_denied(candidate: Candidate) -> bool:
    # base-files is marked essential, and a part of every base.
    name = candidate.deb.name
    return name in DENIED or (candidate.essential and name != "base-files")
