"""Sign an image with your own key: the image, its SBOM and the statements attached to it (provenance).

The signatures are Sigstore bundles attached to the image, and beside them one under the tag older tools look for
(cosign before 3, podman, skopeo). Signing again with the same key changes nothing. The key's
password is CORTEN_SIGN_PASSWORD, its file --key or CORTEN_SIGN_KEY.
"""

from __future__ import annotations

import argparse
import os

from corten.cli.output import Output

EXAMPLES = """\
  corten keygen release
  corten sign digits --key release.key
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", help="a name, or the first digits of a digest")
    parser.add_argument(
        "--identity",
        default="",
        metavar="REGISTRY/REPOSITORY",
        help="what the image is called in the signature for older tools (default: its name in the store)",
    )
    parser.add_argument(
        "--key", default="", metavar="FILE", help="the private key (default: the file in CORTEN_SIGN_KEY)"
    )


def run(options: argparse.Namespace, output: Output) -> int:
    """Sign, print the digest that was signed."""
    from corten.core.home import Home
    from corten.errors import UsageError
    from corten.ops.sign import sign

    key = options.key or os.environ.get("CORTEN_SIGN_KEY", "")
    if not key:
        raise UsageError("signature.no_key", "no key to sign with", hint="give --key FILE or set CORTEN_SIGN_KEY")
    signed = sign(options.image, key, identity=options.identity, home=Home.from_env(os.environ, uid=os.getuid()))
    output.document(signed.as_dict())
    for statement in signed.statements:
        output.note(f"signed: {statement}")
    output.result(str(signed.digest))
    return 0
