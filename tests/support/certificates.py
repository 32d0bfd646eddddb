"""Certificates of a test's own: signed by themselves."""

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def write_certificate(folder, name="front", *, hosts=("localhost", "127.0.0.1"), days=30, begins_days=-1, password=""):
    """`NAME.crt` and `NAME.key` in the folder; gives their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=begins_days))
        .not_valid_after(now + dt.timedelta(days=days))
    )
    if hosts:
        certificate = certificate.add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), False)
    signed = certificate.sign(key, hashes.SHA256())
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    kind = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, locked))
    paths[1].chmod(0o600)
    return paths


def _name(host):
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
