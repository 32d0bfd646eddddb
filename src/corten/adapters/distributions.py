"""Which release of a distribution is installed beside Corten; asked where a model file does not tell."""

from __future__ import annotations


def installed(distribution: str) -> str:
    """The version installed here, without a local part (`2.13.0+cpu` names a build of one index); empty for none."""
    # Imported here: it takes 32 ms, which a replica would pay at each start.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution).partition("+")[0]
    except PackageNotFoundError:
        return ""


def numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version, to compare releases by."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
