"""What is written down of the gateway's process."""

from hypothesis import given
from hypothesis import strategies as st

from corten.gateway.process import Record


def test_a_record_reads_as_it_was_written(tmp_path):
    record = Record(12, 3456, "127.0.0.1", 8080, 0, 2, "abc", (11, 345))
    record.write(tmp_path / "envoy.json")
    assert Record.read(tmp_path / "envoy.json") == record
    assert [path.name for path in tmp_path.iterdir()] == ["envoy.json"]
    assert (tmp_path / "envoy.json").stat().st_mode & 0o777 == 0o600


@given(data=st.one_of(st.binary(max_size=80), st.just(b"[]"), st.just(b'{"pid": "x"}'), st.just(b'{"pid": 1}')))
def test_a_damaged_record_is_none(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("record") / "envoy.json"
    path.write_bytes(data)
    assert Record.read(path) is None
