"""Load a pickle or joblib file inside the image, letting it name only what `allowlist` has.

The check is here, where objects are made, so it holds whatever the builder's reader understood of the file. joblib's
arrays are read here too, not by joblib: its releases before 1.6 load nested object arrays with an unpickler of their
own, past any `find_class`.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from corten.adapters.allowlist import Verdict, is_named, judge, may_be_class, may_be_function, modern
from corten.adapters.plainfile import open_plain
from corten.adapters.standins import Global
from corten.core.digest import Digest
from corten.errors import PolicyError

if TYPE_CHECKING:
    import numpy as np

_ARRAY_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_Find = Callable[[str, str], Any]
_BYTES_CODECS = frozenset({"latin1", "latin-1", "iso-8859-1"})


class RefusedGlobalError(Exception):
    """A file names what no model needs."""

    def __init__(self, found: Global) -> None:
        super().__init__(str(found))
        self.found = found


class _JoblibFileError(Exception):
    """The file has joblib's arrays, so the C unpickler cannot read on."""


def load_pickle(path: Path, trusted: Collection[str] = ()) -> Any:
    """The object in a pickle or joblib file, compressed or not.

    `trusted` are digests (`sha256:...`) of files that may name anything: the file's own is compared, at each load.
    Raises PolicyError (`adapter.refused_global`) before anything that is not on the list is imported or called, and
    what `pickle` raises for broken files.
    """
    find = anything if is_trusted(path, trusted) else resolve
    try:
        with open_plain(path) as (stream, _):
            try:
                return _Restricted(stream, find).load()
            except _JoblibFileError:
                pass
        with open_plain(path) as (stream, _):
            return _RestrictedJoblib(stream, find).load()
    except RefusedGlobalError as error:
        raise refused(error.found, path, trusted) from error


def is_trusted(path: Path, trusted: Collection[str]) -> bool:
    """Whether the file is, byte for byte, one of those with these digests."""
    return bool(trusted) and str(Digest.of_file(path)) in trusted


def anything(module: str, name: str) -> Any:
    """Import whatever a trusted file names, as `pickle` does: dotted names walk attributes."""
    found = modern(Global(module, name))
    value: Any = importlib.import_module(found.module)
    for attribute in found.name.split("."):
        value = getattr(value, attribute)
    return value


def resolve(module: str, name: str) -> Any:
    """Import a global a model file names, if it is on the list and is what the list takes it for.

    Raises RefusedGlobalError.
    """
    found = modern(Global(module, name))
    if judge(found) is not Verdict.ALLOWED:
        raise RefusedGlobalError(found)
    value = getattr(importlib.import_module(found.module), found.name)
    if is_named(found):
        return _encode_latin if found == Global("_codecs", "encode") else value
    # A module also has what it imports, so it is the place where the value was defined that must be on the list.
    own = Global(str(getattr(value, "__module__", "")), found.name)
    fits = may_be_class(own) if isinstance(value, type) else may_be_function(own) and callable(value)
    if own.root != found.root or not fits:
        raise RefusedGlobalError(found)
    return value


def refused(found: Global, path: Path, trusted: Collection[str]) -> PolicyError:
    """The error for a global a model file must not name; where others were trusted, the file may have been changed."""
    digest = Digest.of_file(path)
    other = f"; what is trusted is {', '.join(trusted)}, this file is {digest}" if trusted else ""
    return PolicyError(
        "adapter.refused_global",
        f"the model file names `{found}`, which no model needs",
        where=str(path),
        why=f"loading a pickle runs what it names; only classes of known model packages are let through{other}",
        hint=f"save only the fitted estimator; if you made the file yourself: --trust {digest}",
    )


def _encode_latin(text: str, encoding: str = "latin1") -> bytes:
    # Protocols 0 to 2 write bytes as text that is encoded back; any other codec could inflate or run.
    if encoding not in _BYTES_CODECS:
        raise RefusedGlobalError(Global("_codecs", f"encode({encoding})"))
    return text.encode("latin-1")


class _Restricted(pickle.Unpickler):
    """The C unpickler, for plain pickles: ten times as fast on large vocabularies."""

    def __init__(self, stream: BinaryIO, find: _Find) -> None:
        super().__init__(stream)
        self._find = find

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _ARRAY_WRAPPER:
            raise _JoblibFileError
        return self._find(module, name)


class _Wrapper:
    """Stands for joblib's NumpyArrayWrapper: the attributes its pickle sets, and how to read what follows it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    numpy_array_alignment_bytes: int | None = None


class _RestrictedJoblib(pickle._Unpickler):  # noqa: SLF001  # joblib builds on it too
    """Python's own unpickler, as joblib uses it: it reads no further ahead than a frame, so arrays can follow."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # noqa: SLF001  # the same

    def __init__(self, stream: BinaryIO, find: _Find) -> None:
        super().__init__(stream)
        self._stream = stream
        self._find = find

    def find_class(self, module: str, name: str) -> Any:
        return _Wrapper if (module, name) == _ARRAY_WRAPPER else self._find(module, name)

    def load_build(self) -> None:
        super().load_build()  # type: ignore[misc]  # typeshed knows the class, not its operations
        stack: list[Any] = self.stack  # type: ignore[attr-defined]  # the same
        if isinstance(stack[-1], _Wrapper):
            stack[-1] = self._read_array(stack[-1])

    dispatch[pickle.BUILD[0]] = load_build

    def _read_array(self, wrapper: _Wrapper) -> Any:
        import numpy as np

        if wrapper.dtype.hasobject:
            return _RestrictedJoblib(self._stream, self._find).load()
        if wrapper.numpy_array_alignment_bytes is not None:
            self._stream.read(self._stream.read(1)[0])
        flat = np.empty(int(np.prod(wrapper.shape, dtype=np.int64)), dtype=wrapper.dtype)
        if flat.nbytes:
            _fill(memoryview(flat.view(np.uint8).data), self._stream)
        if not wrapper.dtype.isnative:
            flat = flat.byteswap().view(wrapper.dtype.newbyteorder("="))
        if wrapper.order == "F":
            return flat.reshape(wrapper.shape[::-1]).transpose()
        return flat.reshape(wrapper.shape)


def _fill(target: memoryview, stream: BinaryIO) -> None:
    done = 0
    while done < len(target):
        count = stream.readinto(target[done:])  # type: ignore[attr-defined]  # every stream of open_plain has it
        if not count:
            raise pickle.UnpicklingError(f"the file ends {len(target) - done} bytes before its array does")
        done += count
