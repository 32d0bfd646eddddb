"""Gzip members: every reader gives back what was put in, and the bytes are always the same."""

from __future__ import annotations

import gzip
import hashlib
import zlib

from hypothesis import given
from hypothesis import strategies as st

from corten.builder import gzip_members
from corten.builder.entry import Entry
from corten.builder.tar import tar

# Letters and runs of zeros, as tar headers have; sometimes anything.
HEADERS = st.lists(
    st.one_of(st.binary(max_size=40), st.text("abc/._", max_size=60).map(str.encode), st.integers(0, 700).map(bytes)),
    max_size=12,
).map(b"".join)


@given(st.lists(HEADERS, min_size=1, max_size=4))
def test_members_one_after_the_other_unpack_to_their_contents(contents) -> None:
    assert gzip.decompress(b"".join(map(gzip_members.member, contents))) == b"".join(contents)


def test_runs_of_zeros_of_any_length_come_out_as_long_as_they_were() -> None:
    for count in range(1100):
        data = b"a" + bytes(count) + b"b"
        assert gzip.decompress(gzip_members.member(data)) == data


def test_content_larger_than_a_stored_block_unpacks() -> None:
    data = bytes(range(256)) * 1000

    assert gzip.decompress(gzip_members.member(data)) == data


def test_a_deflate_stream_is_taken_over_as_it_is() -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = compressor.compress(b"x" * 1000) + compressor.flush()

    stored = gzip_members.begin() + stream + gzip_members.end(zlib.crc32(b"x" * 1000), 1000)

    assert gzip.decompress(stored) == b"x" * 1000


def test_a_tar_header_shrinks_to_always_the_same_bytes() -> None:
    header = next(iter(tar([Entry("demo.py", data=b"x = 1\n")])))

    stored = gzip_members.member(header)

    # Digests of images depend on it.
    assert hashlib.sha256(stored).hexdigest() == "ef9865a36464b94bfc1f75b0e11861be304ffa66c7ace14fb5e7bfc94b0c128a"
    assert len(stored) < 160
