"""Wheels to entries: where files go, what is refused."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import stat
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder import wheel
from corten.builder.entry import EntryKind, Slice
from corten.builder.interpreter import debian_python
from corten.errors import CortenError, PolicyError, UsageError

SITE = "usr/local/lib/python3.11/dist-packages"
INFO = "demo-1.0.dist-info"
BOOKWORM = debian_python("3.11", "2.36")
PLAIN = {
    "demo/__init__.py": b"x = 1\n",
    f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
    f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def _hash(data: bytes, name: str = "sha256") -> str:
    return f"{name}=" + base64.urlsafe_b64encode(hashlib.new(name, data).digest()).rstrip(b"=").decode()


def _record(members) -> bytes:
    text = io.StringIO()
    rows = [(name, _hash(data), len(data)) for name, data in members.items()]
    csv.writer(text, lineterminator="\n").writerows([*rows, (f"{INFO}/RECORD", "", "")])
    return text.getvalue().encode()


@pytest.fixture
def make(tmp_path):
    """Write a wheel; members may be bytes or (ZipInfo, bytes)."""

    def write(members=None, *, record=None, name="demo-1.0-py3-none-any.whl", extra=()):
        members = PLAIN | (members or {})
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
            for info, data in extra:
                archive.writestr(info, data)
            if record != "none":
                archive.writestr(f"{INFO}/RECORD", record if record is not None else _record(members))
        return path

    return write


def _files(path, python="3.11"):
    return {entry.name: entry for entry in wheel.entries(path, debian_python(python, "2.36"))}


def test_a_plain_wheel_goes_to_the_image_pythons_packages(make) -> None:
    files = _files(make())

    assert files[f"{SITE}/demo/__init__.py"].data == b"x = 1\n"
    assert files[f"{SITE}/{INFO}/INSTALLER"].data == b"corten\n"
    assert {entry.kind for entry in files.values()} == {EntryKind.FILE}
    assert all(name.startswith("usr/local/lib/python3.13/dist-packages/") for name in _files(make(), "3.13"))


def test_entries_come_sorted(make) -> None:
    names = [
        entry.name for entry in wheel.entries(make({"demo.libs/z.so": b"", "Ademo/x": b"", "demo_/y": b""}), BOOKWORM)
    ]

    assert names == sorted(names)


def test_the_schemes_of_data_go_where_an_installer_puts_them(make) -> None:
    files = _files(
        make(
            {
                "demo-1.0.data/purelib/pure.py": b"",
                "demo-1.0.data/platlib/plat.so": b"",
                "demo-1.0.data/data/share/demo/x.txt": b"x",
                "demo-1.0.data/headers/demo.h": b"",
                "demo-1.0.data/scripts/tool": b"#!python -s\nprint()\n",
                "demo-1.0.data/scripts/binary": b"\x7fELF",
            }
        )
    )

    assert f"{SITE}/pure.py" in files
    assert f"{SITE}/plat.so" in files
    assert files["usr/local/share/demo/x.txt"].mode == 0o644
    assert "usr/local/include/python3.11/demo/demo.h" in files
    assert files["usr/local/bin/tool"].data == b"#!/usr/bin/python3\nprint()\n"
    assert files["usr/local/bin/binary"].data == b"\x7fELF"
    assert files["usr/local/bin/tool"].mode == files["usr/local/bin/binary"].mode == 0o755


def test_console_scripts_are_written_for_the_images_interpreter(make) -> None:
    text = b"[console_scripts]\ndemo = demo.cli:app.main [extra]\n\n[gui_scripts]\ndemo-gui=demo:gui\n[other]\nx = y\n"

    files = _files(make({f"{INFO}/entry_points.txt": text}))

    script = files["usr/local/bin/demo"]
    assert script.mode == 0o755
    assert script.data.startswith(b"#!/usr/bin/python3\n")
    compile(script.data, "demo", "exec")
    assert b"from demo.cli import app" in script.data
    assert b"sys.exit(app.main())" in script.data
    assert "usr/local/bin/demo-gui" in files


def test_executable_members_stay_executable_and_other_bits_go(make) -> None:
    info = zipfile.ZipInfo("demo/run.sh")
    info.external_attr = (stat.S_IFREG | 0o6777) << 16

    assert _files(make(extra=[(info, b"#!/bin/sh\n")]))[f"{SITE}/demo/run.sh"].mode == 0o755


def test_bytecode_and_signatures_of_the_old_record_are_left_out(make) -> None:
    files = _files(make({"demo/__pycache__/x.cpython-311.pyc": b"old", f"{INFO}/RECORD.jws": b"signed"}))

    assert not [name for name in files if "__pycache__" in name or name.endswith(".jws")]


def test_the_new_record_lists_exactly_what_is_installed(make) -> None:
    files = _files(make({f"{INFO}/entry_points.txt": b"[console_scripts]\ndemo=demo:main\n"}))

    rows = list(csv.reader(io.StringIO(files[f"{SITE}/{INFO}/RECORD"].data.decode())))
    listed = {row[0]: row[1] for row in rows}
    site = f"{SITE}/"
    assert {name.removeprefix(site) if name.startswith(site) else "../../../bin/demo" for name in files} == set(listed)
    for name, digest in listed.items():
        entry = files.get(site + name) or files["usr/local/bin/demo"]
        assert digest in {"", _hash(entry.data)}


@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
def test_a_member_that_is_not_what_the_record_says_is_refused(make, name) -> None:
    record = _record(PLAIN).replace(_hash(PLAIN["demo/__init__.py"]).encode(), _hash(b"other", name).encode())

    with pytest.raises(PolicyError, match="demo/__init__") as caught:
        _files(make(record=record))
    assert caught.value.code == "wheel.record_mismatch"


@pytest.mark.parametrize("record", ["none", b"demo/__init__.py,md5=x,6\n", b"\xff\xfe", b"only-one-column\n"])
def test_a_record_that_is_missing_weak_or_unreadable_is_refused(make, record) -> None:
    with pytest.raises(UsageError) as caught:
        _files(make(record=record))
    assert caught.value.code == "wheel.broken"


@pytest.mark.parametrize(
    "member",
    [
        "../evil.py",
        "demo/../../evil.py",
        "/etc/cron.d/evil",
        "demo//evil.py",
        "./evil.py",
        "demo\\..\\evil.py",
        "demo/.wh.x",
        "demo-1.0.data/scripts/../../../etc/evil",
        "demo-1.0.data/unknown/x",
        "demo-1.0.data/scripts",
    ],
)
def test_members_that_would_land_elsewhere_are_refused_by_name(make, member) -> None:
    with pytest.raises(CortenError) as caught:
        _files(make({member: b"evil"}))

    if member != "demo-1.0.data/scripts":
        assert caught.value.code == "wheel.unsafe_member"
        assert "demo-1.0-py3-none-any.whl" in caught.value.what


@pytest.mark.parametrize("kind", ["S_IFLNK", "S_IFCHR", "S_IFBLK", "S_IFIFO", "S_IFSOCK"])
def test_symbolic_links_devices_pipes_and_sockets_are_refused(make, kind) -> None:
    info = zipfile.ZipInfo("demo/link")
    info.external_attr = (getattr(stat, kind) | 0o777) << 16

    with pytest.raises(PolicyError, match="demo/link") as caught:
        _files(make(extra=[(info, b"/etc/shadow")]))
    assert caught.value.code == "wheel.unsafe_member"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_members_are_refused(make) -> None:
    with pytest.raises(PolicyError, match=r"twice|demo/__init__"):
        _files(make(extra=[(zipfile.ZipInfo("demo/__init__.py"), b"other")]))


def test_two_members_with_one_destination_are_refused(make) -> None:
    with pytest.raises(PolicyError, match=r"same place|demo/__init__"):
        _files(make({"demo-1.0.data/purelib/demo/__init__.py": b"other"}))


@pytest.mark.parametrize(
    "text", [b"[console_scripts]\n../../evil = a:b\n", b"[console_scripts]\nx = a:b;import os\n", b"[[["]
)
def test_malformed_entry_points_are_refused(make, text) -> None:
    with pytest.raises(UsageError):
        _files(make({f"{INFO}/entry_points.txt": text}))


def test_a_wheel_must_be_about_the_distribution_its_name_says(make) -> None:
    with pytest.raises(UsageError, match="no valid wheel"):
        _files(make(name="other-1.0-py3-none-any.whl"))


def test_a_bomb_is_noticed_before_it_is_inflated(make) -> None:
    path = make({"demo/zeros": bytes(10_000_000)})
    data = bytearray(path.read_bytes())
    # The central directory promises 10 bytes for what inflates to ten million.
    at = data.rindex(b"demo/zeros") - 46
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    path.write_bytes(data)

    with pytest.raises(UsageError, match="no valid wheel"):
        _files(path)


@pytest.mark.parametrize("in_memory_bytes", [1_000_000, 10])
def test_a_member_brings_the_deflate_stream_it_was(make, monkeypatch, in_memory_bytes) -> None:
    path = make({"demo/a.py": b"y = 2\n" * 500})
    monkeypatch.setattr(wheel, "_IN_MEMORY_BYTES", in_memory_bytes)

    stream = next(entry.deflated for entry in wheel.entries(path, BOOKWORM) if entry.name.endswith("demo/a.py"))

    if isinstance(stream, Slice):
        stream = path.read_bytes()[stream.offset :][: stream.size_bytes]
    assert zlib.decompress(stream, -zlib.MAX_WBITS) == b"y = 2\n" * 500


@pytest.mark.parametrize("in_memory_bytes", [1_000_000, 10])
def test_a_stream_that_ends_before_the_zip_says_is_refused(make, monkeypatch, in_memory_bytes) -> None:
    path = make({"demo/a.py": b"y = 2\n" * 500})
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("demo/a.py").compress_size
    data = bytearray(path.read_bytes())
    # The directory has a stream behind it belong to it: taken over, it would become a part of the image.
    at = data.rindex(b"demo/a.py") - 46
    data[at + 20 : at + 24] = (size + 8).to_bytes(4, "little")
    path.write_bytes(data)
    monkeypatch.setattr(wheel, "_IN_MEMORY_BYTES", in_memory_bytes)

    with pytest.raises(UsageError, match="no valid wheel"):
        _files(path)


def test_members_of_several_pieces_inflate_to_what_they_were(make, monkeypatch) -> None:
    content = bytes(range(256)) * 100 + bytes(70_000) + b"end"
    path = make({"demo/a.bin": content})
    monkeypatch.setattr(wheel, "_IN_MEMORY_BYTES", 10)
    monkeypatch.setattr(wheel, "_CHUNK_BYTES", 64)

    seen = {}
    for entry in wheel.entries(path, BOOKWORM):
        seen[entry.name] = entry.data.read_bytes() if hasattr(entry.data, "read_bytes") else entry.data

    assert seen[f"{SITE}/demo/a.bin"] == content


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_large_members_go_through_a_file_that_is_gone_afterwards(make, monkeypatch, method) -> None:
    large = bytes(range(256)) * 20_000 + bytes(3_000_000)
    info = zipfile.ZipInfo("demo/large.so")
    info.compress_type = method
    record = _record(PLAIN | {"demo/large.so": large})
    path = make(extra=[(info, large)], record=record)
    monkeypatch.setattr(wheel, "_IN_MEMORY_BYTES", 1_000_000)

    seen = {}
    for entry in wheel.entries(path, BOOKWORM):
        seen[entry.name] = entry.data.read_bytes() if hasattr(entry.data, "read_bytes") else entry.data

    assert seen[f"{SITE}/demo/large.so"] == large
    assert [child.name for child in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("harm", ["record", "size"])
def test_large_members_are_checked_like_small_ones(make, monkeypatch, harm) -> None:
    large = bytes(5_000_000)
    record = _record(PLAIN | {"demo/large.so": large if harm == "size" else b"other"})
    path = make({"demo/large.so": large}, record=record)
    if harm == "size":
        data = bytearray(path.read_bytes())
        at = data.rindex(b"demo/large.so") - 46
        data[at + 24 : at + 28] = (2_000_000).to_bytes(4, "little")
        path.write_bytes(data)
    monkeypatch.setattr(wheel, "_IN_MEMORY_BYTES", 1_000_000)

    with pytest.raises(CortenError) as caught:
        _files(path)

    assert caught.value.code == {"record": "wheel.record_mismatch", "size": "wheel.broken"}[harm]
    assert [child.name for child in path.parent.iterdir()] == [path.name]


@given(st.data())
def test_damaged_wheels_give_an_error_of_ours_or_the_same_files(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged-wheels"
    folder.mkdir(exist_ok=True)
    path = folder / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in PLAIN.items():
            archive.writestr(zipfile.ZipInfo(member), content)
        archive.writestr(zipfile.ZipInfo(f"{INFO}/RECORD"), _record(PLAIN))
    good = {name: entry.data for name, entry in _files(path).items()}
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)

    try:
        seen = {name: entry.data for name, entry in _files(path).items()}
    except CortenError:
        return
    # Times, flags and names of members outside RECORD may change unnoticed; listed content may not.
    assert {name: seen[name] for name in good if name in seen and not name.endswith(("RECORD", "INSTALLER"))} == {
        name: good[name] for name in good if name in seen and not name.endswith(("RECORD", "INSTALLER"))
    }
