"""What a source is, is told by its content; what cannot be told is refused with what was seen and what to do."""

import zipfile
import zlib

import pytest

from corten.adapters.base import Source
from corten.builder.inspecting import inspect
from corten.errors import UsageError


@pytest.fixture
def refused(tmp_path):
    def run(path):
        with pytest.raises(UsageError) as caught:
            inspect(Source(path), cache=tmp_path / "cache")
        return caught.value

    return run


@pytest.fixture
def cut(tmp_path):
    """A file of PyTorch whose download broke off."""
    folder = tmp_path / "models"
    folder.mkdir()
    with zipfile.ZipFile(folder / "net.pt", "w") as archive:
        for name in ("net/data.pkl", "net/version", "net/data/0"):
            archive.writestr(name, bytes(500))
    path = folder / "net.pt"
    path.write_bytes(path.read_bytes()[:-30])
    return path


def test_a_zip_whose_end_is_missing_is_damaged_and_not_unknown(cut, refused):
    for source in (cut, cut.parent):
        error = refused(source)
        assert error.code == "adapter.corrupt_model"
        assert "`net.pt` is a zip" in error.what
        assert f"{cut.stat().st_size} bytes are here" in error.hint


def test_a_whole_zip_of_something_else_is_unknown(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    assert refused(tmp_path / "notes.zip").code == "build.unknown_model"


def test_compressed_data_that_cannot_be_read_is_damaged(tmp_path, refused):
    data = bytearray(zlib.compress(bytes(range(256)) * 40))
    data[8:12] = b"\xff\xff\xff\xff"
    (tmp_path / "model.joblib").write_bytes(data)
    error = refused(tmp_path / "model.joblib")
    assert error.code == "adapter.corrupt_model"
    assert "zlib" in error.what


def test_an_empty_file_is_to_be_saved_again(tmp_path, refused):
    (tmp_path / "model.joblib").touch()
    error = refused(tmp_path / "model.joblib")
    assert (error.code, error.hint) == ("build.unknown_model", "save or download it again")


def test_a_class_in_a_file_of_another_name_is_told_what_to_call_it(tmp_path, refused):
    # Of "\\d" Python warns whoever parses it, which is not the user's affair here.
    (tmp_path / "shout.txt").write_text('class Shout:\n    def predict(self, text: str) -> str: return "\\d"\n')
    assert "call it `shout.py`" in refused(tmp_path / "shout.txt").hint
