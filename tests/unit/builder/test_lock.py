"""The lock file: what is written is read again, and strangers' files are read with care."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder import lock as locks
from corten.builder.debian.release import Deb
from corten.builder.interpreter import Libc, LibcFamily, debian_python
from corten.builder.lock import Inputs, Lock, Pin
from corten.builder.pylock import Locked
from corten.core.digest import Digest
from corten.core.platform import Platform
from corten.errors import UsageError

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_DIGEST = st.binary(min_size=1, max_size=4).map(Digest.of)
_PACKAGE = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,9}", fullmatch=True)
_DEB = st.builds(Deb, _PACKAGE, _TEXT, _TEXT, _TEXT, _DIGEST, st.integers(0, 1 << 40))
_WHEEL = st.builds(Locked, _TEXT, _TEXT, _TEXT, _DIGEST, st.integers(0, 1 << 40), st.just("a-1-py3-none-any.whl"))
_LOCK = st.builds(
    Lock,
    inputs=_TEXT,
    platform=st.sampled_from([Platform("amd64"), Platform("arm64")]),
    release=_TEXT,
    python=_TEXT,
    debs=st.lists(_DEB, max_size=3).map(tuple),
    wheels=st.lists(_WHEEL, max_size=3).map(tuple),
    base=st.none() | st.builds(Pin, st.sampled_from(["localhost:5000/python:3", "ghcr.io/a/b"]), _DIGEST, _DIGEST),
)
INPUTS = Inputs(("numpy", "scipy==1"), ("libsnappy1v5",), "bookworm", debian_python("3.11", "2.36"), Platform("amd64"))
LOCK = Lock(
    INPUTS.key,
    Platform("amd64"),
    "bookworm",
    "3.11",
    (Deb("libc6", "2.36-9", "amd64", "http://d/libc6.deb", Digest.of(b"d"), 3),),
    (Locked("numpy", "2.0", "http://i/n.whl", Digest.of(b"n"), 5, "numpy-2.0-py3-none-any.whl"),),
)


@given(_LOCK)
def test_what_is_written_is_read_again(tmp_path_factory, lock: Lock) -> None:
    path = tmp_path_factory.getbasetemp() / "corten.lock"

    locks.write(path, [lock])

    assert locks.read(path) == (lock,)


def test_a_package_is_a_line() -> None:
    lines = locks.dumps([LOCK]).splitlines()

    assert len([line for line in lines if "libc6" in line]) == 1
    assert len([line for line in lines if "numpy" in line]) == 1


def test_a_file_holds_a_lock_a_platform_in_a_fixed_order() -> None:
    other = replace(LOCK, platform=Platform("arm64"))

    assert locks.dumps([LOCK, other]) == locks.dumps([other, LOCK])
    assert locks.with_lock([LOCK, other], replace(LOCK, inputs="new")) == (other, replace(LOCK, inputs="new"))


def test_no_file_is_no_lock(tmp_path) -> None:
    assert locks.read(tmp_path / "corten.lock") == ()


def test_a_lock_fits_only_its_own_inputs() -> None:
    assert locks.fitting([LOCK], INPUTS) == LOCK
    assert locks.fitting([LOCK], replace(INPUTS, requirements=("numpy",))) is None
    assert locks.fitting([LOCK], replace(INPUTS, platform=Platform("arm64"))) is None


@pytest.mark.parametrize(
    "change",
    [
        {"requirements": ("numpy",)},
        {"packages": ()},
        {"release": "trixie"},
        {"python": debian_python("3.13", "2.36")},
        {"python": debian_python("3.11", "2.41")},
        {"python": replace(debian_python("3.11", "2.36"), libc=Libc(LibcFamily.MUSL, "1.2"))},
        {"base": Pin("localhost:5000/python:3", Digest.of(b"index"), Digest.of(b"image"))},
        {"platform": Platform("arm64")},
    ],
)
def test_every_input_counts(change) -> None:
    assert replace(INPUTS, **change).key != INPUTS.key


def test_a_lock_fits_only_the_base_it_names() -> None:
    old, new = (Pin("localhost:5000/python:3", Digest.of(name), Digest.of(name)) for name in (b"old", b"new"))
    inputs = replace(INPUTS, release="", base=old)
    lock = replace(LOCK, inputs=inputs.key, base=old)

    assert locks.fitting([lock], inputs) == lock
    assert locks.fitting([lock], replace(inputs, base=new)) is None
    # What a rebase writes is what a build on the newer base would.
    assert locks.fitting([replace(lock, base=new)], replace(inputs, base=new))


def test_the_order_of_requirements_does_not_count() -> None:
    assert replace(INPUTS, requirements=("scipy==1", "numpy")).key == INPUTS.key


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(format=2),
        lambda document: document.pop("locks"),
        lambda document: document["locks"][0].update(platform="windows/amd64"),
        lambda document: document["locks"][0]["wheels"][0].update(digest="sha256:../../x"),
        lambda document: document["locks"][0]["wheels"][0].update(filename="../../evil.whl"),
        lambda document: document["locks"][0]["wheels"][0].update(filename="evil"),
        lambda document: document["locks"][0]["wheels"][0].pop("url"),
        lambda document: document["locks"][0].update(debs=3),
        lambda document: document["locks"][0]["debs"][0].update(name="../../evil"),
    ],
    ids=["format", "locks", "platform", "digest", "traversal", "no wheel", "no url", "no list", "package"],
)
def test_a_lock_that_was_tampered_with_is_refused(tmp_path, change) -> None:
    document = json.loads(locks.dumps([LOCK]))
    change(document)
    (tmp_path / "corten.lock").write_text(json.dumps(document))

    with pytest.raises(UsageError) as caught:
        locks.read(tmp_path / "corten.lock")
    assert (caught.value.code, caught.value.where) == ("lock.broken", str(tmp_path / "corten.lock"))


@given(st.binary(max_size=100))
def test_any_file_is_read_or_refused(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.lock"
    path.write_bytes(data)

    with pytest.raises(UsageError) as caught:
        locks.read(path)
    assert caught.value.code == "lock.broken"
