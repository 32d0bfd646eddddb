"""msgspec's errors in the words of an API: which element, what was expected, what was seen."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from corten.adapters.wording import in_words
from corten.serve.job import RequestError, invalid, malformed

Body = TypeVar("Body")

# Compiled (and kept, by `re`) when the first request is wrong: no start waits for that.
_PLACE = r"^(?P<what>.*?)(?: - at `(?P<path>\$.*)`)?$"
_LONGEST_MESSAGE = 500
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(decoder: msgspec.json.Decoder[Body], body: bytes | bytearray) -> Body:
    """Decode, or raise RequestError: 400 for what is not JSON, 422 for another type than expected."""
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        raise unread(error) from error


def unread(error: Exception) -> RequestError:
    """What a decoder raised, one of UNREADABLE, in our words."""
    match error:
        case msgspec.ValidationError():
            return type_error(error)
        case UnicodeDecodeError():
            return malformed(f"not UTF-8: {error.reason} at byte {error.start}")
        case RecursionError():
            return malformed("nested too deeply")
        case _:
            return malformed(str(error)[:_LONGEST_MESSAGE])


def type_error(error: msgspec.ValidationError) -> RequestError:
    """Translate ``Expected `float`, got `str` - at `$.inputs[0][1]` ``."""
    found = re.match(_PLACE, str(error), re.DOTALL)
    what, path = (found["what"], found["path"] or "$") if found else (str(error), "$")
    return invalid(in_words(what)[:_LONGEST_MESSAGE], path.removeprefix("$").removeprefix("."))
