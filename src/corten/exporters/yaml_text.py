"""YAML to be read by others: block style, keys in the order given, the same bytes each time.

Only output, and only what JSON has: mappings with text keys, lists, texts, numbers, booleans, null. A text is written
plain where no YAML reader, of 1.1 or 1.2, could take it for something else (`no`, `1e3`, `0x1`, `2026-01-01`), and as
a JSON string, which YAML's double-quoted scalar is (YAML 1.2, 5.7 and 7.3.1), everywhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Not led by a digit or a sign, and nothing that means anything in YAML: `:` and `#` are not among these.
_PLAIN = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.@-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})
# Not printable in YAML (5.1), or breaks of lines and marks that readers of 1.1 fold or drop.
_TO_ESCAPE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Raw:
    """Text that goes into the output as it is: an expression of a template language."""

    text: str


def to_yaml(value: Any) -> str:
    """One document, without `---`."""
    return "\n".join(_lines(value)) + "\n"


def documents(values: Iterable[Any]) -> str:
    """Several documents, each led by `---`."""
    return "".join(f"---\n{to_yaml(value)}" for value in values)


def _lines(value: Any) -> Iterator[str]:
    match value:
        case Mapping() if value:
            for key, inner in value.items():
                yield from _after(f"{_scalar(key)}:", inner, indented=not _is_list(inner))
        case _ if _is_list(value) and value:
            for inner in value:
                first, *rest = _lines(inner)
                yield f"- {first}"
                yield from (f"  {line}" if line else line for line in rest)
        case _:
            yield _scalar(value)


def _after(head: str, value: Any, *, indented: bool) -> Iterator[str]:
    if not isinstance(value, Mapping | list | tuple) or not value:
        yield f"{head} {_scalar(value)}"
        return
    yield head
    # A list may stand as deep as its key (8.2.1), as most write it.
    yield from (f"  {line}" if indented and line else line for line in _lines(value))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _scalar(value: Any) -> str:
    match value:
        case Raw(text):
            return text
        case str():
            return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else _quoted(value)
        case Mapping():
            return "{}"
        case list() | tuple():
            return "[]"
        case _:
            return json.dumps(value, allow_nan=False)


def _quoted(text: str) -> str:
    # Lone surrogates are no Unicode text: they cannot be written in UTF-8 at all.
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return _TO_ESCAPE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(clean, ensure_ascii=False))
