"""Make a pair of keys to sign images with: NAME.key, which stays secret, and NAME.pub, which goes to those who verify.

The private key is encrypted when CORTEN_SIGN_PASSWORD is set. ECDSA P-256, PKCS8 and PKIX PEM, as openssl and cosign
read them. Nothing is overwritten.
"""

from __future__ import annotations

import argparse

from corten.cli.output import Output

EXAMPLES = """\
  corten keygen release
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="where the pair goes: NAME.key and NAME.pub")


def run(options: argparse.Namespace, output: Output) -> int:
    """Write the pair, print where."""
    from corten.ops.keygen import PASSWORD_VARIABLE, keygen

    keys = keygen(options.name)
    output.document({"private": str(keys.private), "public": str(keys.public), "encrypted": keys.encrypted})
    output.result(f"{keys.private}\n{keys.public}")
    if not keys.encrypted:
        output.note(f"the private key is not encrypted: {PASSWORD_VARIABLE} is not set")
    return 0
