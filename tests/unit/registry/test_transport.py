import pytest

from corten.errors import PolicyError, UsageError
from corten.registry.ask import Ask, Trust
from corten.registry.transport import Outside, Transport, is_loopback, printable, shown


@pytest.fixture
def far():
    return Transport("r.example", Trust(), lambda: 0.0)


@pytest.mark.parametrize(
    "name", ["localhost", "localhost:5000", "127.0.0.1:5", "[::1]:5000", "x.localhost", "127.9.9.9"]
)
def test_this_machine_goes_by_these_names(name):
    assert is_loopback(name)


@pytest.mark.parametrize("name", ["localhost.evil.org", "127.0.0.1.evil.org", "r.example", "10.0.0.1", "", "[x"])
def test_others_do_not(name):
    assert not is_loopback(name)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2/x?state=1", "https://r.example/v2/x?state=1"),
        ("https://s3.example/blob?sig=1#f", "https://s3.example/blob?sig=1"),
        ("https://user:secret@s3.example/blob", "https://s3.example/blob"),
    ],
)
def test_a_location_is_resolved_and_loses_what_would_become_our_headers(far, location, target):
    assert far.target("https://r.example/v2/a", location) == target


@pytest.mark.parametrize(
    "location", ["", "http://r.example/x", "file:///etc/passwd", "ftp://x/", "https://[::1", "https://x:0/"]
)
def test_some_locations_are_not_gone_to(far, location):
    with pytest.raises(PolicyError) as refused:
        far.target("https://r.example/v2/a", location)
    assert refused.value.code == "registry.bad_redirect"


def test_http_is_for_this_machine_or_when_asked_for(far):
    with pytest.raises(UsageError) as refused, far.exchange(Ask("GET", "http://r.example/v2/")):
        pass
    assert refused.value.code == "registry.not_secure"
    assert far.base == "https://r.example"
    assert Transport("r.example", Trust(plain_http=True), lambda: 0.0).base == "http://r.example"


def test_docker_hubs_api_lives_elsewhere():
    assert Transport("docker.io", Trust(), lambda: 0.0).base == "https://registry-1.docker.io"


def test_what_is_shown_of_a_url_holds_no_secret_and_nothing_a_terminal_obeys():
    assert shown("https://ada:canary@r.example:5000/v2/x?sig=canary#canary") == "https://r.example:5000/v2/x"
    assert printable("a\x1b[31mb\r\nc") == "a?[31mb??c"
    assert len(printable("x" * 10_000)) == 200


def test_a_credential_is_no_part_of_what_a_request_shows():
    assert "canary" not in repr(Ask("GET", "https://r.example/", authorization="Bearer canary"))


def test_a_file_of_authorities_must_hold_some(tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    transport = Transport("r.example", Trust(ca=tmp_path / "ca.pem"), lambda: 0.0)
    with pytest.raises(UsageError) as refused, transport.exchange(Ask("GET", "https://r.example/")):
        pass
    assert refused.value.code == "registry.bad_ca"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "169.254.169.254", "fe80::1%eth0", "0.0.0.0", "::ffff:127.0.0.1"]
)
def test_a_far_registry_cannot_send_us_to_this_machines_own_services(address):
    with pytest.raises(PolicyError) as refused:
        Outside("https://r.example/v2/")(address)
    assert refused.value.code == "registry.bad_redirect"


@pytest.mark.parametrize("address", ["10.0.0.5", "203.0.113.9", "2001:db8::1"])
def test_addresses_of_the_network_are_gone_to(address):
    Outside("https://r.example/v2/")(address)
