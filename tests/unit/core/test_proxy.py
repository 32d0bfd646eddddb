import pytest

from corten.core.proxy import proxies_from, proxy_for


def test_small_letters_win_and_empty_ones_are_none():
    assert proxies_from({"https_proxy": "a:1", "HTTPS_PROXY": "b:2", "NO_PROXY": "x", "http_proxy": ""}) == {
        "https": "a:1",
        "no": "x",
    }


@pytest.mark.parametrize(
    ("scheme", "host", "proxy"),
    [
        ("https", "r.example", "http://p:3128"),
        ("http", "r.example", "socks://q"),
        ("https", "direct.example", ""),
        ("https", "a.direct.example", ""),
        ("https", "notdirect.example", "http://p:3128"),
    ],
)
def test_a_host_is_reached_through_its_schemes_proxy_or_directly(scheme, host, proxy):
    proxies = {"https": "p:3128", "all": "socks://q", "no": " .direct.example:443, other"}
    assert proxy_for(proxies, scheme, host) == proxy


def test_a_star_means_no_proxy_at_all():
    assert not proxy_for({"https": "http://p", "no": "*"}, "https", "r.example")
