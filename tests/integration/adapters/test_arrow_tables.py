"""Tables of Arrow from anybody: what they claim is counted, where they point is looked at, and the library's process lives."""

import contextlib
import io
import struct
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from corten.adapters.arrow_tables import read_table

pytestmark = pytest.mark.frameworks

MANY = 1 << 31


@pytest.fixture(scope="module")
def pa():
    return pytest.importorskip("pyarrow")


def stream(pa, table, compression=None, kind="new_stream"):
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with getattr(pa.ipc, kind)(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def all_kinds(pa):
    return pa.table(
        {
            "number": [1.5, None, 3.0],
            "text": ["a", None, "né"],
            "view": pa.array(["a text too long to be in its view", "short", None], pa.string_view()),
            "category": pa.array(["x", "y", "x"]).dictionary_encode(),
            "list": [[1], [], None],
            "missing": pa.nulls(3),
        }
    )


@pytest.mark.parametrize("kind", ["new_stream", "new_file"])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_streams_and_files_are_read_compressed_or_not(pa, kind, compression):
    table = all_kinds(pa)
    assert read_table(stream(pa, table, compression, kind)).equals(table)


def test_a_compressed_table_may_take_several_times_its_size(pa):
    table = pa.table({"a": [0] * (4 << 20)})
    body = stream(pa, table, "zstd")
    assert len(body) * 1000 < table.nbytes
    assert read_table(body).equals(table)


def repeated(pa):
    return pa.RunEndEncodedArray.from_arrays(pa.array([MANY - 1], pa.int32()), pa.array([1.0]))


def lists_of_nulls(pa):
    return pa.ListArray.from_arrays([0, MANY - 1], pa.nulls(MANY - 1))


def views_of_one_text(pa):
    text = b"x" * 1_000_000
    view = struct.pack("<i4sii", len(text), text[:4], 0, 0)
    return pa.Array.from_buffers(pa.string_view(), 1000, [None, pa.py_buffer(view * 1000), pa.py_buffer(text)])


def views_of_lists(pa):
    return pa.ListViewArray.from_arrays([0, 0], [2, 2], pa.array([1, 2]))


def views_within(pa):
    return pa.array([["a"]], pa.list_(pa.string_view()))


def nulls(pa):
    return pa.nulls(MANY - 1)


def zeros(pa):
    return pa.Array.from_buffers(pa.int64(), 40 << 20, [None, pa.py_buffer(bytes(320 << 20))])


@pytest.mark.parametrize(
    "made", [repeated, lists_of_nulls, views_of_one_text, views_of_lists, views_within, nulls, zeros]
)
def test_what_claims_more_than_it_brings_is_refused_before_it_is_made(pa, made):
    body = stream(pa, pa.table({"a": made(pa)}), "zstd" if made is zeros else None)
    began_s = time.monotonic()
    with pytest.raises(ValueError, match=r"take more than|are not taken"):
        read_table(body)
    assert time.monotonic() - began_s < 0.5
    assert len(body) < 1_100_000


def test_texts_that_lie_elsewhere_in_memory_are_refused(pa):
    body = stream(pa, pa.table({"a": ["one", "two", "three"]}))
    told, wrong = struct.pack("<4i", 0, 3, 6, 11), struct.pack("<4i", 0, 3, 900, 11)
    assert body.count(told) == 1
    with pytest.raises(ValueError, match="out of bounds"):
        read_table(body.replace(told, wrong))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["new_stream", "new_file"]))
def test_any_bytes_are_a_table_or_a_valueerror(pa, data, kind):
    body = bytearray(stream(pa, all_kinds(pa), data.draw(st.sampled_from([None, "zstd"])), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    with contextlib.suppress(ValueError):
        read_table(bytes(body)).to_pylist()


@settings(deadline=None)
@given(st.binary(max_size=100))
@example(b"")
@example(b"ARROW1")
@example(b"\xff\xff\xff\xff")
def test_what_is_no_arrow_at_all_is_a_valueerror(body):
    with pytest.raises(ValueError):
        read_table(body)
