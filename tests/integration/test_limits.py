"""What a replica may use is kept to by the kernel, and who is ended for it is told why."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.core.home import Home
from corten.core.resources import Resources
from corten.engine.base import Observed, ReplicaSpec
from corten.engine.cgroups import Cgroups
from corten.engine.embedded import Embedded, Sandbox
from corten.testing.tiny_image import TinyImage

MIB = 1 << 20
LIMITED = Resources(memory_bytes=64 * MIB, cpus=0.5)
HOG = "held = []\nwhile True: held.append(bytearray(4 << 20))"
BURN = """
import os, time
began, used = time.monotonic(), time.process_time()
while time.monotonic() < began + 2: pass
print("SHARE", (time.process_time() - used) / (time.monotonic() - began), os.environ["CORTEN_THREADS"], flush=True)
"""
WHOLE = pytest.mark.skipif(bool(Cgroups().lacking(LIMITED)), reason="no cgroups can be made here")


class Bench:
    def __init__(self, home: Home, tiny: TinyImage) -> None:
        self.home, self.tiny = home, tiny

    def engine(self, sandbox: Sandbox = Sandbox.BWRAP, cgroups: Cgroups | None = None) -> Embedded:
        return Embedded(self.home, sandbox=sandbox, cgroups=cgroups)

    def start(self, engine: Embedded, name: str, code: str, resources: Resources = LIMITED) -> str:
        image = self.tiny.build(["/usr/bin/python3", "-c", code], code={"x": ""})
        return engine.start(ReplicaSpec(f"{name}-r1-x", name, 1, image, resources=resources)).id

    def end_of(self, engine: Embedded, replica_id: str) -> Observed:
        for _ in range(3000):
            seen = next(one for one in engine.list() if one.id == replica_id)
            if not seen.running:
                return seen
            time.sleep(0.01)
        raise AssertionError(f"{replica_id} still runs")


@pytest.fixture
def bench(home: Home, tiny: TinyImage) -> Iterator[Bench]:
    bench = Bench(home, tiny)
    yield bench
    engine = bench.engine()
    for seen in engine.list():
        engine.remove(seen.id)


def left_over() -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").rglob("corten-*-r1-x") if path.is_dir()]


@WHOLE
@pytest.mark.parametrize("sandbox", [Sandbox.BWRAP, Sandbox.NONE])
def test_who_wants_more_memory_is_ended_alone_and_told_why(bench: Bench, sandbox: Sandbox) -> None:
    engine = bench.engine(sandbox)
    neighbour = bench.start(engine, "calm", "import time; time.sleep(600)")
    hog = bench.start(engine, "hog", HOG)
    # As the next daemon would see it.
    seen = bench.end_of(bench.engine(sandbox), hog)
    assert seen.exit_code == 137
    assert seen.reason.startswith("out of memory: limit 64 MiB, peak 6")
    assert {one.id: one.running for one in engine.list()} == {neighbour: True, hog: False}
    for replica in (hog, neighbour):
        engine.remove(replica)
    assert left_over() == []


@WHOLE
def test_children_of_a_replica_count_too(bench: Bench) -> None:
    engine = bench.engine()
    forks = f"import os, time\nif os.fork() == 0:\n    import ctypes\n    {HOG.replace(chr(10), chr(10) + '    ')}\n"
    waits = "print('ENDED', os.waitpid(-1, 0)[1], flush=True)"
    replica = bench.start(engine, "parent", forks + waits)
    assert bench.end_of(engine, replica).exit_code == 0
    assert engine.logs(replica) == ["ENDED 9"]


@WHOLE
def test_a_kill_by_somebody_is_not_taken_for_a_lack_of_memory(bench: Bench) -> None:
    engine = bench.engine()
    replica = bench.start(engine, "victim", "import time; time.sleep(600)")
    engine.kill(replica)
    seen = bench.end_of(engine, replica)
    assert seen.exit_code == 137
    assert "out of memory" not in seen.reason


@WHOLE
def test_it_gets_the_share_of_the_processors_it_was_given(bench: Bench) -> None:
    engine = bench.engine()
    replica = bench.start(engine, "busy", BURN)
    assert bench.end_of(engine, replica).exit_code == 0
    (word, share, threads), *_ = [line.split() for line in engine.logs(replica)]
    assert word == "SHARE"
    assert float(share) < 0.6
    assert threads == "1"


@pytest.mark.parametrize("sandbox", [Sandbox.BWRAP, Sandbox.NONE])
def test_without_cgroups_each_process_is_limited_and_that_is_said(bench: Bench, sandbox: Sandbox) -> None:
    if not shutil.which("prlimit"):
        pytest.skip("needs util-linux's prlimit")
    engine = bench.engine(sandbox, Cgroups([]))
    replica = bench.start(engine, "hog", HOG)
    assert bench.end_of(engine, replica).exit_code == 1
    assert engine.logs(replica)[-1] == "MemoryError"
    assert engine.describe()["limits"] == "none for memory and cpu: no cgroup can be made"
