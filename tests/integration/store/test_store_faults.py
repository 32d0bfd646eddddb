"""The store when the machine fails: writers killed at any moment, a disk that runs full."""

import os
import signal
import subprocess
import sys
import time

import pytest

from corten.core.digest import Digest
from corten.core.image import MANIFEST
from corten.errors import CortenError
from corten.store.layout import Layout

WRITER = """
import sys
from pathlib import Path
from corten.core.image import MANIFEST
from corten.store.layout import Layout
layout, number = Layout(Path(sys.argv[1])), 0
print("ready", flush=True)
while True:
    number += 1
    with layout.writer() as blob:
        for _ in range(20):
            blob.write(b"%s %d " % (sys.argv[2].encode(), number) * 5000)
    layout.tag(f"{sys.argv[2]}-{number % 5}", layout.put(b"manifest %d" % number, MANIFEST))
"""


def _writer(root, name):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(root), name], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def _check(layout):
    for path in (layout.root / "blobs" / "sha256").iterdir():
        assert Digest.of_file(path).hex == path.name, "a blob under its name is whole"
    for _, descriptor in layout.images():
        assert layout.has(descriptor.digest), "a name never points at what is not there"


def test_a_writer_killed_at_any_moment_leaves_a_valid_store(tmp_path):
    layout = Layout(tmp_path / "store")
    for round_number in range(15):
        writers = [_writer(layout.root, name) for name in ("a", "b")]
        time.sleep(0.01 + 0.017 * round_number)
        for process in writers:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            process.stdout.close()
        _check(layout)

    assert layout.images()
    layout.sweep(now_s=time.time() + 100_000)
    assert not list((layout.root / ".incoming").iterdir())
    layout.tag("after", layout.put(b"still works", MANIFEST))
    assert layout.resolve("after").digest == Digest.of(b"still works")


def _write(layout, size_bytes):
    with layout.writer() as blob:
        for _ in range(size_bytes // 100_000):
            blob.write(bytes(100_000))
    return blob.digest


def _fill(path):
    with path.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, timeout=10
        ).returncode
    ):
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=10)


def test_a_full_disk_is_said_and_building_goes_on_once_there_is_room(small_disk):
    layout = Layout(small_disk / "store")
    layout.tag("before", layout.put(b"before", MANIFEST))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))

    with pytest.raises(CortenError) as caught:
        _write(layout, 10_000_000)

    assert caught.value.code == "store.disk_full"
    assert not list((layout.root / ".incoming").iterdir())
    _check(layout)
    ballast.unlink()
    assert layout.has(_write(layout, 1_000_000))
    assert layout.resolve("before").digest == Digest.of(b"before")


def test_a_disk_full_to_the_last_byte_keeps_the_index(small_disk):
    layout = Layout(small_disk / "store")
    layout.tag("before", layout.put(b"before", MANIFEST))
    with pytest.raises(OSError, match="space"):
        _fill(small_disk / "ballast")

    with pytest.raises(CortenError) as caught:
        layout.tag("after", layout.put(b"after", MANIFEST))

    assert caught.value.code == "store.disk_full"
    _check(layout)
    assert [name for name, _ in layout.images()] == ["before"]
