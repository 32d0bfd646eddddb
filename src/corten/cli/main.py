"""The `corten` command: choose the verb, run it, turn what went wrong into words and an exit code.

Verbs are imported when chosen and argparse only for a verb, so that `corten --help` stays below 80 ms.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from corten.cli.output import Output

# Verb, its module, what it does. The order is the order of the help.
VERBS = (
    ("up", "build a model, run it, print its URL"),
    ("build", "build an image, print its digest"),
    ("deploy", "run an image that is in the store"),
    ("predict", "ask a running model"),
    ("status", "what runs, where, how well"),
    ("logs", "what a deployment's replicas wrote"),
    ("run", "one replica of an image in the foreground"),
    ("exec", "run a program of the image in a replica"),
    ("shell", "a Python prompt in a replica, or this machine's tools beside it"),
    ("promote", "a larger share of the requests for a canary, or all"),
    ("rollback", "back to the revision before"),
    ("restart", "new replicas of the same image, one by one"),
    ("why", "what was decided about a deployment, and from what"),
    ("drill", "break a deployment on purpose and count failed requests"),
    ("stop", "end a deployment"),
    ("gateway", "where requests come in: address, port, TLS"),
    ("token", "tokens for deployments that ask for one"),
    ("service", "have systemd keep the daemon, from boot on"),
    ("images", "the images in the local store; remove: take their names"),
    ("inspect", "what is in an image and how it came to be"),
    ("diff", "what changed between two images"),
    ("rebuild", "build an image again from its lock and compare the digests"),
    ("keygen", "make a pair of keys to sign with"),
    ("sign", "sign an image with your own key"),
    ("verify", "check an image's signature and every blob of it"),
    ("rebase", "newer Debian packages below an image, all else as it is"),
    ("export", "an image and all that belongs to it into one file"),
    ("import", "an image out of such a file"),
    ("gc", "remove what no name, deployment or replica leads to"),
    ("push", "push an image to a registry"),
    ("pull", "pull an image from a registry"),
    ("copy", "copy an image between registries"),
    ("render", "write a deployment down for Kubernetes, Compose, systemd or podman"),
    ("k8s", "what only clusters have: roles, releases, differences"),
    ("registry", "offer the local store to podman, containerd or a cluster"),
    ("serve", "serve a model in the foreground, on this Python, without an image"),
    ("doctor", "what this machine can do and how to mend the rest"),
)

# Words from other tools, and the verb they mean here.
SYNONYMS = {
    "ps": "status",
    "list": "status",
    "ls": "status",
    "start": "up",
    "down": "stop",
    "rm": "stop",
    "prune": "gc",
    "rmi": "images remove",
}

EXIT_BUG = 70
EXIT_INTERRUPTED = 130

HELP = """\
Corten: from a trained model to a running, isolated service.

  corten up model.joblib                     build, run, print the URL
  corten predict model --example             ask it
  corten build annotator.py:Annotator        print the image's digest
  corten up . --replicas 4                   a project folder with corten.toml

usage: corten VERB [options]        corten VERB --help tells more

{verbs}

Everywhere: --json  --quiet  -v        Environment: CORTEN_HOME  CORTEN_DEBIAN_MIRROR  NO_COLOR
Exit codes: 0 done, 1 failed, 2 usage, 3 nothing matched, 4 network, 5 engine, 6 unhealthy, 7 refused by policy
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and give its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[0] == "help":
            return main([words[1], "--help"])
        sys.stdout.write(HELP.format(verbs="\n".join(f"  {verb:10} {summary}" for verb, summary in VERBS)))
        return 0 if words else 2
    if words[0] in ("-V", "--version", "version"):
        from corten import __version__

        sys.stdout.write(f"corten {__version__}\n")
        return 0
    return _run(words[0], words[1:])


def _run(verb: str, words: list[str]) -> int:
    from corten.cli.output import Output
    from corten.errors import CortenError

    # What a command makes lives about as long as it does: 2 % of a build went into looking for what does not.
    gc.set_threshold(50_000, 20, 20)
    output = Output.for_words(words, env=os.environ)
    # What runs below clears up after itself when it is told to end, as it does after Ctrl-C.
    with suppress(ValueError):  # in a thread of somebody's process, whose signals are not ours
        signal.signal(signal.SIGTERM, _told_to_end)
    try:
        return _dispatch(verb, words, output)
    except CortenError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        output.interrupted()
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`corten logs | head`); nothing is left to be said to it.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        return 0
    except Exception as error:
        output.bug(error)
        return EXIT_BUG


def _told_to_end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _dispatch(verb: str, words: list[str], output: Output) -> int:
    import importlib

    known = {name for name, _ in VERBS}
    if verb in SYNONYMS:
        output.note(f"`corten {verb}` is `corten {SYNONYMS[verb]}` here")
        verb, *more = SYNONYMS[verb].split()
        words = [*more, *words]
    if verb not in known:
        raise _unknown(verb, known)
    from corten.cli.parser import parse

    module = importlib.import_module(module_of(verb))
    options = parse(verb, module, words)
    if options is None:  # --help was printed
        return 0
    return int(module.run(options, output))


def module_of(verb: str) -> str:
    """The module of a verb; `import` is a word of Python's own."""
    return f"corten.cli.{'import_' if verb == 'import' else verb}"


def _unknown(verb: str, known: set[str]) -> Exception:
    import difflib

    from corten.errors import UsageError

    near = difflib.get_close_matches(verb, known | set(SYNONYMS), n=1)
    meant = SYNONYMS.get(near[0], near[0]) if near else ""
    return UsageError(
        "cli.unknown_verb",
        f"no such verb: `{verb}`",
        why="known: " + ", ".join(name for name, _ in VERBS),
        hint=f"did you mean `corten {meant}`?" if meant else "see `corten --help`",
    )
