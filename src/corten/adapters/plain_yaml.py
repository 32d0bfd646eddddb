"""Read the YAML that programs write for settings: nested block mappings and lists of plain and quoted scalars.

A strict part of YAML 1.1 as PyYAML dumps it (`MLmodel`, `conda.yaml`); anchors, tags, block scalars and filled flow
collections are refused by line, never guessed at. PyYAML itself would go into every image for three short files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

_MAX_DEPTH = 32
_KEY = re.compile(
    r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s"'#&*!|>%@`{}\[\],?-](?:[^:#]|:(?=\S)|(?<=\S)#)*?)\s*:(?:\s+|$)"""
)
_DOUBLE_QUOTED = re.compile(r'((?:[^"\\]|\\.)*)"')
_ESCAPES = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b", " ": " ",
    '"': '"', "/": "/", "\\": "\\", "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029",
}  # fmt: skip
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_EMPTY: dict[str, Any] = {"{}": {}, "[]": []}


class YamlError(ValueError):
    """The text is no YAML this reader knows; `line` counts from 1."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    indent: int
    text: str


def read(text: str) -> Any:
    """The value of a document; None for an empty one. Raises YamlError."""
    lines = []
    for number, raw in enumerate(text.splitlines(), 1):
        content = raw.strip()
        if "\t" in raw[: len(raw) - len(raw.lstrip())]:
            raise YamlError(number, "a tab indents it")
        lines.append(_Line(number, len(raw) - len(raw.lstrip(" ")), content))
    if lines and lines[0].text == "---":
        del lines[0]
    reader = _Reader(lines)
    value = reader.block(-1, 0)
    reader.ended()
    return value


class _Reader:
    def __init__(self, lines: list[_Line]) -> None:
        self._lines = lines
        self._at = 0

    def ended(self) -> None:
        if line := self._next():
            self._fail(line, "it is indented unlike the lines before it")

    def block(self, parent: int, depth: int, *, lists_at: int | None = None) -> Any:
        """The value on the lines indented deeper than `parent`; a list may also stand at `lists_at`."""
        line = self._next()
        if line is None or (line.indent <= parent and not (line.indent == lists_at and _is_item(line.text))):
            return None
        if depth > _MAX_DEPTH:
            self._fail(line, "values are nested too deep")
        if _is_item(line.text):
            return self._list(line.indent, depth)
        if _KEY.match(line.text):
            return self._mapping(line.indent, depth)
        self._at += 1
        return self._scalar(line, line.text, parent)

    def _list(self, indent: int, depth: int) -> list[Any]:
        items = []
        while (line := self._next()) and line.indent == indent and _is_item(line.text):
            rest = line.text[1:].lstrip()
            if not rest or rest.startswith("#"):
                self._at += 1
                items.append(self.block(indent, depth + 1))
            else:
                # What follows the dash stands as if on a line of its own, indented to where it is.
                offset = len(line.text) - len(rest)
                self._lines[self._at] = _Line(line.number, indent + offset, rest)
                items.append(self.block(indent, depth + 1))
        return items

    def _mapping(self, indent: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (line := self._next()) and line.indent == indent and not _is_item(line.text):
            name = _KEY.match(line.text)
            if not name:
                self._fail(line, "a key and `:` are expected")
            key = str(self._unquoted(line, name[1]))
            if key in found:
                self._fail(line, f"key `{key[:40]}` comes twice")
            self._at += 1
            rest = line.text[name.end() :]
            if not rest or rest.startswith("#"):
                found[key] = self.block(indent, depth + 1, lists_at=indent)
            else:
                found[key] = self._scalar(line, rest, indent)
        return found

    def _scalar(self, line: _Line, text: str, indent: int) -> Any:
        """A scalar that begins on a line already taken, with its further lines."""
        if text[0] == "'":
            return self._quoted(line, text[1:], double=False)
        if text[0] == '"':
            return self._quoted(line, text[1:], double=True)
        parts = [_without_comment(text)]
        while (following := self._next()) and following.indent > indent and parts[-1]:
            if parts[0] in _EMPTY or _KEY.match(following.text):
                self._fail(following, "it is indented under a value")
            parts.append(_without_comment(following.text))
            self._at += 1
        return self._resolved(line, " ".join(parts))

    def _quoted(self, line: _Line, first: str, *, double: bool) -> str:
        parts: list[str] = []
        text = first
        while True:
            closed = (
                _DOUBLE_QUOTED.match(text) if double else re.fullmatch(r"((?:[^']|'')*)'(?!')(?:\s*(?:#.*)?)", text)
            )
            if closed:
                if double and _without_comment(text[closed.end() :]):
                    self._fail(line, "something follows the closing quote")
                parts.append(closed[1])
                folded = _folded(parts)
                return self._escaped(line, folded) if double else folded.replace("''", "'")
            parts.append(text)
            if self._at >= len(self._lines):
                self._fail(line, "a quote is not closed")
            text = self._lines[self._at].text
            self._at += 1

    def _escaped(self, line: _Line, text: str) -> str:
        def one(match: re.Match[str]) -> str:
            code = match[1]
            if code[0] in "xuU" and len(code) > 1:
                return chr(int(code[1:], 16))
            if code not in _ESCAPES:
                self._fail(line, f"`\\{code}` is no escape")
            return _ESCAPES[code]

        return _ESCAPE.sub(one, text)

    def _unquoted(self, line: _Line, text: str) -> str:
        if text[0] == '"':
            return self._escaped(line, text[1:-1])
        return text[1:-1].replace("''", "'") if text[0] == "'" else text

    def _resolved(self, line: _Line, text: str) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        if text in _EMPTY:
            return json.loads(text)
        if text[0] in "&*!|>%@`{[":
            self._fail(line, f"`{text[:20]}` is more of YAML than is read here")
        if _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) else text

    def _next(self) -> _Line | None:
        """The next line that holds something."""
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.text and not line.text.startswith("#"):
                return line
            self._at += 1
        return None

    def _fail(self, line: _Line, why: str) -> NoReturn:
        raise YamlError(line.number, why)


def _is_item(text: str) -> bool:
    return text == "-" or text.startswith("- ")


def _without_comment(text: str) -> str:
    return "" if text.lstrip().startswith("#") else text.partition(" #")[0].strip()


def _folded(parts: list[str]) -> str:
    """Lines of a quoted scalar: a line break is a space, an empty line a line break, one after a backslash nothing."""
    text = parts[0]
    blank = 0
    for part in parts[1:]:
        if not part:
            blank += 1
        elif text.endswith("\\") and not text.endswith("\\\\"):
            text = text[:-1] + part
        else:
            text = text.rstrip() + ("\n" * blank or " ") + part
            blank = 0
    return text
