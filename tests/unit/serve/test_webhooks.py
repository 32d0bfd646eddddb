"""Where a webhook may lead, and where not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.serve.job import RequestError
from corten.serve.webhooks import Hook, UnsafeError, check_addresses, is_public, parse_hook


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fec0::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_of_our_own_networks_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/", "https"),
        ("gopher://example.com/", "https"),
        ("https://user@example.com/", "no user"),
        ("https://:secret@example.com/", "no user"),
        ("https://example.com:99999/", "not a URL"),
        ("https:///path", "not a URL"),
        ("https://exa mple.com/", "not a URL"),
        ("https://example.com/\r\nX: y", "not a URL"),
        ("https://exämple.com/", "not a URL"),
        ("https://" + "a" * 3000, "not a URL"),
        ("https://localhost/", "public internet"),
        ("https://db.internal/", "public internet"),
        ("https://127.0.0.1/", "public internet"),
        ("https://[::ffff:127.0.0.1]/", "public internet"),
    ],
)
def test_what_cannot_be_called_is_refused_with_its_reason(url, said):
    with pytest.raises(RequestError) as refused:
        parse_hook(url, (), "webhook")
    assert said in refused.value.message
    assert refused.value.path == "webhook"


def test_hosts_the_settings_name_may_be_anywhere():
    trusted = ("Hooks.internal", "10.0.0.5:8080")
    assert parse_hook("http://hooks.internal/a?b=1", trusted, "w") == Hook(False, "hooks.internal", 80, "/a?b=1", True)
    assert parse_hook("http://10.0.0.5:8080", trusted, "w").trusted
    with pytest.raises(RequestError):
        parse_hook("http://10.0.0.5:8081", trusted, "w")


def test_one_address_that_is_not_public_is_enough_to_refuse():
    hook = parse_hook("https://example.com/", (), "w")
    check_addresses(["8.8.8.8"], hook)
    with pytest.raises(UnsafeError):
        check_addresses(["8.8.8.8", "127.0.0.1"], hook)
    check_addresses(["127.0.0.1"], parse_hook("https://example.com/", ("example.com",), "w"))


@given(st.text(max_size=60))
def test_any_text_is_a_hook_or_refused(text):
    for url in (text, f"https://{text}", f"https://example.com{text}"):
        try:
            hook = parse_hook(url, (), "w")
        except RequestError:
            continue
        assert hook.secure
        assert hook.target.isascii()
        assert hook.target.isprintable()
