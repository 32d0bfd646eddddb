"""`multipart/form-data` (RFC 7578) of a body that is there as a whole; its parts are not copied."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from corten.serve.job import RequestError, malformed

_BOUNDARY = re.compile(r";\s*boundary=(?:\"([^\"]{1,70})\"|([^;,\s\"]{1,70}))\s*(?:;|$)", re.IGNORECASE)
# name="x" as browsers write it: `"` as %22 (or \"), line ends as %0D%0A.
_PARAMETER = re.compile(rb";\s*(name|filename)=(?:\"((?:[^\"\\]|\\.)*)\"|([^;\s\"]+))", re.IGNORECASE)
_MOST_PARTS = 1000
_LONGEST_HEAD = 8 << 10


@dataclass(frozen=True, slots=True)
class Part:
    """A field, or a file (`filename` is not None). `content_type` is empty where none is said."""

    name: str
    filename: str | None
    content_type: str
    content: memoryview


def parts(body: bytes | bytearray, content_type: str) -> Iterator[Part]:
    """The parts in order; raises RequestError."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise malformed("multipart/form-data without its boundary")
    dashes = b"--" + (found[1] or found[2]).encode("latin-1")
    view = memoryview(body)
    # What stands before the first boundary is nobody's (RFC 2046, 5.1.1).
    at = 0 if body.startswith(dashes) else _after(body, b"\r\n" + dashes, 0) - len(dashes)
    for _ in range(_MOST_PARTS):
        at += len(dashes)
        if body[at : at + 2] == b"--":
            return
        # Blanks may follow a boundary.
        line = _after(body, b"\r\n", at)
        if body[at : line - 2].strip(b" \t"):
            raise malformed("multipart/form-data: a boundary with something behind it")
        head_end = body.find(b"\r\n\r\n", line - 2, line + _LONGEST_HEAD)
        if head_end < 0:
            raise malformed("multipart/form-data: a part without the end of its head")
        end = _after(body, b"\r\n" + dashes, head_end + 2) - len(dashes) - 2
        start = min(head_end + 4, end + 2)
        yield _part(bytes(body[line:head_end]), view[start:end] if end > start else view[:0])
        at = end + 2
    raise RequestError(413, "request.too_many_parts", f"a form may have {_MOST_PARTS} parts")


def _after(body: bytes | bytearray, mark: bytes, start: int) -> int:
    """The place behind a mark; raises RequestError when it does not come."""
    at = body.find(mark, start)
    if at < 0:
        raise malformed("multipart/form-data is cut off")
    return at + len(mark)


def _part(head: bytes, content: memoryview) -> Part:
    name = filename = None
    kind = ""
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        match key.strip().lower():
            case b"content-disposition":
                for parameter in _PARAMETER.finditer(value):
                    text = _text(parameter[2] if parameter[2] is not None else parameter[3])
                    if parameter[1].lower() == b"name":
                        name = text
                    else:
                        filename = text
            case b"content-type":
                kind = value.strip().decode("latin-1")
            case _:
                continue
    if name is None:
        raise malformed("multipart/form-data: a part without a name")
    return Part(name, filename, kind, content)


def _text(raw: bytes) -> str:
    return raw.replace(b'\\"', b'"').decode("utf-8", "replace").replace("%22", '"')
