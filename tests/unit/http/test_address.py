from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import UsageError
from corten.http import TcpAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/a.sock", UnixAddress(Path("/run/a.sock"))),
        ("127.0.0.1:80", TcpAddress("127.0.0.1", 80)),
        ("localhost:0", TcpAddress("localhost", 0)),
        (":8080", TcpAddress("0.0.0.0", 8080)),
        ("[::1]:8080", TcpAddress("::1", 8080)),
    ],
)
def test_addresses_are_read(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "8080", "host", "host:", "host:70000", "host:-1", "::1:80", "unix:relative", "unix:", "h:8०"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert caught.value.code == "http.address_malformed"


def test_a_socket_path_the_kernel_cannot_take_is_refused_with_its_length():
    with pytest.raises(UsageError, match="120 bytes"):
        parse_address("unix:/" + "a" * 119)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_usage_error(text):
    try:
        address = parse_address(text)
    except UsageError:
        return
    assert parse_address(str(address)) == address
