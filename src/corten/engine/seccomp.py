"""The system calls a replica may not make, as a classic BPF program for seccomp(2).

A deny-list: a model's framework may need any ordinary call, but none needs to mount, trace, load kernel code or make
namespaces, and these are where most ways out of a container begin (Docker's default profile denies the same and more:
https://docs.docker.com/engine/security/seccomp/). It stands behind the sandbox's other walls: no capabilities,
no_new_privs, own namespaces.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Final

from corten.core.platform import Platform

# Calls with the same number everywhere: all made since Linux 5.1.
_COMMON: Final = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}
_X86_64: Final = {
    "ptrace": 101,
    "syslog": 103,
    "uselib": 134,
    "personality": 135,
    "ustat": 136,
    "sysfs": 139,
    "vhangup": 153,
    "modify_ldt": 154,
    "pivot_root": 155,
    "_sysctl": 156,
    "adjtimex": 159,
    "chroot": 161,
    "acct": 163,
    "settimeofday": 164,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "sethostname": 170,
    "setdomainname": 171,
    "iopl": 172,
    "ioperm": 173,
    "create_module": 174,
    "init_module": 175,
    "delete_module": 176,
    "get_kernel_syms": 177,
    "query_module": 178,
    "quotactl": 179,
    "nfsservctl": 180,
    "lookup_dcookie": 212,
    "clock_settime": 227,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "migrate_pages": 256,
    "unshare": 272,
    "move_pages": 279,
    "perf_event_open": 298,
    "fanotify_init": 300,
    "name_to_handle_at": 303,
    "open_by_handle_at": 304,
    "clock_adjtime": 305,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "kcmp": 312,
    "finit_module": 313,
    "kexec_file_load": 320,
    "bpf": 321,
    "userfaultfd": 323,
}
_AARCH64: Final = {
    "lookup_dcookie": 18,
    "umount2": 39,
    "mount": 40,
    "pivot_root": 41,
    "nfsservctl": 42,
    "chroot": 51,
    "vhangup": 58,
    "quotactl": 60,
    "acct": 89,
    "personality": 92,
    "unshare": 97,
    "kexec_load": 104,
    "init_module": 105,
    "delete_module": 106,
    "clock_settime": 112,
    "syslog": 116,
    "ptrace": 117,
    "reboot": 142,
    "sethostname": 161,
    "setdomainname": 162,
    "settimeofday": 170,
    "adjtimex": 171,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "swapon": 224,
    "swapoff": 225,
    "migrate_pages": 238,
    "move_pages": 239,
    "perf_event_open": 241,
    "fanotify_init": 262,
    "name_to_handle_at": 264,
    "open_by_handle_at": 265,
    "clock_adjtime": 266,
    "setns": 268,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "kcmp": 272,
    "finit_module": 273,
    "bpf": 280,
    "userfaultfd": 282,
    "kexec_file_load": 294,
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What differs from processor to processor. `audit` is AUDIT_ARCH_* of linux/audit.h."""

    audit: int
    denied: dict[str, int]
    clone: int
    socket: int
    ioctl: int
    has_x32: bool


# By name, on whatever processor.
REFUSED: Final = frozenset(_COMMON) | frozenset(_X86_64) | frozenset(_AARCH64)
CLONE3: Final = 435  # the same everywhere
MACHINES: Final = {
    "amd64": Machine(0xC000003E, _COMMON | _X86_64, clone=56, socket=41, ioctl=16, has_x32=True),
    "arm64": Machine(0xC00000B7, _COMMON | _AARCH64, clone=220, socket=198, ioctl=29, has_x32=False),
}

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET of linux/sched.h.
NAMESPACE_FLAGS: Final = 0x7E020000
_X32_BIT: Final = 0x40000000
# Keystrokes pushed into a terminal somebody else reads (CVE-2017-5226), and the console's way to do so.
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
# AF_UNIX, AF_INET, AF_INET6, AF_NETLINK (getaddrinfo asks it). Not AF_VSOCK, which leads to the hypervisor from any
# network namespace, nor AF_ALG and AF_PACKET.
FAMILIES: Final = (1, 2, 10, 16)

# linux/bpf_common.h, linux/seccomp.h; offsets in struct seccomp_data (little-endian halves of the arguments).
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

_Instruction = tuple[int, int, int, int]


def program(platform: Platform) -> bytes:
    """The program as bwrap's `--seccomp FD` reads it: an array of struct sock_filter.

    Denied calls fail with EPERM. clone3 fails with ENOSYS, because its flags lie in memory a filter cannot read: libc
    then uses clone, whose flags it can. Sockets of other families fail with EAFNOSUPPORT. Calls of another
    architecture end the process; those of the x32 ABI fail with ENOSYS.
    """
    machine = MACHINES[platform.architecture]
    steps: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, machine.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine.has_x32:
        steps += [(_AT_LEAST, 0, 1, _X32_BIT), _failing(errno.ENOSYS)]
    for number in sorted(machine.denied.values()):
        steps += [(_EQUAL, 0, 1, number), _failing(errno.EPERM)]
    steps += [(_EQUAL, 0, 1, CLONE3), _failing(errno.ENOSYS)]
    steps += _on_argument(machine.clone, _ARGUMENT_0, [(_ANY_BIT, 0, 1, NAMESPACE_FLAGS), _failing(errno.EPERM)])
    steps += _on_argument(
        machine.ioctl,
        _ARGUMENT_1,
        [
            (_EQUAL, 1, 0, _TIOCSTI),
            (_EQUAL, 0, 1, _TIOCLINUX),
            _failing(errno.EPERM),
        ],
    )
    known = [(_EQUAL, len(FAMILIES) - index, 0, family) for index, family in enumerate(FAMILIES)]
    steps += _on_argument(machine.socket, _ARGUMENT_0, [*known, _failing(errno.EAFNOSUPPORT)])
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", code, then, otherwise, value) for code, then, otherwise, value in steps)


def _on_argument(number: int, argument: int, test: list[_Instruction]) -> list[_Instruction]:
    """Run `test` with an argument of one call; every way through it that does not return allows the call."""
    body = [(_LOAD, 0, 0, argument), *test, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]


def _failing(number: int) -> _Instruction:
    return (_RETURN, 0, 0, _ERRNO | number)
