"""Forms with files, as browsers and curl send them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.serve.job import RequestError
from corten.serve.multipart import parts


def form(*fields, boundary="b0"):
    out = b""
    for name, content, *more in fields:
        head = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{more[0]}"' if more else "")
        head += f"\r\nContent-Type: {more[1]}" if len(more) > 1 else ""
        out += f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n"
    return out + f"--{boundary}--\r\n".encode()


def read(body, kind="multipart/form-data; boundary=b0"):
    return [(part.name, part.filename, part.content_type, bytes(part.content)) for part in parts(body, kind)]


def test_fields_and_files_come_in_order_with_what_they_say():
    body = form(("note", b"hi"), ("image", b"\x00\r\n--b\xff", "a b.png", "image/png"), ("empty", b""))
    assert read(body) == [
        ("note", None, "", b"hi"),
        ("image", "a b.png", "image/png", b"\x00\r\n--b\xff"),
        ("empty", None, "", b""),
    ]


@pytest.mark.parametrize(
    "kind", ['multipart/form-data; charset=utf-8; boundary="b0"', "Multipart/Form-Data;boundary=b0"]
)
def test_boundaries_are_found_quoted_or_not(kind):
    assert len(read(form(("a", b"1")), kind)) == 1


def test_what_stands_around_the_parts_is_nobodys():
    assert read(b"preamble\r\n" + form(("a", b"1")) + b"epilogue") == [("a", None, "", b"1")]


def test_names_may_hold_quotes_and_other_scripts():
    assert read(form(("a%22b", b"1"), ("né", b"2", "日.png")))[0][0] == 'a"b'
    assert read(form(("né", b"2", "日.png")))[0][:2] == ("né", "日.png")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b0",
        b"--b0\r\n",
        b"--b0\r\n\r\nno name\r\n--b0--",
        b'--b0\r\nContent-Disposition: form-data; name="a"\r\n\r\ncut off',
        b'--b0 x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b0--',
        b'--b0\r\nContent-Disposition: form-data; name="a"' + b"x" * 20_000 + b"\r\n\r\n1\r\n--b0--",
    ],
    ids=range(7),
)
def test_what_is_no_form_is_refused(body):
    with pytest.raises(RequestError) as refused:
        read(body)
    assert refused.value.status == 400


def test_a_form_without_its_boundary_or_with_too_many_parts_is_refused():
    with pytest.raises(RequestError):
        read(form(("a", b"1")), "multipart/form-data")
    with pytest.raises(RequestError) as refused:
        read(form(*[("a", b"1")] * 1001))
    assert refused.value.status == 413


@given(st.lists(st.tuples(st.text("abc", min_size=1), st.binary(max_size=40)), max_size=4))
def test_any_contents_come_back_as_they_went(fields):
    # A boundary is chosen so that no content has it.
    assert [(name, content) for name, _, _, content in read(form(*fields))] == fields


@given(st.binary(max_size=300))
def test_any_bytes_are_a_form_or_refused(noise):
    for body in (noise, form(("a", noise, "f")), form(("a", b"1"))[: len(noise)] + noise):
        with contextlib.suppress(RequestError):
            read(body)
