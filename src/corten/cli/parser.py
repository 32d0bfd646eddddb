"""Options of a verb: argparse with our shared flags and our errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from corten.errors import UsageError

if TYPE_CHECKING:
    from corten.core.canary import Canary
    from corten.core.platform import Platform


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of printing usage and leaving with its own words."""

    def error(self, message: str) -> NoReturn:
        raise UsageError("cli.usage", message, hint=f"see `{self.prog} --help`")


class _HelpShown(Exception):  # noqa: N818
    """`--help` was asked for; the text is its argument."""


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _HelpShown(parser.format_help())


def parse(verb: str, module: ModuleType, words: Sequence[str]) -> argparse.Namespace | None:
    """Read a verb's words; None when its help was asked for and printed."""
    try:
        return make(verb, module).parse_args(words)
    except _HelpShown as shown:
        sys.stdout.write(str(shown))
        return None


def make(verb: str, module: ModuleType) -> argparse.ArgumentParser:
    """The parser of a verb's module, which has `configure(parser)`, a docstring and EXAMPLES."""
    parser = _Parser(
        prog=f"corten {verb}",
        description=f"{module.EXAMPLES.rstrip()}\n\n{(module.__doc__ or '').strip()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    module.configure(parser)
    everywhere = parser.add_argument_group("everywhere")
    everywhere.add_argument("--json", action="store_true", help="one JSON document on stdout, errors too")
    everywhere.add_argument("-q", "--quiet", action="store_true", help="no progress, only the result")
    everywhere.add_argument("-v", "--verbose", action="store_true", help="more: notes, and a traceback on a bug")
    everywhere.add_argument("-h", "--help", action=_Help, nargs=0, help="show this")
    return parser


def key_value(text: str) -> tuple[str, str]:
    """Read `KEY=VALUE`, for `--env`."""
    key, equals, value = text.partition("=")
    if not equals or not key.replace("_", "a").isalnum() or key[0].isdigit():
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got `{text}`")
    return key, value


def port(text: str) -> int:
    """Read a TCP port, 1 to 65535."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got `{text}`")
    return int(text)


def count(text: str) -> int:
    """Read a number of replicas, 1 to 64."""
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 64, got `{text}`")
    return int(text)


def replicas(text: str) -> tuple[int, int]:
    """Read a number of replicas, or a range of them."""
    from corten.core.scale import parse_replicas

    return parse_replicas(text)


def add_replicas(parser: argparse.ArgumentParser) -> None:
    """How many replicas: shared by `up` and `deploy`."""
    parser.add_argument(
        "--replicas",
        type=replicas,
        default=None,
        metavar="N|N..M",
        help="how many replicas, or between how many the requests decide, as 1..4; from 0 on none is kept while nobody "
        "asks (default: 1)",
    )
    parser.add_argument(
        "--concurrency",
        type=concurrency,
        default=None,
        metavar="N",
        help="with a range: requests a replica should have in flight at most (default: 8)",
    )


def concurrency(text: str) -> int:
    """Read a number of requests in flight, 1 to 4096."""
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 4096, got `{text}`")
    return int(text)


def memory(text: str) -> int:
    """Read an amount of memory in bytes."""
    from corten.core.resources import parse_memory

    return parse_memory(text)


def size(text: str) -> int:
    """Read a size in bytes."""
    from corten.core.resources import parse_size

    return parse_size(text)


def cpus(text: str) -> float:
    """Read a number of processors."""
    from corten.core.resources import parse_cpus

    return parse_cpus(text)


def gpus(text: str) -> int:
    """Read a number of GPUs."""
    from corten.core.resources import parse_gpus

    return parse_gpus(text)


def device(text: str) -> str:
    """Read the name of a device."""
    from corten.core.resources import parse_device

    return parse_device(text)


def add_resources(parser: argparse.ArgumentParser) -> None:
    """What one replica may use: shared by `up`, `deploy`, `render` and `run`."""
    parser.add_argument(
        "--memory", type=memory, default=None, metavar="SIZE", help="of one replica at most, as 512m or 2g"
    )
    parser.add_argument(
        "--cpus", type=cpus, default=None, metavar="N", help="processors one replica may use, as 2 or 0.5"
    )
    parser.add_argument("--gpus", type=gpus, default=None, metavar="N", help="NVIDIA's GPUs of one replica")
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        type=device,
        metavar="VENDOR/CLASS=NAME",
        help="a device of one replica by the name CDI has for it; repeatable",
    )


def add_engine(parser: argparse.ArgumentParser, more: str = "") -> None:
    """What runs the replicas: shared by `up` and `deploy`."""
    parser.add_argument(
        "--engine",
        default="",
        metavar="NAME",
        help="what runs the replicas of this home: embedded, podman, docker (default: as before, at first embedded)"
        + more,
    )


def canary(text: str) -> Canary:
    """Read how a new revision gets its requests."""
    from corten.core.canary import parse_canary

    return parse_canary(text)


def percent(text: str) -> int:
    """Read a share in percent, 1 to 100."""
    number = text.removesuffix("%")
    if not number.isdecimal() or not 1 <= int(number) <= 100:
        raise argparse.ArgumentTypeError(f"expected a share from 1 to 100 percent, got `{text}`")
    return int(number)


def sticky(text: str) -> str:
    """Read the name of a header."""
    from corten.core.canary import parse_sticky

    return parse_sticky(text)


def add_canary(parser: argparse.ArgumentParser) -> None:
    """How a new revision gets its requests: shared by `up` and `deploy`."""
    parser.add_argument(
        "--canary",
        type=canary,
        default=None,
        metavar="SHARES",
        help="give a new revision a share of the requests first: auto (5, 25, 50 %%, judged by what it answers), "
        "1,10,50 (judged), 10%% (until `corten promote`), off",
    )
    parser.add_argument(
        "--mirror",
        type=percent,
        default=None,
        metavar="PERCENT",
        help="a new revision gets no request but copies of so many, and its answers are compared, until you promote it",
    )
    parser.add_argument(
        "--sticky",
        type=sticky,
        default=None,
        metavar="HEADER",
        help="with a canary: requests with the same value of this header go to the same revision",
    )
    parser.add_argument("--wait", action="store_true", help="with a canary: until it has all requests or none")


def add_access(parser: argparse.ArgumentParser) -> None:
    """Who may ask and how often: shared by `up` and `deploy`."""
    parser.add_argument(
        "--auth",
        choices=("none", "token"),
        default=None,
        help="whether requests must show a token of `corten token` (default: as it is)",
    )
    parser.add_argument(
        "--rate", type=rate, default=None, metavar="N", help="requests a second over time; more get 429 (default: any)"
    )
    parser.add_argument("--burst", type=rate, default=None, metavar="N", help="requests at once (default: as --rate)")
    parser.add_argument(
        "--pinnable", action="store_true", help="let clients choose a revision: `x-corten-revision: r3`"
    )


def add_requests(parser: argparse.ArgumentParser) -> None:
    """What of a request the gateway takes: shared by `up` and `deploy`."""
    parser.add_argument(
        "--max-body", type=size, default=None, metavar="SIZE", help="the largest request, as 64m (default: the model's)"
    )
    parser.add_argument(
        "--request-timeout",
        type=seconds,
        default=None,
        metavar="SECONDS",
        help="how long an answer may be silent (default: the model's)",
    )
    parser.add_argument(
        "--no-resend",
        action="store_true",
        help="a request that a replica had when it ended is not sent to another: it may do something twice",
    )


def rate(text: str) -> int:
    """Read a number of requests, 1 to a million."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1000000, got `{text}`")
    return int(text)


