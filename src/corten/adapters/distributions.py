"""Names and releases of distributions: in requirement lines, and as installed beside Corten."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Builds of one library under several names: each brings the same module, and two of them would overwrite each other.
_BUILDS = (
    frozenset({"xgboost", "xgboost-cpu"}),
    frozenset({"onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"}),
)


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


def distribution(requirement: str) -> str:
    """The normalised name in a requirement line (PEP 503): `Scikit_Learn[x]>=1` gives `scikit-learn`."""
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement.strip())
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def builds_of(name: str) -> frozenset[str]:
    """The distributions that bring the same module as this one, itself among them."""
    return next((builds for builds in _BUILDS if name in builds), frozenset({name}))


def declares(requirements: Iterable[str], name: str) -> bool:
    """Whether one of these lines is of this distribution, or of another build of it."""
    return any(distribution(line) in builds_of(name) for line in requirements)


def pinned(requirement: str) -> str:
    """The version of a line that names exactly one, `numpy==2.4.6`; empty for others."""
    match = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[^]]*\])?\s*==\s*([A-Za-z0-9.!+]+)", requirement.strip())
    return match[1].partition("+")[0] if match else ""
