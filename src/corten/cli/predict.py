"""Ask a running model through the gateway and print its answer as JSON.

The input is the JSON body of `POST /predict`: `{"inputs": [[...], ...]}` for arrays, the named parameters for a Python
class. A bare JSON array is taken as `inputs`.
"""

from __future__ import annotations

import argparse
import json
import os

from corten.cli import in_cluster
from corten.cli.json_input import HELP, read_json
from corten.cli.output import Output
from corten.errors import UsageError

EXAMPLES = """\
  corten predict fraud -i '[[0.1, 2.5, 3.0]]'
  corten predict annotator -i '{"text": "the parcel never came"}'
  corten predict fraud -i @rows.json
  cat rows.json | corten predict fraud -i -
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("name", help="the deployment")
    parser.add_argument("-i", "--input", default="", metavar="JSON", help=HELP)
    parser.add_argument("--example", action="store_true", help="ask with the example kept in the image, or zeros")
    in_cluster.add_engine(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Ask, then print the answer."""
    from corten.core.home import Home
    from corten.ops.predict import predict

    if bool(options.input) == options.example:
        raise UsageError("cli.usage", "say either what to ask or `--example`", hint="corten predict NAME -i '[[1, 2]]'")
    body = None if options.example else read_json(options.input)
    if in_cluster.meant(options):
        return in_cluster.predict(options, body, output)
    answer = predict(options.name, body, home=Home.from_env(os.environ, uid=os.getuid()))
    output.document(answer)
    output.result(json.dumps(answer, ensure_ascii=False))
    return 0
