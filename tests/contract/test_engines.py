"""Every engine passes the same suite."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from corten.core.digest import Digest
from corten.core.home import Home
from corten.engine.base import Engine, ReplicaSpec
from corten.engine.containers import Docker, Podman
from corten.engine.embedded import Embedded, Sandbox
from corten.engine.memory import Machine, Memory
from corten.observe.memory import tree_bytes
from corten.store.layout import Layout
from corten.testing.engine_contract import EngineContract
from corten.testing.tiny_image import TinyImage

HELLO = """
import hashlib, os, pathlib
print("hello")
print("CORTEN_REVISION=" + os.environ["CORTEN_REVISION"])
if "KEY_FILE" in os.environ:
    print("KEY=" + hashlib.sha256(pathlib.Path(os.environ["KEY_FILE"]).read_bytes()).hexdigest())
"""
# The file tells the test that the handler is in place.
WAIT = """
pathlib.Path(os.environ["CORTEN_LISTEN"].removeprefix("unix:")).touch()
while True:
    time.sleep(60)
"""
OBEDIENT = HELLO + "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))" + WAIT
STUBBORN = HELLO + "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)" + WAIT
CARELESS = HELLO + "import time" + WAIT
FAILING = "import sys\nprint('cannot go on')\nsys.exit(3)\n"


@dataclass(frozen=True)
class BuiltImages:
    obedient: Digest
    stubborn: Digest
    failing: Digest
    careless: Digest


@pytest.fixture(scope="session")
def machine_folder() -> Iterator[Path]:
    # Not tmp_path: replicas run as uid 65532 and must be able to reach it.
    folder = Path(tempfile.mkdtemp(prefix="corten-engines-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def real_home(machine_folder: Path) -> Home:
    return Home(machine_folder)


@pytest.fixture(scope="session")
def real_images(real_home: Home) -> BuiltImages:
    if not TinyImage.possible():
        pytest.skip("needs /usr/bin/python3 and ldd to make an image from")
    tiny = TinyImage(Layout(real_home.store))
    sources = {"obedient": OBEDIENT, "stubborn": STUBBORN, "failing": FAILING, "careless": CARELESS}
    return BuiltImages(
        **{
            name: tiny.build(["/usr/bin/python3", "-c", source], code={"corten.json": "{}"})
            for name, source in sources.items()
        }
    )


class TestMemory(EngineContract):
    @pytest.fixture
    def images(self) -> BuiltImages:
        return BuiltImages(*(Digest(str(number) * 64) for number in range(1, 5)))

    @pytest.fixture
    def make_engine(self, images: BuiltImages) -> Callable[[], Engine]:
        known = {images.obedient, images.stubborn, images.failing, images.careless}
        machine = Machine(images=known)
        return lambda: Memory(machine=machine)

    @pytest.fixture
    def settle(self, images: BuiltImages) -> Callable[[Memory, str], None]:
        def settle(engine: Memory, replica_id: str) -> None:
            spec = engine.machine.specs[replica_id]
            if spec.image == images.failing:
                engine.exit(replica_id, 3, lines=["cannot go on"])
                return
            if spec.image == images.stubborn:
                engine.machine.unkillable.add(replica_id)
            engine.say(replica_id, "hello")
            engine.say(replica_id, f"CORTEN_REVISION=r{spec.revision}")
            for name, value in spec.secrets.items():
                engine.say(replica_id, f"{name}={hashlib.sha256(value).hexdigest()}")

        return settle

    @pytest.fixture
    def holding(self, make_engine: Callable[[], Memory]) -> Callable[[bytes], object]:
        machine = make_engine().machine
        return lambda value: [
            one for one in machine.observed.values() if one.running and value in machine.specs[one.id].secrets.values()
        ]


class RealEngine(EngineContract):
    @pytest.fixture
    def holding(self, real_home: Home) -> Callable[[bytes], object]:
        places = (real_home.root, real_home.run, Path("/dev/shm"))

        def holds(path: Path, value: bytes) -> bool:
            with suppress(OSError):
                return path.is_file() and value in path.read_bytes()
            return False

        return lambda value: [path for place in places for path in place.rglob("*") if holds(path, value)]

    @pytest.fixture
    def images(self, real_images: BuiltImages) -> BuiltImages:
        return real_images

    @pytest.fixture
    def settle(self) -> Callable[[Engine, str], None]:
        def settle(engine: Engine, replica_id: str) -> None:
            deadline_s = time.monotonic() + 20
            while True:
                seen = next(seen for seen in engine.list() if seen.id == replica_id)
                if not seen.running or Path(seen.address).exists():
                    return
                assert time.monotonic() < deadline_s, engine.logs(replica_id)
                time.sleep(0.01)

        return settle

    def test_what_a_replica_uses_is_seen_by_its_process(self, engine, images, settle) -> None:
        started = engine.start(ReplicaSpec("a-r1-x", "a", 1, images.obedient))
        settle(engine, "a-r1-x")
        assert 4 << 20 < tree_bytes(started.pid) < 256 << 20


@pytest.mark.bwrap
class TestEmbeddedSandbox(RealEngine):
    @pytest.fixture
    def make_engine(self, real_home: Home) -> Callable[[], Engine]:
        return lambda: Embedded(real_home, sandbox=Sandbox.BWRAP)


class TestEmbeddedPlain(RealEngine):
    @pytest.fixture
    def make_engine(self, real_home: Home) -> Callable[[], Engine]:
        return lambda: Embedded(real_home, sandbox=Sandbox.NONE)


@pytest.mark.podman
class TestPodman(RealEngine):
    @pytest.fixture
    def make_engine(self, real_home: Home, podman: Mapping[str, str]) -> Callable[[], Engine]:
        return lambda: Podman.from_env(real_home, {**os.environ, **podman})


@pytest.mark.docker
class TestDocker(RealEngine):
    @pytest.fixture
    def make_engine(self, real_home: Home, docker: Mapping[str, str]) -> Callable[[], Engine]:
        return lambda: Docker.from_env(real_home, {**os.environ, **docker})
