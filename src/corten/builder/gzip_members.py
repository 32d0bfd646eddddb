"""Gzip around deflate streams that are there already: what a wheel holds goes into a layer as its maker compressed it.

A gzip file is a series of members, each a deflate stream with the checksum and size of what it unpacks to (RFC 1952,
2.2); readers give out their contents one after the other, as they do those of pigz or eStargz. What lies between two
files, a tar header mostly, is deflated here by the simplest means, so that the bytes depend on no library's version.
"""

from __future__ import annotations

import re
from functools import cache

from corten.store.inflate import checksum

# Deflate, no flags, no time, no extra flags, system unknown.
_BEGIN = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LARGEST_STORED = 0xFFFF
# Above it little is a tar's header, and shifting long integers about gets dear.
_LARGEST_SQUEEZED = 8 << 10
_RUN = re.compile(rb"([^\0]*)(\0*)")
_LONGEST_MATCH = 258


def begin() -> bytes:
    """What comes before a deflate stream."""
    return _BEGIN


def end(crc: int, size_bytes: int) -> bytes:
    """What comes after it: the CRC-32 of what it unpacks to, and its size."""
    return crc.to_bytes(4, "little") + (size_bytes & 0xFFFFFFFF).to_bytes(4, "little")


def member(data: bytes) -> bytes:
    """Bytes that nobody has compressed yet, as a whole member."""
    return _BEGIN + _deflated(data) + end(checksum(data), len(data))


def _deflated(data: bytes) -> bytes:
    if len(data) <= _LARGEST_SQUEEZED and data.isascii():
        return _squeezed(data)
    pieces = [data[at : at + _LARGEST_STORED] for at in range(0, len(data), _LARGEST_STORED)]
    return b"".join(_stored(piece, last=number == len(pieces)) for number, piece in enumerate(pieces, 1))


def _stored(piece: bytes, *, last: bool) -> bytes:
    # RFC 1951, 3.2.4: whether it is the last block, its length, the complement of that.
    size = len(piece)
    return bytes([last]) + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + piece


def _squeezed(data: bytes) -> bytes:
    """One block of fixed Huffman codes (RFC 1951, 3.2.6), in which only runs of zeros are shortened.

    A tar header is a hundred letters and four hundred zeros: 130 bytes are left of it.
    """
    bits, count = 0b011, 3  # the last block, with fixed codes
    for letters, zeros in _RUN.findall(data):
        bits |= int.from_bytes(letters.translate(_CODES), "little") << count
        count += 8 * len(letters)
        run, width = _zeros(len(zeros))
        bits |= run << count
        count += width
    count += 7  # the end of the block is code 256: seven zeros
    return bits.to_bytes(-(-count // 8), "little")


def _reversed(code: int, width: int) -> int:
    # Huffman codes stand with their first bit lowest, all else the other way round.
    return int(f"{code:0{width}b}"[::-1], 2)


# Of letters up to 143 the codes are 8 bits wide.
_CODES = bytes(_reversed(0x30 + letter, 8) for letter in range(128)).ljust(256, b"\0")


@cache
def _zeros(count: int) -> tuple[int, int]:
    """So many zeros as bits, and how many bits they are."""
    bits, width = 0, 0
    if count:
        bits, width = _CODES[0], 8
        count -= 1
    while count:
        length = min(count, _LONGEST_MATCH)
        code, wide = _match(length) if length >= 3 else (_CODES[0], 8)
        bits |= code << width
        width += wide
        count -= length if length >= 3 else 1
    return bits, width


def _match(length: int) -> tuple[int, int]:
    """A copy of the byte before, so many times (3.2.5); distance 1 is five zeros."""
    if length == _LONGEST_MATCH:
        number, extra, first = 285, 0, length
    else:
        at = max(at for at in range(28) if _first_length(at) <= length)
        number, extra, first = 257 + at, max(0, at // 4 - 1), _first_length(at)
    if number < 280:
        code, width = _reversed(number - 256, 7), 7
    else:
        code, width = _reversed(0xC0 + number - 280, 8), 8
    return code | (length - first) << width, width + extra + 5


def _first_length(at: int) -> int:
    return 3 + at if at < 8 else ((4 + at % 4) << (at // 4 - 1)) + 3
