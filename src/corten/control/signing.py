"""Tokens as RFC 7519 has them, signed by ES256 (RFC 7518): what the gateway checks without asking us."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corten.errors import UsageError

_COORDINATE_BYTES = 32  # of P-256
_PRIVATE_PARTS = ("d", "p", "q", "k")  # RFC 7518 §6: of a private or secret key


@dataclass(frozen=True, slots=True)
class NewKey:
    """A fresh pair: `pem` is the private half, `jwk` the public one as JSON; `kid` is its thumbprint (RFC 7638)."""

    kid: str
    pem: bytes
    jwk: str


def new_key() -> NewKey:
    """Make a pair of keys on P-256."""
    # 50 ms and 10 MB for those who issue tokens, not for those who only check them.
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    required = {"crv": "P-256", "kty": "EC", "x": _number(numbers.x), "y": _number(numbers.y)}
    digest = hashes.Hash(hashes.SHA256())
    digest.update(json.dumps(required, sort_keys=True, separators=(",", ":")).encode())
    kid = _text(digest.finalize())[:16]
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return NewKey(kid, pem, json.dumps({**required, "alg": "ES256", "kid": kid, "use": "sig"}, sort_keys=True))


def sign(pem: bytes, kid: str, claims: Mapping[str, Any]) -> str:
    """The token with these claims."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(pem, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)  # noqa: S101 -- written by new_key
    signed = f"{_json({'alg': 'ES256', 'kid': kid, 'typ': 'JWT'})}.{_json(claims)}"
    r, s = decode_dss_signature(private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_text(r.to_bytes(_COORDINATE_BYTES, 'big') + s.to_bytes(_COORDINATE_BYTES, 'big'))}"


def check_jwks(text: str) -> str:
    """Somebody's public keys (RFC 7517), as the gateway will take them. Raises UsageError `token.bad_keys`."""
    try:
        document = json.loads(text)
        keys = document["keys"]
        if not keys:
            raise _bad("it has no key")
        for key in keys:
            if any(part in key for part in _PRIVATE_PARTS):
                raise _bad("it holds a private key, which is nobody's but the issuer's")
            _public(key)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _bad(f"{type(error).__name__}: {error}") from error
    return json.dumps({"keys": keys}, sort_keys=True)


def _public(key: Mapping[str, Any]) -> None:
    """Build the key, so that what is no key is found out here."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    match key["kty"], key.get("crv"):
        case "EC", str(curve):
            curves: dict[str, ec.EllipticCurve] = {
                "P-256": ec.SECP256R1(),
                "P-384": ec.SECP384R1(),
                "P-521": ec.SECP521R1(),
            }
            ec.EllipticCurvePublicNumbers(_int(key["x"]), _int(key["y"]), curves[curve]).public_key()
        case "RSA", _:
            rsa.RSAPublicNumbers(_int(key["e"]), _int(key["n"])).public_key()
        case "OKP", "Ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(_bytes(key["x"]))
        case kind, _:
            raise _bad(f"a key of kind {str(kind)[:20]} is not among EC, RSA and Ed25519")


def _bad(why: str) -> UsageError:
    return UsageError(
        "token.bad_keys",
        "these are no keys to check tokens with",
        why=why,
        hint="give the issuer's JWKS, as its `jwks_uri` has it",
    )


def _json(value: Mapping[str, Any]) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _number(value: int) -> str:
    return _text(value.to_bytes(_COORDINATE_BYTES, "big"))


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _int(text: str) -> int:
    return int.from_bytes(_bytes(text), "big")
