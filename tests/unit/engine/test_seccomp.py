"""The filter, run by a small interpreter of classic BPF (the kernel runs the real one in test_isolation)."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.platform import Platform
from corten.engine.seccomp import CLONE3, MACHINES, program

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
AMD64 = MACHINES["amd64"]
PROGRAMS = {name: program(Platform(name)) for name in MACHINES}


def run(name, number, *, audit=None, arguments=(0, 0)):
    data = struct.pack("=IIQ6Q", number, audit or MACHINES[name].audit, 0, *arguments, *(0,) * (6 - len(arguments)))
    steps = [*struct.iter_unpack("=HBBI", PROGRAMS[name])]
    accumulator = at = 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += then if accumulator == value else otherwise
            case 0x35:
                at += then if accumulator >= value else otherwise
            case 0x45:
                at += then if accumulator & value else otherwise
            case 0x06:
                return value
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


both = pytest.mark.parametrize("name", ["amd64", "arm64"])


@both
def test_every_denied_call_fails_with_eperm(name):
    for number in MACHINES[name].denied.values():
        assert run(name, number) == ERRNO | errno.EPERM


@both
@given(number=st.integers(0, 0x3FFFFFFF), argument=st.integers(0, 2**64 - 1))
def test_every_other_call_is_allowed_whatever_its_arguments(name, number, argument):
    machine = MACHINES[name]
    judged = {*machine.denied.values(), machine.clone, machine.socket, machine.ioctl, CLONE3}
    if number not in judged:
        assert run(name, number, arguments=(argument, argument)) == ALLOW


@both
def test_a_process_of_another_architecture_is_killed(name):
    other = next(machine.audit for key, machine in MACHINES.items() if key != name)
    assert run(name, 0, audit=other) == KILL
    assert run(name, 0, audit=0x40000003) == KILL  # i386, whose numbers mean other calls


def test_the_x32_abi_does_not_exist():
    assert run("amd64", 0x40000000 | AMD64.denied["ptrace"]) == ERRNO | errno.ENOSYS
    assert run("amd64", 0x40000000) == ERRNO | errno.ENOSYS


@both
def test_clone_makes_threads_and_processes_but_no_namespaces(name):
    clone = MACHINES[name].clone
    thread = 0x3D0F00  # what pthread_create asks for
    assert run(name, clone, arguments=(thread, 0)) == ALLOW
    assert run(name, clone, arguments=(17, 0)) == ALLOW
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert run(name, clone, arguments=(17 | flag, 0)) == ERRNO | errno.EPERM


@both
def test_libc_is_sent_from_clone3_to_clone(name):
    assert run(name, CLONE3) == ERRNO | errno.ENOSYS


@both
@pytest.mark.parametrize(
    ("family", "expected"),
    [(1, ALLOW), (2, ALLOW), (10, ALLOW), (16, ALLOW)]
    + [(family, ERRNO | errno.EAFNOSUPPORT) for family in (0, 3, 15, 17, 38, 40, 44)],
)
def test_only_ordinary_sockets_can_be_made(name, family, expected):
    assert run(name, MACHINES[name].socket, arguments=(family, 1)) == expected


@both
def test_keystrokes_cannot_be_pushed_into_a_terminal(name):
    ioctl = MACHINES[name].ioctl
    assert run(name, ioctl, arguments=(0, 0x5412)) == ERRNO | errno.EPERM
    assert run(name, ioctl, arguments=(0, 0x541C)) == ERRNO | errno.EPERM
    assert run(name, ioctl, arguments=(0, 0x5401)) == ALLOW
    # The kernel looks at the lower half only, so must the filter.
    assert run(name, ioctl, arguments=(0, 0xFFFFFFFF00005412)) == ERRNO | errno.EPERM


@both
def test_the_kernel_would_take_the_program(name):
    steps = [*struct.iter_unpack("=HBBI", PROGRAMS[name])]
    assert len(steps) <= 4096  # BPF_MAXINSNS
    assert steps[-1][0] == 0x06
    for at, (code, then, otherwise, _) in enumerate(steps):
        if code not in (0x06, 0x20):
            assert at + 1 + max(then, otherwise) < len(steps)


def test_the_numbers_are_those_of_this_machines_headers():
    import re
    from pathlib import Path

    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("no kernel headers here")
    known = dict(re.findall(r"#define __NR_(\w+) (\d+)", header.read_text()))
    wrong = {call: number for call, number in AMD64.denied.items() if call in known and int(known[call]) != number}
    assert not wrong
