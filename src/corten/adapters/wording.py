"""msgspec's refusals in the words of an API: "expected a string, got an integer", not "Expected `str`, got `int`"."""

from __future__ import annotations

import re

_WORDS = {
    "float": "a number",
    "int": "an integer",
    "bool": "true or false",
    "str": "a string",
    "bytes": "text in base64",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
# What follows the type may say more of it: `>= 1`, `of length 3`. Compiled (and kept, by `re`) when the first request
# is wrong: no start waits for that.
_TYPES = r"^Expected `(?P<expected>[^`]*)`(?P<more>.*?)(?:, got (?:`(?P<kind>[^`]*)`|(?P<seen>[^`]*)))?$"


def in_words(refusal: str) -> str:
    """What msgspec says of one value, without its place; what it does not know stays as it is."""
    found = re.match(_TYPES, refusal, re.DOTALL)
    if found is None:
        return refusal
    seen = _words(found["kind"]) if found["kind"] else found["seen"]
    return f"expected {_words(found['expected'])}{found['more']}" + (f", got {seen}" if seen else "")


def _words(types: str) -> str:
    return " or ".join(_WORDS.get(name, name) for name in types.split(" | "))