def days(text: str) -> float:
    """Read a time in days, up to ten years."""
    try:
        time_days = float(text)
    except ValueError:
        time_days = 0.0
    if not 0 < time_days <= 3650:
        raise argparse.ArgumentTypeError(f"expected up to 3650 days, got `{text}`")
    return time_days


def add_strategy(parser: argparse.ArgumentParser) -> None:
    """How a new revision follows the one before: shared by `up` and `deploy`."""
    parser.add_argument(
        "--strategy",
        choices=("auto", "surge", "hold-and-swap"),
        default=None,
        help="surge (the new beside the old), hold-and-swap (requests wait while one ends and the other starts), "
        "auto (default: surge, unless two do not fit into the memory)",
    )


def megabytes(text: str) -> float:
    """Read a size in MB (10^6 bytes): 0 or more."""
    try:
        size_mb = float(text)
    except ValueError:
        size_mb = -1.0
    if not 0 <= size_mb < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of MB, got `{text}`")
    return size_mb


def seconds(text: str) -> float:
    """Read a time in seconds: 0 or more."""
    try:
        time_s = float(text)
    except ValueError:
        time_s = -1.0
    if not 0 <= time_s < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got `{text}`")
    return time_s


def add_source(parser: argparse.ArgumentParser) -> None:
    """The source and what can be said about it: shared by `build` and `up`."""
    parser.add_argument("source", help="model file, `file.py:Class`, or a folder with corten.toml")
    parser.add_argument("--name", default="", help="the deployment's and image's name (default: from the source)")
    parser.add_argument(
        "-r",
        "--requirement",
        action="append",
        default=[],
        metavar="REQ",
        help="a Python requirement besides the inferred ones, e.g. `lightgbm==4.6.0`; repeatable",
    )
    parser.add_argument("--method", default="", help="what to call: predict (default), predict_proba, transform ...")
    parser.add_argument(
        "--file", action="append", default=[], type=Path, metavar="PATH", help="one more file for /models; repeatable"
    )
    parser.add_argument(
        "--base",
        default="",
        metavar="REF",
        help="an image to build on, REGISTRY/REPOSITORY:TAG@DIGEST, not Debian's packages (default: corten.toml's)",
    )
    parser.add_argument(
        "--accelerate",
        choices=("off", "auto", "require"),
        default=None,
        help="answer by ONNX Runtime where the model's ONNX form answers the same (default: corten.toml's, else off)",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="sha256:DIGEST|FILE",
        help="let this model file name what no model needs: it may run anything in the replica; repeatable",
    )
    parser.add_argument("--locked", action="store_true", help="fail if corten.lock would have to change")
    parser.add_argument(
        "--frozen", action="store_true", help="take corten.lock as it is, without asking whether it still fits"
    )
    parser.add_argument("--offline", action="store_true", help="open no connection; use what is in the cache")


def add_registry_trust(parser: argparse.ArgumentParser) -> None:
    """Whom to believe to be the registry: shared by all verbs that push or pull."""
    parser.add_argument(
        "--ca", type=Path, default=None, metavar="FILE", help="a PEM file of authorities besides the system's"
    )
    parser.add_argument(
        "--plain-http", action="store_true", help="no TLS (on this machine it is found out, elsewhere never)"
    )


def add_platform(parser: argparse.ArgumentParser) -> None:
    """Which one of an image for several: shared by all verbs that look at one."""
    parser.add_argument(
        "--platform", default="", metavar="OS/ARCH", help="of an image for several (default: this machine's)"
    )


def platform_of(options: argparse.Namespace) -> Platform | None:
    """What `add_platform` was told; None: this machine's. Raises UsageError."""
    from corten.core.platform import Platform

    return Platform.parse(options.platform) if options.platform else None
