"""The embedded engine when things die: the daemon at any line, the replica, the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from others import python_for_others

from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.process import ProcessId
from corten.engine.base import ReplicaSpec
from corten.engine.embedded import Embedded, Sandbox
from corten.engine.launch import probe
from corten.engine.record import ReplicaFolder
from corten.engine.sandbox import Bounds, Host
from corten.errors import CortenError, EngineError
from corten.testing.tiny_image import TinyImage

pytestmark = pytest.mark.bwrap

# Starts a replica and is killed at the N-th line run in the engine's modules, and in the one it tells processes by.
DAEMON = """
import os, signal, sys
from pathlib import Path
from corten.core.digest import Digest
from corten.core.home import Home
from corten.engine.base import ReplicaSpec
from corten.engine.embedded import Embedded, Sandbox

home, image, replica_id, sandbox, last = sys.argv[1:]
engine = Embedded(Home(Path(home)), sandbox=Sandbox(sandbox))
engine.prepare(Digest.parse(image))
engine.describe()
left = int(last)

def trace(frame, event, _):
    if not any(part in frame.f_code.co_filename for part in ("/corten/engine/", "/corten/core/process.py")):
        return None
    return line

def line(frame, event, _):
    global left
    if event == "line":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return line

sys.settrace(trace)
engine.start(ReplicaSpec(replica_id, "crash", 1, Digest.parse(image)))
sys.settrace(None)
print(int(last) - left, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
SLEEPER = (
    "import time, os\nopen('/run/corten/s', 'w').close() if os.path.isdir('/run/corten') else None\ntime.sleep(600)"
)


@pytest.fixture
def engine(home: Home) -> Iterator[Embedded]:
    engine = Embedded(home, sandbox=Sandbox.BWRAP)
    yield engine
    for seen in engine.list():
        engine.remove(seen.id)


def sleeper(tiny: TinyImage, mark: str) -> Digest:
    return tiny.build(["/usr/bin/python3", "-c", f"{SLEEPER}  # {mark}"], code={"x": ""})


def processes(mark: str) -> list[int]:
    """Processes with this text on their command line, other than this test."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_until(true, what: str, within_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)


def killed_daemon(home: Home, image: Digest, replica_id: str, sandbox: Sandbox, last: int) -> str:
    command = [sys.executable, "-c", DAEMON, str(home.root), str(image), replica_id, sandbox.value, str(last)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", [Sandbox.BWRAP, Sandbox.NONE])
def test_a_daemon_killed_at_any_line_of_start_leaves_no_orphan(home: Home, tiny: TinyImage, sandbox: Sandbox) -> None:
    mark = f"mark-{sandbox.value}-{os.getpid()}"
    image = sleeper(tiny, mark)
    lines = int(killed_daemon(home, image, "crash-r1-all", sandbox, 10**9))
    Embedded(home, sandbox=sandbox).remove("crash-r1-all")
    wait_until(lambda: not processes(mark), "the first one still runs")
    outcomes = set()
    # Every tenth line, and each of the first and last ones.
    for last in sorted({*range(1, lines, max(1, lines // 40)), *range(max(1, lines - 5), lines)}):
        replica_id = f"crash-r1-{last}"
        killed_daemon(home, image, replica_id, sandbox, last)
        successor = Embedded(home, sandbox=sandbox)
        seen = {one.id: one for one in successor.list()}
        outcomes.add(seen[replica_id].running if replica_id in seen else None)
        # Whatever runs is known; what is not known to run does not.
        if not (replica_id in seen and seen[replica_id].running):
            wait_until(lambda: not processes(mark), f"an orphan after line {last} of {lines}")
        successor.remove(replica_id)
        wait_until(lambda: not processes(mark), f"an orphan after removal, line {last} of {lines}")
        assert successor.list() == []
        assert [*home.run.iterdir()] == []
    assert {True, None} <= outcomes, "the points of the kill did not cover the start"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Popen, of a process we end ourselves
@pytest.mark.parametrize("sandbox", [Sandbox.BWRAP, Sandbox.NONE])
def test_a_start_interrupted_at_any_line_leaves_nothing_running(home: Home, tiny: TinyImage, sandbox: Sandbox) -> None:
    mark = f"mark-stopped-{sandbox.value}-{os.getpid()}"
    image = sleeper(tiny, mark)
    engine = Embedded(home, sandbox=sandbox)
    engine.prepare(image)
    engine.describe()
    left = 10**9

    def trace(frame, event, _):
        nonlocal left
        if "/corten/engine/launch.py" not in frame.f_code.co_filename:
            return trace if event == "call" and "/corten/engine/" in frame.f_code.co_filename else None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    def start(last: int) -> int:
        """Start, interrupted at the `last`-th line of the launch; gives how many lines it has."""
        nonlocal left
        left = last
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            engine.start(ReplicaSpec(f"stopped-r1-{last}", "stopped", 1, image))
        finally:
            sys.settrace(before)
        return last - left

    lines = start(10**9)
    engine.remove(f"stopped-r1-{10**9}")
    # A launch waits in loops, so the next one may have fewer lines than this one; then it starts whole.
    interrupted = 0
    points = sorted({*range(1, lines, max(1, lines // 30)), *range(max(1, lines - 5), lines)})
    for last in points:
        try:
            start(last)
        except KeyboardInterrupt:
            interrupted += 1
        engine.remove(f"stopped-r1-{last}")  # as whoever is interrupted does; it may have got that far
        wait_until(lambda: not processes(mark), f"something runs after line {last} of {lines}")
        assert engine.list() == []
    assert interrupted > len(points) / 2


def test_replica_and_its_exit_code_outlive_the_daemon(home: Home, tiny: TinyImage) -> None:
    code = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\ntime.sleep(600)"
    image = tiny.build(["/usr/bin/python3", "-c", code], code={"x": ""})
    killed_daemon(home, image, "a-r1-lives", Sandbox.BWRAP, 10**9)
    successor = Embedded(home, sandbox=Sandbox.BWRAP)
    (seen,) = successor.list()
    assert seen.running
    wait_until(lambda: ProcessId.of(seen.pid).heeds(signal.SIGTERM), "no handler")
    successor.terminate(seen.id)
    wait_until(lambda: not successor.list()[0].running, "still runs")
    assert successor.list()[0].exit_code == 9
    successor.remove(seen.id)


def test_killing_a_replica_ends_all_it_started(engine: Embedded, tiny: TinyImage) -> None:
    mark = f"mark-children-{os.getpid()}"
    # In two pieces, so that only the children have the mark on their command line.
    code = (
        "import os, subprocess, sys, time\n"
        f'child = "import time; time.sleep(600)  # " + "{mark[:4]}" + "{mark[4:]}"\n'
        "for _ in range(5): subprocess.Popen([sys.executable, '-c', child], start_new_session=True)\n"
        "open('/run/corten/s', 'w').close()\ntime.sleep(600)"
    )
    started = engine.start(
        ReplicaSpec("a-r1-tree", "a", 1, tiny.build(["/usr/bin/python3", "-c", code], code={"x": ""}))
    )
    wait_until(lambda: len(processes(mark)) >= 5, "children did not start")
    engine.kill(started.id)
    wait_until(lambda: not processes(mark), "children survived")


def test_a_plain_process_leaves_no_children_either(tiny: TinyImage, home: Home) -> None:
    mark = f"mark-plain-{os.getpid()}"
    code = (
        "import os, sys, time\n"
        f"if os.fork() == 0:\n    os.setsid(); time.sleep(600)  # {mark}\n"
        "time.sleep(0.2)\nsys.exit(4)"
    )
    engine = Embedded(home, sandbox=Sandbox.NONE)
    engine.start(ReplicaSpec("a-r1-plain", "a", 1, tiny.build(["/usr/bin/python3", "-c", code], code={"x": ""})))
    wait_until(lambda: not engine.list()[0].running, "still runs")
    assert engine.list()[0].exit_code == 4
    assert processes(mark) == []
    engine.remove("a-r1-plain")


def test_a_replica_killed_by_somebody_else_is_seen(engine: Embedded, tiny: TinyImage) -> None:
    started = engine.start(ReplicaSpec("a-r1-kill", "a", 1, sleeper(tiny, "other")))
    os.kill(started.pid, signal.SIGKILL)
    wait_until(lambda: not engine.list()[0].running, "still runs")
    assert engine.list()[0].exit_code == 137


def test_a_replica_whose_watcher_was_killed_lives_and_ends_unseen(
    engine: Embedded, tiny: TinyImage, home: Home
) -> None:
    started = engine.start(ReplicaSpec("a-r1-watch", "a", 1, sleeper(tiny, "watched")))
    record = ReplicaFolder(home.replicas / started.id).read()
    record.watcher.kill()
    assert engine.list()[0].running
    engine.kill(started.id)
    assert engine.list()[0].exit_code == -1


def test_a_reused_pid_is_not_ours_to_kill(engine: Embedded, tiny: TinyImage, home: Home) -> None:
    started = engine.start(ReplicaSpec("a-r1-reuse", "a", 1, sleeper(tiny, "reuse")))
    folder = ReplicaFolder(home.replicas / started.id)
    engine.kill(started.id)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        # The record says another process once had the PID that a stranger has now.
        import dataclasses

        now = ProcessId.of(stranger.pid)
        then = dataclasses.replace(now, start_ticks=now.start_ticks - 100)
        folder.write(dataclasses.replace(folder.read(), process=then, exit_code=None))
        assert not engine.list()[0].running
        engine.kill(started.id)
        engine.remove(started.id)
        assert stranger.poll() is None
        stranger.kill()


def test_a_sandbox_that_cannot_be_made_is_an_error_of_start_and_leaves_nothing(
    engine: Embedded, tiny: TinyImage, home: Home
) -> None:
    image = tiny.build(["/usr/bin/no-such-program"], code={"x": ""})
    with pytest.raises(EngineError) as raised:
        engine.start(ReplicaSpec("a-r1-bad", "a", 1, image))
    assert raised.value.code == "engine.sandbox_failed"
    assert "no-such-program" in raised.value.why
    assert engine.list() == []
    assert [path for path in home.replicas.iterdir() if not path.name.startswith(".")] == []
    assert [*home.run.iterdir()] == []


def test_a_socket_path_that_is_too_long_is_refused_before_anything_starts(tiny: TinyImage, home: Home) -> None:
    long = Home(home.root / ("x" * 60))
    engine = Embedded(long, sandbox=Sandbox.BWRAP)
    assert len(str(long.run)) < 60  # elsewhere, because of its length
    shutil.copytree(home.store, long.store)
    image = sleeper(tiny, "long")
    shutil.rmtree(long.store)
    shutil.copytree(home.store, long.store)
    started = engine.start(ReplicaSpec("a" * 60, "a", 1, image))
    assert started.running
    assert len(started.address) <= 107
    engine.remove(started.id)
    shutil.rmtree(long.root)
    shutil.rmtree(long.run)


def test_secrets_are_neither_on_a_command_line_nor_in_the_records(
    engine: Embedded, tiny: TinyImage, home: Home
) -> None:
    started = engine.start(ReplicaSpec("a-r1-secret", "a", 1, sleeper(tiny, "secret"), env={"KEY": "canary-7f3a"}))
    assert Path(f"/proc/{started.pid}/cmdline").read_bytes()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"canary-7f3a" not in path.read_bytes()
        except OSError:
            continue
    written = [path for path in home.replicas.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"canary-7f3a" in path.read_bytes()]


def test_a_log_that_grows_without_end_is_cut(engine: Embedded, tiny: TinyImage, home: Home, monkeypatch) -> None:
    from corten.engine import embedded

    real = embedded.keep_short
    monkeypatch.setattr(embedded, "keep_short", lambda log: real(log, longest_bytes=1 << 20, kept_bytes=1 << 10))
    code = "import time\nwhile True:\n    print('x' * 1000, flush=True)\n    time.sleep(0.0001)"
    engine.start(ReplicaSpec("a-r1-loud", "a", 1, tiny.build(["/usr/bin/python3", "-c", code], code={"x": ""})))
    log = home.replicas / "a-r1-loud" / "log"
    wait_until(lambda: engine.list() and log.with_name("log.1").exists(), "never cut")
    assert engine.list()[0].running
    assert len(engine.logs("a-r1-loud", tail=3)) <= 3


def tasks_of(uid: int) -> int:
    """How many threads of that user there are."""
    found = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += len([*(entry / "task").iterdir()]) if entry.stat().st_uid == uid else 0
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="the count is of uid 65532's processes")
def test_a_fork_bomb_hits_its_own_limit(tiny: TinyImage, home: Home) -> None:
    # The kernel counts all of the user's threads on the machine: those of other tests' replicas as well.
    limit = tasks_of(65532) + 40
    code = (
        "import os, time\ncount = 0\n"
        f"try:\n    while count < {limit + 400}:\n        if os.fork() == 0:\n            time.sleep(600)\n        count += 1\n"
        "except BlockingIOError:\n    pass\nprint(count, flush=True)\nopen('/run/corten/s', 'w').close()\ntime.sleep(600)"
    )
    image = tiny.build(["/usr/bin/python3", "-c", code], code={"x": ""})
    engine = Embedded(home, sandbox=Sandbox.BWRAP, bounds=Bounds(processes=limit))
    started = engine.start(ReplicaSpec("a-r1-bomb", "a", 1, image))
    wait_until(lambda: Path(started.address).exists(), "never hit the limit")
    assert int(engine.logs(started.id)[-1]) <= limit
    engine.remove(started.id)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
@pytest.mark.parametrize("sandbox", ["bwrap", "none"])
def test_an_ordinary_user_needs_no_root(tiny: TinyImage, home: Home, sandbox: str) -> None:
    python, path = python_for_others()
    image = sleeper(tiny, "user")
    theirs = Path(tempfile.mkdtemp(prefix="corten-user-"))
    shutil.copytree(home.store, theirs / "store")
    subprocess.run(["chown", "-R", "1234:1234", str(theirs)], check=True)
    code = (
        "import sys, time; from pathlib import Path; from corten.core.home import Home\n"
        "from corten.core.digest import Digest; from corten.engine.base import ReplicaSpec\n"
        "from corten.engine.embedded import Embedded, Sandbox\n"
        f"engine = Embedded(Home(Path({str(theirs)!r})), sandbox=Sandbox({sandbox!r}))\n"
        f"print(engine.describe()['user']); spec = ReplicaSpec('a-r1-u', 'a', 1, Digest.parse({str(image)!r}))\n"
        "assert engine.start(spec).running; engine.kill(spec.id); print(engine.list()[0].exit_code)\n"
        "engine.remove(spec.id)"
    )
    try:
        done = subprocess.run(
            [python, "-c", code],
            user=1234,
            group=1234,
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        shutil.rmtree(theirs)
    assert done.stdout.splitlines()[-1:] == ["137"], done.stderr
    assert "your own" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_a_clear_error_and_no_more(tiny: TinyImage, home: Home) -> None:
    image = sleeper(tiny, "full")
    small = Path(tempfile.mkdtemp(prefix="corten-small-"))
    small.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=0755", "tmpfs", str(small)], check=True)
    try:
        there = Home(small)
        there.store.symlink_to(home.store)
        engine = Embedded(there, sandbox=Sandbox.BWRAP)
        with pytest.raises(CortenError) as raised:
            engine.start(ReplicaSpec("a-r1-full", "a", 1, image))
        assert raised.value.code == "store.disk_full"
        assert raised.value.hint
        assert engine.list() == []
        assert not (there.trees / "layers").exists() or [*(there.trees / "roots").glob("*")] == []
        subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
        started = engine.start(ReplicaSpec("a-r1-full", "a", 1, image))
        assert started.running
        engine.remove(started.id)
    finally:
        subprocess.run(["umount", str(small)], check=True)
        small.rmdir()


def test_what_a_killed_daemon_left_half_written_is_cleared_away(engine: Embedded, tiny: TinyImage, home: Home) -> None:
    left, fresh = home.replicas / ".new-0", home.replicas / ".new-1"
    for folder in (left, fresh):
        folder.mkdir(parents=True)
    os.utime(left, (0, 0))
    engine.prepare(sleeper(tiny, "left"))
    assert (left.exists(), fresh.exists()) == (False, True)
    fresh.rmdir()


def test_the_probe_says_why_there_is_no_sandbox(tmp_path: Path) -> None:
    assert "not installed" in probe(None).reason
    broken = tmp_path / "bwrap"
    broken.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo bubblewrap 0.8.0 && exit 0\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n"
    )
    broken.chmod(0o755)
    found = probe(str(broken), (Host.ROOT,))
    assert not found.works
    assert found.version == "0.8.0"
    assert found.reason == "bwrap: No permissions to create new namespace"


def test_without_bubblewrap_it_runs_plainly_and_says_so_loudly(home: Home, tmp_path: Path) -> None:
    heard = []
    engine = Embedded(home, bwrap=str(tmp_path / "no-bwrap"), listen=heard.append)
    assert engine.describe()["sandbox"].startswith("none (plain process): ")
    assert [event.phase.value for event in heard] == ["warning"]
    assert "WITHOUT a sandbox" in heard[0].message


def test_a_sandbox_that_is_insisted_on_is_not_replaced_by_none(home: Home, tiny: TinyImage, tmp_path: Path) -> None:
    engine = Embedded(home, bwrap=str(tmp_path / "no-bwrap"), sandbox=Sandbox.BWRAP)
    with pytest.raises(EngineError) as raised:
        engine.start(ReplicaSpec("a-r1-x", "a", 1, sleeper(tiny, "insist")))
    assert raised.value.code == "engine.no_sandbox"
    assert Embedded(home).list() == []
