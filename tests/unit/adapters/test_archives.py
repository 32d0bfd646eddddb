"""Hostile members in model archives: models are read where they lie, nothing is unpacked, nothing is followed."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from contextlib import suppress

import pytest

from corten.adapters.base import Source
from corten.adapters.skops_file import is_skops, read_skops
from corten.adapters.torch_file import form_of, read_exported
from corten.builder.inspecting import inspect
from corten.errors import CortenError, UsageError

HOSTILE = [
    "../../outside.txt",
    "/tmp/corten-outside.txt",
    "a/../../outside.txt",
    "a\\..\\outside.txt",
    "nul\0byte",
    "x" * 5000,
]
SCHEMA = {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {}}
EXPORTED = {"m/archive_format": b"pt2", "m/models/model.json": b"{}", "m/version": b"0"}


def archive(path, members, *, links=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(zipfile.ZipInfo(name), data)
        for name in links:
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            made.writestr(info, "/etc/passwd")
    return path


def lying(path, members, member, size_bytes, *, says_bytes):
    """An archive with a member of zeros that says it is of another size, in both places where a zip says it."""
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
        made.writestr(member, bytes(size_bytes))
    data = plain.getvalue()
    assert data.count(size_bytes.to_bytes(4, "little")) == 2
    path.write_bytes(data.replace(size_bytes.to_bytes(4, "little"), says_bytes.to_bytes(4, "little")))
    return path


def everything(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["model.skops", "model.pt2", "model.pt", "model.npz"])
def test_members_that_lead_elsewhere_go_nowhere(tmp_path, kind, name) -> None:
    members = {
        "model.skops": {"schema.json": json.dumps(SCHEMA).encode()},
        "model.pt2": EXPORTED,
        "model.pt": {"m/data.pkl": b"\x80\x02}.", "m/version": b"3"},
        "model.npz": {"w.npy": b"\x93NUMPY"},
    }[kind]
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    path = archive(folder / kind, {**members, name: b"evil"}, links=["link"])
    before = everything(tmp_path)
    with suppress(CortenError):
        inspect(Source(path), cache=tmp_path / "cache")
    assert [one for one in everything(tmp_path) if one.parts[0] != "cache"] == before


HUGE_BYTES = 3 << 30
MODERATE_BYTES = (8 << 20) + 12345


def test_a_schema_that_would_not_fit_into_memory_is_refused_by_its_size(tmp_path) -> None:
    path = lying(tmp_path / "model.skops", {}, "schema.json", MODERATE_BYTES, says_bytes=HUGE_BYTES)
    assert is_skops(path)
    with pytest.raises(UsageError) as caught:
        read_skops(path)
    assert caught.value.code == "adapter.corrupt_model"
    assert str(HUGE_BYTES) in caught.value.why


def test_a_graph_that_would_not_is_refused_by_its_size_too(tmp_path) -> None:
    members = {name: data for name, data in EXPORTED.items() if "model.json" not in name}
    path = lying(tmp_path / "model.pt2", members, "m/models/model.json", MODERATE_BYTES, says_bytes=HUGE_BYTES)
    assert form_of(path) is not None
    with pytest.raises(UsageError) as caught:
        read_exported(path)
    assert caught.value.code == "adapter.corrupt_model"
    assert str(HUGE_BYTES) in caught.value.why


def test_a_member_that_inflates_to_more_than_it_says_is_cut_at_what_it_says(tmp_path) -> None:
    path = lying(tmp_path / "model.skops", {}, "schema.json", MODERATE_BYTES, says_bytes=100)
    with pytest.raises(UsageError) as caught:
        read_skops(path)
    assert caught.value.code == "adapter.corrupt_model"
