"""Layers on their way: begun before a plan asks for them, made once, given up when something fails."""

import base64
import hashlib
import time
import zipfile
from dataclasses import replace

import pytest

from corten.adapters.base import SourceFile
from corten.builder.download import Downloader
from corten.builder.interpreter import debian_python
from corten.builder.pipeline import Making, Workshop
from corten.builder.plan import WeightGroup, WheelGroup
from corten.builder.pylock import Locked
from corten.builder.remote import Access
from corten.core.digest import Digest
from corten.core.events import Phase
from corten.core.image import Packing
from corten.errors import PolicyError
from corten.store.layout import Layout

PYTHON = debian_python("3.11", "2.36")


@pytest.fixture
def group(tmp_path):
    path = tmp_path / "demo-1.0-py3-none-any.whl"
    files = {
        "demo.py": b"x = 1\n",
        "demo-1.0.dist-info/METADATA": b"Name: demo\nVersion: 1.0\n",
        "demo-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
    }
    rows = [f"{name},sha256={hashed(data)},{len(data)}" for name, data in files.items()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("demo-1.0.dist-info/RECORD", "\n".join([*rows, "demo-1.0.dist-info/RECORD,,"]))
    data = path.read_bytes()
    return WheelGroup("demo 1.0", (Locked("demo", "1.0", path.as_uri(), Digest.of(data), len(data), path.name),))


def hashed(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def shop_in(folder, events, downloads):
    return Workshop(
        Layout(folder / "store"), folder / "cache", Access(), downloads, False, time.perf_counter, events.append
    )


def begun(events):
    return [event.message for event in events if event.step == "wheels" and event.phase is Phase.STARTED]


def test_what_is_begun_early_is_made_once_and_there_when_the_block_ends(tmp_path, group):
    events = []
    with Downloader(Access()) as downloads:
        shop = shop_in(tmp_path, events, downloads)
        with Making(shop) as making:
            making.begin_wheels([group], PYTHON, Packing.AUTO)
            making.begin_wheels([group], PYTHON, Packing.AUTO)
        with Making(shop) as again:
            again.begin_wheels([group], PYTHON, Packing.AUTO)
    assert begun(events) == ["demo 1.0"]
    (done,) = [event for event in events if event.step == "wheels" and event.phase is Phase.DONE]
    assert done.data["tar_bytes"] > 0
    assert len(list((tmp_path / "cache" / "layers").glob("*.json"))) == 1
    # The SBOM asks what is in it: that is known by then.
    assert len(list((tmp_path / "cache" / "contents").glob("*.json"))) == 1


def test_a_failure_elsewhere_ends_what_waits_for_its_wheels(tmp_path, group):
    never = WheelGroup("never", (replace(group.wheels[0], digest=Digest.of(b"something else")),))
    events = []
    with Downloader(Access()) as downloads, pytest.raises(PolicyError, match="mirror"):
        begin_and_fail(shop_in(tmp_path, events, downloads), never)
    assert not begun(events)
    assert not list(tmp_path.glob("cache/layers/*"))


def test_weights_are_packed_while_nothing_else_is_known_yet(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"weights" * 1000)
    group = WeightGroup("model.bin", (SourceFile(tmp_path / "model.bin", "model.bin"),))
    events = []
    with Downloader(Access()) as downloads, Making(shop_in(tmp_path, events, downloads)) as making:
        making.begin_weights([group])
        making.begin_weights([group])
    assert [event.phase for event in events if event.phase is not Phase.PROGRESS] == [Phase.STARTED, Phase.DONE]
    assert len(list(tmp_path.glob("store/blobs/sha256/*"))) == 1


def test_weights_that_nobody_waits_for_any_more_are_not_packed_to_their_end(tmp_path):
    with (tmp_path / "model.bin").open("wb") as stream:
        stream.truncate(2 << 30)  # sparse; packing all of it takes seconds
    group = WeightGroup("model.bin", (SourceFile(tmp_path / "model.bin", "model.bin"),))
    events = []
    with Downloader(Access()) as downloads, pytest.raises(PolicyError, match="mirror"):
        fail_in_the_middle(shop_in(tmp_path, events, downloads), group, events)
    assert not [event for event in events if event.phase is Phase.DONE]
    assert not list(tmp_path.glob("store/blobs/sha256/*"))
    assert not list(tmp_path.glob("store/.incoming/*"))


def fail_in_the_middle(shop, group, events):
    with Making(shop) as making:
        making.begin_weights([group])
        until(lambda: any(event.phase is Phase.PROGRESS for event in events))
        raise PolicyError("debian.unsigned", "the mirror lies")


def until(true):
    deadline_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def begin_and_fail(shop, group):
    with Making(shop) as making:
        making.begin_wheels([group], PYTHON, Packing.AUTO)
        raise PolicyError("debian.unsigned", "the mirror lies")
