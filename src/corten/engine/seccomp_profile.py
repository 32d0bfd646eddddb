"""podman's own seccomp profile, without what Docker's and Corten's sandbox refuse too. Pure.

podman lets a container make user namespaces and keyrings, for containers in containers. A model needs neither, and a
new user namespace is where most ways out of one begin. The rest stays as the distribution made it (containers/common,
pkg/seccomp; the profile's format is Docker's).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from corten.engine.seccomp import FAMILIES, NAMESPACE_FLAGS, REFUSED

_TAKEN_OUT: Final = REFUSED | {"clone", "clone3", "socket"}

Rule = Mapping[str, object]


class _Named(msgspec.Struct, frozen=True):
    names: Sequence[str] = ()


class _Profile(msgspec.Struct, frozen=True):
    syscalls: Sequence[Mapping[str, object]]


def stricter(profile: bytes) -> bytes:
    """The profile as a file for podman. Raises ValueError for what is no profile."""
    whole = msgspec.json.decode(profile, type=dict[str, object])
    rules = msgspec.json.decode(profile, type=_Profile).syscalls
    names = [each.names for each in msgspec.convert(rules, type=list[_Named])]
    kept = [
        {**rule, "names": left}
        for rule, named in zip(rules, names, strict=True)
        if (left := [name for name in named if name not in _TAKEN_OUT])
    ]
    return msgspec.json.encode({**whole, "syscalls": [*kept, *_added()]})


def _added() -> Sequence[Rule]:
    """As `engine.seccomp.program` has it."""
    only_threads = {"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    return (
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [only_threads]},
        # Its flags are in memory, where a filter cannot look: the C library uses clone then.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
        *(
            {
                "names": ["socket"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": family, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
            }
            for family in FAMILIES
        ),
        {"names": sorted(REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
    )
