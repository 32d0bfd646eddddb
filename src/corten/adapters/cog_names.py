"""What a Cog predictor imports, for images without Cog: `import cog` finds this module there.

The names and their meaning are those of Cog's Python reference (docs/python.md in its repository); written from that,
not from its code.
"""

from __future__ import annotations

import base64
import dataclasses
import mimetypes
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, Generic, Self, TypeVar, dataclass_transform
from urllib.parse import unquote_to_bytes

__all__ = ["BaseModel", "BasePredictor", "ConcatenateIterator", "Input", "Path", "Secret"]

_Item_co = TypeVar("_Item_co", covariant=True)
_REQUIRED: Any = object()


class BasePredictor:
    """What a predictor inherits from; `setup` is optional."""

    def setup(self) -> None:
        """Load the model. Nothing by default."""


@dataclasses.dataclass(frozen=True)
class Field:
    """An argument as `Input(...)` describes it."""

    default: Any = _REQUIRED
    description: str | None = None
    ge: float | None = None
    le: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    regex: str | None = None
    choices: list[Any] | None = None
    deprecated: bool | None = None

    @property
    def is_required(self) -> bool:
        """Whether a request must have it."""
        return self.default is _REQUIRED


def Input(default: Any = _REQUIRED, **described: Any) -> Any:  # noqa: N802  # Cog's name
    """Describe an argument of `predict`; raises TypeError for what Cog does not know either."""
    return Field(default, **described)


class Path(pathlib.PosixPath):
    """A file: in a request a `data:` URI, in an answer one again. Replicas reach no network, so other URLs do not."""

    @classmethod
    def model_validate(cls, value: Any) -> Self:
        """Write a data URI's content to a file of its own, which is gone after the call."""
        head, comma, content = value.partition(",") if isinstance(value, str) else ("", "", "")
        if not comma or not head.startswith("data:"):
            raise ValueError("expected a file as a data: URI")
        data = base64.b64decode(content, validate=True) if head.endswith(";base64") else unquote_to_bytes(content)
        suffix = mimetypes.guess_extension(head[5:].partition(";")[0]) or ""
        handle, name = tempfile.mkstemp(suffix)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        return cls(name)

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """How OpenAPI is told of it."""
        return {"type": "string", "format": "uri"}

    def model_dump(self, *, mode: str = "json") -> str:
        """The file's content as a data URI."""
        del mode
        kind = mimetypes.guess_type(self.name)[0] or "application/octet-stream"
        return f"data:{kind};base64,{base64.b64encode(self.read_bytes()).decode()}"


class Secret:
    """A text that does not show in logs."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        """The text."""
        return self._value

    @classmethod
    def model_validate(cls, value: Any) -> Self:
        """Make one of a request's text."""
        if not isinstance(value, str):
            raise ValueError("expected a text")  # noqa: TRY004  # what becomes a 422 with its path
        return cls(value)

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """How OpenAPI is told of it."""
        return {"type": "string", "format": "password"}

    def __repr__(self) -> str:
        return "Secret('**********')"

    __str__ = __repr__


@dataclass_transform(kw_only_default=True)
class BaseModel:
    """An answer of several parts: a dataclass of the fields its class names."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclasses.dataclass(kw_only=True)(cls)


class ConcatenateIterator(Iterator[_Item_co], Generic[_Item_co]):
    """The type of an answer whose parts make one text."""

    joins_pieces = True
