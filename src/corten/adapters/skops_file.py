"""Read what a skops file holds without skops: a zip with `schema.json` and one `.npy` or `.npz` an array.

The schema is a tree of nodes (`__module__`, `__class__`, `__loader__`, `content`), see skops/io/_general.py.
"""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from corten.adapters.broken_zip import BROKEN_ZIP
from corten.adapters.corrupt import corrupt
from corten.adapters.standins import KEEP_BYTES, Array, Contents, ElementType, Global, Made, is_shape

_SCHEMA = "schema.json"
_MAX_SCHEMA_BYTES = 256 << 20
_MAX_DEPTH = 200


def is_skops(path: Path) -> bool:
    """Whether the file is a zip with a schema of skops; never raises for content."""
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            return _SCHEMA in archive.namelist()
    except BROKEN_ZIP:
        return False


def read_skops(path: Path) -> Contents:
    """Read a skops file. Raises UsageError (`adapter.corrupt_model`) for anything that is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(_SCHEMA)
            if info.file_size > _MAX_SCHEMA_BYTES:
                raise ValueError(f"its {_SCHEMA} has {info.file_size} bytes")
            schema = json.loads(archive.read(info))
            if not isinstance(schema, dict) or "__loader__" not in schema:
                raise ValueError(f"its {_SCHEMA} is not one of skops")
            reader = _Reader(archive)
            root = reader.value(schema)
    except (*BROKEN_ZIP, KeyError) as error:
        hint = "save the model again with `skops.io.dump`"
        raise corrupt(path, "is not a complete skops file", error, hint=hint) from error
    versions = {"skops": version} if isinstance(version := schema.get("_skops_version"), str) else {}
    return Contents(root, frozenset(_globals(schema)), "skops", versions)


def _globals(schema: object) -> Iterator[Global]:
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if isinstance(node.get("__module__"), str) and isinstance(node.get("__class__"), str):
                yield Global(node["__module__"], node["__class__"])
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)


class _Reader:
    """Nodes to stand-ins. Nodes refer to earlier ones by id; those become None, which loses nothing told here."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._depth = 0

    def value(self, node: object) -> object:
        if not isinstance(node, dict):
            return node
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError("its schema is nested too deep")
        try:
            return self._read(node)
        finally:
            self._depth -= 1

    def _read(self, node: Mapping[str, Any]) -> object:
        content = node.get("content")
        match node.get("__loader__"):
            case "JsonNode" if isinstance(content, str):
                return json.loads(content)
            case "DictNode" if isinstance(content, dict):
                return {str(key): self.value(child) for key, child in content.items()}
            case "ListNode" if isinstance(content, list):
                return [self.value(child) for child in content]
            case "TupleNode" if isinstance(content, list):
                return tuple(self.value(child) for child in content)
            case "NdArrayNode" if isinstance(node.get("file"), str):
                return self._array(node["file"])
            case "NdArrayNode" if node.get("type") == "json":
                return self._object_array(node)
            case _:
                made = Made(Global(str(node.get("__module__")), str(node.get("__class__"))))
                state = self.value(content)
                made.state = state if isinstance(state, dict) else {}
                return made

    def _object_array(self, node: Mapping[str, Any]) -> Array | None:
        content = node.get("content")
        items = [self.value(child) for child in content] if isinstance(content, list) else None
        shape = self.value(node.get("shape"))
        if items is None or not isinstance(shape, (list, tuple)) or not is_shape(tuple(shape)):
            return None
        return Array(ElementType("O", 8, has_objects=True), tuple(shape), items=tuple(items))

    def _array(self, name: str) -> Array | None:
        """Read an `.npy` (format in numpy/lib/format.py): magic, version, header length, a dict literal, the bytes."""
        if not name.endswith(".npy"):
            return None
        with self._archive.open(name) as stream:
            magic = stream.read(8)
            if not magic.startswith(b"\x93NUMPY"):
                raise ValueError(f"its member {name} is no array")
            length = int.from_bytes(stream.read(2 if magic[6] == 1 else 4), "little")
            header = ast.literal_eval(stream.read(min(length, KEEP_BYTES)).decode("latin-1"))
            code, shape = header["descr"], header["shape"]
            if not isinstance(code, str) or len(code) < 3 or not is_shape(shape):
                return None
            size = int(code[2:].partition("[")[0]) * (4 if code[1] == "U" else 1)
            found = Array(ElementType(code[1], size, code[1] == "O", code[0] == ">"), shape)
            total = found.length * size
            return Array(found.dtype, shape, data=stream.read(total)) if total <= KEEP_BYTES else found
