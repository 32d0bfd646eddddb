"""Whose tokens count, over time and over restarts; and that no token and no private key is where it should not be."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from corten.control.credentials import Token
from corten.control.issue import DAY_S, Issuance
from corten.control.signing import check_jwks, new_key, sign
from corten.control.state import State
from corten.core.access import Issuer
from corten.errors import CortenError, NotFoundError, UsageError


class Clock:
    now_s = 1_000_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def issuance(make_state, tmp_path, clock):
    return Issuance(make_state().credentials, tmp_path / "keys", clock)


def decode(text):
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def test_a_token_says_whose_it_is_for_what_and_until_when_and_its_key_signed_it(issuance, clock):
    token, text = issuance.issue("alice", ("fraud", "iris"), 30)
    head, claims, signature = text.split(".")
    (jwk,) = map(json.loads, issuance.credentials.trust(now_s=clock()).keys)
    assert decode(head) == {"alg": "ES256", "kid": jwk["kid"], "typ": "JWT"}
    assert decode(claims) == {
        "iss": "corten", "sub": "alice", "aud": ["fraud", "iris"], "jti": token.id,
        "iat": 1_000_000, "exp": 1_000_000 + 30 * DAY_S,
    }  # fmt: skip
    raw = base64.urlsafe_b64decode(signature + "==")
    x, y = (int.from_bytes(base64.urlsafe_b64decode(jwk[part] + "==")) for part in "xy")
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    public.verify(der, f"{head}.{claims}".encode(), ec.ECDSA(hashes.SHA256()))


def test_the_private_key_is_a_file_of_the_owner_and_the_token_is_nowhere(tmp_path, clock):
    issuance = Issuance(State.open(tmp_path / "corten.db").credentials, tmp_path / "keys", clock)
    _, text = issuance.issue("alice", ("*",), 1)
    (key,) = (tmp_path / "keys").iterdir()
    assert (key.stat().st_mode & 0o777, (tmp_path / "keys").stat().st_mode & 0o777) == (0o600, 0o700)
    secret = key.read_text().splitlines()[1].encode()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert text.encode() not in data
            assert path == key or secret not in data


def test_what_was_revoked_is_told_until_it_would_have_expired(issuance, clock):
    one, _ = issuance.issue("alice", ("*",), 1)
    two, _ = issuance.issue("alice", ("*",), 2)
    three, _ = issuance.issue("bob", ("*",), 1)
    assert {each.id for each in issuance.credentials.revoke("alice", now_s=clock())} == {one.id, two.id}
    assert issuance.credentials.revoke("alice", now_s=clock()) == ()
    assert [each.id for each in issuance.credentials.revoke(three.id, now_s=clock())] == [three.id]
    assert set(issuance.credentials.trust(now_s=clock()).revoked) == {one.id, two.id, three.id}
    assert issuance.credentials.trust(now_s=clock() + 1.5 * DAY_S).revoked == (two.id,)
    with pytest.raises(NotFoundError, match="no token called `carol`"):
        issuance.credentials.revoke("carol", now_s=clock())


def test_a_rotated_key_counts_as_long_as_what_it_signed(issuance, clock, tmp_path):
    issuance.issue("alice", ("*",), 1)
    old = issuance.credentials.signing_key()
    clock.now_s += 10
    new = issuance.rotate(at_once=False)
    kids = [json.loads(key)["kid"] for key in issuance.credentials.trust(now_s=clock()).keys]
    assert kids == [old, new]
    assert [path.name for path in (tmp_path / "keys").iterdir()] == [f"{new}.pem"]
    assert issuance.issue("bob", ("*",), 5)[0].kid == new
    kids = [json.loads(key)["kid"] for key in issuance.credentials.trust(now_s=clock() + 2 * DAY_S).keys]
    assert kids == [new]
    third = issuance.rotate(at_once=True)
    kids = [json.loads(key)["kid"] for key in issuance.credentials.trust(now_s=clock()).keys]
    assert kids == [third]


def test_a_lost_key_is_told_with_what_mends_it(issuance, tmp_path):
    issuance.rotate(at_once=False)
    (key,) = (tmp_path / "keys").iterdir()
    key.unlink()
    with pytest.raises(CortenError) as caught:
        issuance.issue("alice", ("*",), 1)
    assert caught.value.code == "token.key_lost"
    assert issuance.credentials.tokens() == ()
    issuance.rotate(at_once=False)
    issuance.issue("alice", ("*",), 1)


def test_credentials_survive_a_restart(tmp_path, clock):
    first = State.open(tmp_path / "corten.db")
    first.credentials.add_key("k", "{}", now_s=clock())
    first.credentials.add(Token("id", "alice", ("m",), "k", clock(), clock() + 1))
    first.credentials.trust_issuer(Issuer("i", "a", "{}"))
    first.credentials.trust_issuer(Issuer("i", "b", "{}"))
    issued = first.credentials.tokens()
    first.close()
    again = State.open(tmp_path / "corten.db").credentials
    assert len(issued) == 1
    assert again.tokens() == issued
    assert again.issuers() == (Issuer("i", "b", "{}"),)
    again.distrust("i")
    with pytest.raises(NotFoundError):
        again.distrust("i")


def test_keys_of_an_issuer_are_kept_without_anything_besides():
    jwk = json.loads(new_key().jwk)
    assert json.loads(check_jwks(json.dumps({"keys": [jwk], "note": "x"}))) == {"keys": [jwk]}


@given(
    st.one_of(
        st.text(max_size=50),
        st.fixed_dictionaries(
            {
                "keys": st.lists(
                    st.fixed_dictionaries(
                        {"kty": st.sampled_from(["EC", "RSA", "OKP", "oct", 1])},
                        optional={
                            part: st.one_of(st.none(), st.text("AQab-_=é", max_size=44), st.just("P-256"))
                            for part in ("crv", "x", "y", "n", "e", "d")
                        },
                    ),
                    max_size=2,
                )
            }
        ).map(json.dumps),
    )
)
def test_what_are_no_keys_is_refused_before_the_gateway_could_choke_on_it(text):
    with pytest.raises(UsageError) as refused:
        check_jwks(text)
    assert refused.value.code == "token.bad_keys"


def test_a_private_key_is_not_taken_for_a_public_one():
    jwk = {**json.loads(new_key().jwk), "d": "AAAA"}
    with pytest.raises(UsageError, match="no keys") as refused:
        check_jwks(json.dumps({"keys": [jwk]}))
    assert "private" in refused.value.why
    assert "AAAA" not in str(refused.value)


def test_two_signatures_of_the_same_differ_and_have_the_length_the_standard_says():
    key = new_key()
    signatures = {sign(key.pem, key.kid, {"a": 1}).split(".")[2] for _ in range(20)}
    assert len(signatures) == 20
    assert {len(each) for each in signatures} == {86}
