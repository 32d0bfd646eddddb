"""The command line's reference page, made from the parsers.

`python -m corten.cli.reference > docs/reference/cli.md`
"""

from __future__ import annotations

import importlib
import os
import sys

from corten.cli.main import HELP, SYNONYMS, VERBS, module_of
from corten.cli.parser import make


def render() -> str:
    """The whole page as Markdown; the same on every machine."""
    os.environ["COLUMNS"] = "100"  # argparse wraps at the terminal's width
    parts = [
        "# The command line\n\nMade by `python -m corten.cli.reference`; a test compares it with the program.\n",
        "```\n" + HELP.format(verbs="\n".join(f"  {verb:10} {summary}" for verb, summary in VERBS)) + "```\n",
        "Words from other tools are understood: "
        + ", ".join(f"`{word}` is `{verb}`" for word, verb in sorted(SYNONYMS.items()))
        + ".\n",
    ]
    for verb, summary in VERBS:
        text = make(verb, importlib.import_module(module_of(verb))).format_help()
        parts.append(f"## corten {verb}\n\n{summary[0].upper()}{summary[1:]}.\n\n```\n{text}```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(render())
