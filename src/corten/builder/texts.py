"""What texts in a project's settings may be.

Settings may come from a stranger's repository, and end up in paths, requirement lines, labels, environments and on
terminals: what has no business there is refused by its key, before anything is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from corten.builder.debian.release import PACKAGE_NAME
from corten.builder.pylock import check_requirement
from corten.errors import UsageError

if TYPE_CHECKING:
    from corten.builder.source import Table

_LONGEST_PATH = 4096  # PATH_MAX
_LONGEST_LINE = 4096
_LONGEST_LABEL = 64 << 10
# The kernel's limit for one string of an environment (execve(2), MAX_ARG_STRLEN), the name within.
_LONGEST_VARIABLE = 128 << 10
_LONGEST_KEY = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PYTHON = re.compile(r"3\.[0-9]{1,2}")
_SHOWN = 60

# What is wrong with a text; empty when it is right.
_Rule = Callable[[str], str]


def check_texts(table: Table, called: str, where: str) -> None:
    """Raise UsageError `source.bad_config` for the first text that cannot be meant, naming its key."""
    for key, text, rule in _texts(table):
        if why := rule(text):
            raise UsageError(
                "source.bad_config",
                f"`{key}` in {called} is not a text Corten takes",
                where=where,
                why=f"{why}, got {_printable(text)}",
                hint=f"correct `{key.partition('.')[0]}`",
            )


def _texts(table: Table) -> Iterator[tuple[str, str, _Rule]]:
    for key in fields(table):
        match getattr(table, key.name):
            case str() as text if key.name not in _ELSEWHERE:
                yield key.name, text, _RULES.get(key.name, _line)
            case tuple() as texts:
                yield from ((key.name, text, _RULES.get(key.name, _line)) for text in texts)
            case dict() as texts:
                name_rule, rule = _TABLES[key.name]
                for name, text in texts.items():
                    yield key.name, name, name_rule
                    yield f"{key.name}.{name}", text, rule
            case _:
                pass  # numbers and the like


def _line(text: str) -> str:
    if _CONTROL.search(text):
        return "expected one line without control characters"
    return f"expected at most {_LONGEST_LINE} characters" if len(text) > _LONGEST_LINE else ""


def _path(text: str) -> str:
    if _CONTROL.search(text):
        return "expected a path without control characters"
    size = len(text.encode("utf-8", "surrogatepass"))
    return f"expected a path of at most {_LONGEST_PATH} bytes" if size >= _LONGEST_PATH else ""


def _requirement(text: str) -> str:
    if why := _line(text):
        return why
    try:
        check_requirement(text)
    except UsageError as error:
        return error.why
    return ""


def _package(text: str) -> str:
    known = PACKAGE_NAME.fullmatch(text) and len(text) <= _LONGEST_KEY
    return "" if known else "expected the name of a Debian package, such as `libgomp1`"


def _python(text: str) -> str:
    return "" if not text or _PYTHON.fullmatch(text) else "expected a minor version, such as `3.13`"


def _method(text: str) -> str:
    known = text.isidentifier() and len(text) <= _LONGEST_KEY
    return "" if not text or known else "expected the name of a method"


def _label_name(text: str) -> str:
    known = 0 < len(text) <= _LONGEST_KEY and not _CONTROL.search(text)
    return "" if known else f"expected names of 1 to {_LONGEST_KEY} characters on one line"


def _label(text: str) -> str:
    if "\0" in text:
        return "expected a text without NUL"
    return f"expected at most {_LONGEST_LABEL} characters" if len(text) > _LONGEST_LABEL else ""


def _variable_name(text: str) -> str:
    known = _VARIABLE.fullmatch(text) and len(text) <= _LONGEST_KEY
    return "" if known else "expected names of letters, digits and `_`"


def _variable(text: str) -> str:
    if "\0" in text:
        return "expected a text without NUL"
    size = len(text.encode("utf-8", "surrogatepass"))
    return f"expected at most {_LONGEST_VARIABLE} bytes" if size > _LONGEST_VARIABLE - _LONGEST_KEY - 2 else ""


# `name` is left to core.name, `compression` to the type it has.
_ELSEWHERE = ("name", "compression")
# A key that has no rule of its own is a line of text.
_RULES: dict[str, _Rule] = {
    "source": _path,
    "files": _path,
    "requirements": _requirement,
    "packages": _package,
    "python": _python,
    "method": _method,
}
_TABLES: dict[str, tuple[_Rule, _Rule]] = {"labels": (_label_name, _label), "env": (_variable_name, _variable)}


def _printable(text: str) -> str:
    shown = ascii(text[:_SHOWN])
    return f"{shown} and {len(text) - _SHOWN} more characters" if len(text) > _SHOWN else shown
