import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.digest import Digest
from corten.core.process import ProcessId
from corten.engine.record import Record, ReplicaFolder, Status, check_id
from corten.engine.sandbox import Host
from corten.errors import UsageError

RECORD = Record(
    id="a-r1-x",
    deployment="a",
    revision=1,
    image=Digest("1" * 64),
    chain=Digest("2" * 64),
    token="t",
    address="/run/s",
    host=Host.NOBODY,
    process=ProcessId(12, 34, "boot"),
    learning=True,
)


def test_a_record_is_read_as_it_was_written(tmp_path):
    folder = ReplicaFolder(tmp_path)
    assert folder.read() is None
    folder.write(RECORD)
    assert folder.read() == RECORD


@given(cut=st.integers(0, 400))
def test_a_damaged_record_is_no_record(tmp_path_factory, cut):
    folder = ReplicaFolder(tmp_path_factory.mktemp("record"))
    folder.write(RECORD)
    path = folder.path / "record.json"
    data = path.read_bytes()
    path.write_bytes(data[: min(cut, len(data) - 1)])
    assert folder.read() is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Status()),
        ('{ "child-pid": 12, "pid-namespace": 1 }\n', Status(12)),
        ('{ "child-pid": 12 }\n{ "exit-code": 3 }\n', Status(12, 3)),
        ('{ "child-pid": 12 }\n{ "exit-co', Status(12)),
        ("garbage\n[1]\n", Status()),
    ],
)
def test_the_status_says_as_much_as_bubblewrap_has_written(tmp_path, text, expected):
    (tmp_path / "status").write_text(text)
    assert ReplicaFolder(tmp_path).status() == expected


def test_without_a_status_nothing_is_known(tmp_path):
    assert ReplicaFolder(tmp_path / "gone").status() == Status()


@given(st.text() | st.text("ab-9", max_size=70))
def test_an_id_is_a_plain_name_or_refused(text):
    plain = 1 <= len(text) <= 64 and set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    if plain and text.strip("-") == text:
        assert check_id(text) == text
    else:
        with pytest.raises(UsageError):
            check_id(text)
