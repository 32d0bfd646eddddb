"""Who may sign a release file, and how old it may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysequoia.packet import PacketPile

from corten.builder.debian import trust
from corten.builder.debian.release import Suite
from corten.errors import PolicyError
from corten.testing.debian import Repository, Signer

NOW_S = 1_790_000_000.0
DAY_S = 86400.0
URL = "https://mirror/debian/dists/bookworm/InRelease"


@pytest.fixture(scope="module")
def signer():
    return Signer()


@pytest.fixture(scope="module")
def stranger():
    return Signer("Stranger <x@example.org>")


def refused(code, call):
    with pytest.raises(PolicyError) as caught:
        call()
    assert caught.value.code == code
    assert caught.value.where == URL
    return caught.value


def test_what_a_pinned_key_signed_is_returned(signer):
    text = trust.verify_inrelease(signer.sign("Codename: x\n"), [signer.certificate], url=URL)
    assert text == b"Codename: x\n"


def test_lines_around_the_signed_part_are_not_returned(signer):
    data = b"Codename: before\n" + signer.sign("Codename: x\n") + b"\nCodename: after\n"
    assert trust.verify_inrelease(data, [signer.certificate], url=URL) == b"Codename: x\n"


def test_a_changed_letter_breaks_the_signature(signer):
    data = signer.sign("Codename: x\n").replace(b"Codename: x", b"Codename: y")
    refused("debian.bad_signature", lambda: trust.verify_inrelease(data, [signer.certificate], url=URL))


def test_an_unsigned_file_is_refused(signer):
    refused("debian.unsigned", lambda: trust.verify_inrelease(b"Codename: x\n", [signer.certificate], url=URL))


def test_the_signature_of_a_stranger_is_refused_naming_the_pinned_key(signer, stranger):
    data = stranger.sign("Codename: x\n")
    error = refused("debian.bad_signature", lambda: trust.verify_inrelease(data, [signer.certificate], url=URL))
    assert signer.fingerprint in error.why


def test_the_signature_of_another_text_is_refused(signer):
    one, other = signer.sign("Codename: x\n"), signer.sign("Codename: y\n")
    mixed = (
        one.partition(b"-----BEGIN PGP SIGNATURE")[0]
        + b"-----BEGIN PGP SIGNATURE"
        + other.partition(b"-----BEGIN PGP SIGNATURE")[2]
    )
    refused("debian.bad_signature", lambda: trust.verify_inrelease(mixed, [signer.certificate], url=URL))


def test_of_a_keyring_only_pinned_certificates_are_taken(signer, stranger):
    keyring = bytes(stranger.certificate) + bytes(signer.certificate)
    assert [cert.fingerprint for cert in trust.certificates(keyring, [signer.fingerprint])] == [signer.fingerprint]


def test_a_pinned_certificate_with_a_strangers_subkey_added_does_not_vouch_for_the_stranger(signer, stranger):
    def packets(one):
        return list(PacketPile.from_bytes(bytes(one.certificate)))

    foreign = packets(stranger)
    first_subkey = next(at for at, packet in enumerate(foreign) if "Subkey" in str(packet.tag))
    forged = b"".join(bytes(packet) for packet in [*packets(signer), *foreign[first_subkey:]])
    certs = trust.certificates(forged, [signer.fingerprint])
    assert trust.verify_inrelease(signer.sign("Codename: x\n"), certs, url=URL) == b"Codename: x\n"
    data = stranger.sign("Codename: x\n")
    refused("debian.bad_signature", lambda: trust.verify_inrelease(data, certs, url=URL))


@pytest.mark.parametrize("keyring", [b"", b"not a keyring", bytes(range(256))])
def test_an_unreadable_keyring_holds_no_certificate(keyring, signer):
    assert trust.certificates(keyring, [signer.fingerprint]) == []


def suite_of(repository, *, moves=False):
    return trust.parse_suite(repository.release().encode(), Suite(repository.suite, "debian", moves=moves), url=URL)


def test_a_release_file_tells_date_and_files():
    repository = Repository("bookworm", "debian", NOW_S, valid_until_s=NOW_S + DAY_S)
    repository.add("abc")
    signed = suite_of(repository)
    assert (signed.date_s, signed.valid_until_s) == (NOW_S, NOW_S + DAY_S)
    assert set(signed.files) == {"main/binary-amd64/Packages", "main/binary-amd64/Packages.xz"}
    assert "amd64" in signed.architectures


def test_another_suites_release_file_is_refused_though_it_is_signed():
    text = Repository("bullseye", "debian", NOW_S).release().encode()
    suite = Suite("bookworm", "debian", moves=False)
    assert "bullseye" in refused("debian.wrong_suite", lambda: trust.parse_suite(text, suite, url=URL)).why


@pytest.mark.parametrize(
    ("old", "new"), [("Date: ", "Data: "), ("Date: Mon", "Date: no day"), ("SHA256:\n ", "SHA256:\n x ")]
)
def test_an_unreadable_release_file_is_refused(old, new):
    repository = Repository("bookworm", "debian", 1_789_948_800.0)  # a Monday
    text = repository.release().replace(old, new).encode()
    suite = Suite("bookworm", "debian", moves=False)
    refused("debian.release_malformed", lambda: trust.parse_suite(text, suite, url=URL))


def age(*, date_s=NOW_S, until_s=None, moves=True, newest_s=0.0):
    signed = trust.SignedSuite(Suite("bookworm-security", "debian-security", moves=moves), date_s, until_s, (), {})
    return trust.check_age(signed, newest_s=newest_s, now_s=NOW_S, url=URL)


def test_an_expired_release_file_is_refused():
    refused("debian.expired", lambda: age(until_s=NOW_S - 1))
    assert age(until_s=NOW_S + 1) == ()


def test_a_mirror_may_not_go_back_in_time():
    refused("debian.rollback", lambda: age(date_s=NOW_S - DAY_S, newest_s=NOW_S))
    assert age(newest_s=NOW_S) == ()


def test_a_stale_suite_is_warned_of_only_where_suites_are_signed_often():
    assert "stale" in age(date_s=NOW_S - 15 * DAY_S)[0]
    assert age(date_s=NOW_S - 13 * DAY_S) == ()
    assert age(date_s=NOW_S - 200 * DAY_S, moves=False) == ()


def test_a_date_in_the_future_is_warned_of():
    assert "clock" in age(date_s=NOW_S + 2 * DAY_S)[0]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_without_a_foreign_exception(data):
    with pytest.raises(PolicyError):
        trust.verify_inrelease(b"-----BEGIN PGP SIGNED MESSAGE-----\n" + data, [], url=URL)


@given(st.text(max_size=200))
def test_arbitrary_text_is_refused_without_a_foreign_exception(text):
    suite = Suite("bookworm", "debian", moves=False)
    with pytest.raises(PolicyError):
        trust.parse_suite(f"Codename: bookworm\n{text}".encode(), suite, url=URL)
