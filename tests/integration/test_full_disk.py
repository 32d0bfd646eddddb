"""A container engine whose disk is full: a clear error, nothing half-written, and the next run succeeds."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from engines import dockerd, podman_storage

from corten.engine.base import ReplicaSpec
from corten.engine.containers import Docker, Podman
from corten.errors import EngineError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")

SLEEPER = "import time; time.sleep(600)"
LEFT_BYTES = 16 << 20  # for what an engine keeps besides images


@contextmanager
def full_disk():
    """A file system of its own with room for no image, and the file that takes all the room."""
    with tempfile.TemporaryDirectory(prefix="corten-full-", dir="/var/tmp") as folder:
        file, disk = Path(folder) / "image", Path(folder) / "disk"
        with file.open("wb") as stream:
            stream.truncate(400 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(file)], check=True)
        disk.mkdir()
        subprocess.run(["mount", "-o", "loop", str(file), str(disk)], check=True)
        try:
            ballast = disk / "ballast"
            with ballast.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(disk).free - LEFT_BYTES)
            yield disk, ballast
        finally:
            # What an engine mounted below it may go a moment later.
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        pytest.param(Podman, podman_storage, marks=pytest.mark.podman, id="podman"),
        pytest.param(Docker, dockerd, marks=pytest.mark.docker, id="docker"),
    ],
)
def test_it_is_told_and_more_room_is_all_it_takes(home, tiny, kind, start):
    digest = tiny.build(["/usr/bin/python3", "-c", SLEEPER], code={"corten.json": "{}"})
    spec = ReplicaSpec("a-r1-full", "a", 1, digest)
    with full_disk() as (disk, ballast), start(images=disk / "engine") as env:
        engine = kind.from_env(home, {**os.environ, **env})
        with pytest.raises(EngineError) as caught:
            engine.start(spec)
        assert (caught.value.code, f"{kind.name} image prune" in caught.value.hint) == ("engine.disk_full", True)
        assert "no space left on device" in caught.value.why
        assert engine.list() == []
        told = subprocess.run(
            [kind.name, "images", "--quiet"], env={**os.environ, **env}, capture_output=True, text=True
        )
        assert (told.returncode, told.stdout) == (0, "")
        assert not (home.run / spec.id).exists()
        ballast.unlink()
        try:
            assert engine.start(spec).running
        finally:
            engine.remove(spec.id)
