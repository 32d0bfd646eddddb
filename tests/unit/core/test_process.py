import os
import signal

from corten.core.process import ProcessId, boot_id, command, parent, with_environment


def test_this_process_is_itself():
    me = ProcessId.of(os.getpid())
    assert me is not None
    assert me.alive
    assert me.boot == boot_id()
    assert parent(me.pid) == os.getppid()
    assert command(me.pid)


def test_nobody_has_an_impossible_pid():
    assert ProcessId.of(2**22 + 1) is None
    assert parent(2**22 + 1) == 0


def test_a_process_with_our_pid_but_another_start_is_somebody_else():
    me = ProcessId.of(os.getpid())
    earlier = ProcessId(me.pid, me.start_ticks - 1, me.boot)
    assert not earlier.alive
    # Would end this test run if PID alone counted.
    assert not earlier.send(signal.SIGKILL)
    earlier.kill()


def test_a_process_of_an_earlier_boot_is_gone():
    me = ProcessId.of(os.getpid())
    before = ProcessId(me.pid, me.start_ticks, "another boot")
    assert not before.alive
    assert not before.send(signal.SIGKILL)


def test_signals_with_and_without_handler_are_told_apart():
    me = ProcessId.of(os.getpid())
    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        assert me.heeds(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    assert not me.heeds(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, old)


def test_an_environment_nobody_has_finds_nobody():
    assert with_environment("CORTEN_START=nobody-has-this-one") == []
