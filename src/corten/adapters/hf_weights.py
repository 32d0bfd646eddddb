"""Find the files of a Hugging Face folder: its tokenizer, and its weights as an ONNX graph or as safetensors."""

from __future__ import annotations

from pathlib import Path

import msgspec

from corten.adapters.base import SourceFile
from corten.adapters.hf_documents import TOKENIZER, TOKENIZER_CONFIG, broken, check_there, mapping, place_in, unfit
from corten.adapters.onnx_external import external_files
from corten.adapters.onnx_file import is_onnx, read_onnx
from corten.adapters.safetensors_file import is_safetensors, read_safetensors
from corten.errors import PolicyError, UsageError

WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_ONNX_PLACES = ("model.onnx", "onnx/model.onnx")
_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})


def tokenizer_files(folder: Path, base: str) -> list[str]:
    """The names of the tokenizer's files. Raises UsageError `adapter.missing_weights`."""
    prefix = f"{base}/" if base else ""
    # sentence-transformers may keep the tokenizer beside modules.json, and the network below.
    place = next((one for one in (prefix, "") if (folder / f"{one}{TOKENIZER}").is_file()), None)
    if place is None:
        raise UsageError(
            "adapter.missing_weights",
            f"`{folder.name}` has no `{TOKENIZER}`",
            where=str(folder / base),
            why="the other forms of a tokenizer need the code of its family",
            hint="write it: `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`",
        )
    _check_tokenizer(folder / f"{place}{TOKENIZER}")
    config = f"{place}{TOKENIZER_CONFIG}"
    return [f"{place}{TOKENIZER}", *([config] if (folder / config).is_file() else [])]


def _check_tokenizer(path: Path) -> None:
    check_there(path)
    try:
        # A vocabulary may take tens of megabytes: looked through, and nothing made of it.
        msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise broken(path, error) from error


def onnx_graph(folder: Path, base: str, chosen: str) -> tuple[str, tuple[str, ...]]:
    """The graph to run and the others there; nothing for a folder without one."""
    prefix = f"{base}/" if base else ""
    found = sorted(
        file.relative_to(folder).as_posix()
        for place in (folder / base, folder / base / "onnx")
        if place.is_dir()
        for file in place.glob("*.onnx")
    )
    if chosen:
        return chosen, tuple(name for name in found if name != chosen)
    first = next((f"{prefix}{name}" for name in _ONNX_PLACES if f"{prefix}{name}" in found), "")
    if not first and len(found) > 1:
        raise UsageError(
            "build.several_models",
            f"`{folder.name}` holds {len(found)} ONNX files and no `model.onnx`",
            where=str(folder),
            why=", ".join(found[:8]),
            hint=f'name one in corten.toml: `files = ["{found[0]}"]`',
        )
    taken = first or (found[0] if found else "")
    return taken, tuple(name for name in found if name != taken)


def onnx_files(folder: Path, name: str) -> tuple[SourceFile, ...]:
    """The graph and the files it keeps its weights in. Raises UsageError for one that takes no texts."""
    path = folder / name
    check_there(path)
    if not is_onnx(path):
        raise broken(path, "it does not start as ONNX files do")
    model = read_onnx(path)
    inputs = {tensor.name for tensor in model.inputs}
    if not {"input_ids"} <= inputs <= _INPUTS:
        raise unfit(
            path,
            f"its graph takes {', '.join(sorted(inputs)) or 'nothing'}",
            known=", ".join(sorted(_INPUTS)) + "; images, decoders and caches are not",
        )
    if any(size is not None for tensor in model.inputs for size in tensor.shape):
        raise unfit(path, "its graph takes texts of one length only", known="free axes for texts and tokens")
    prefix = name.rpartition("/")[0]
    beside = external_files(path, model)
    return (
        SourceFile(path, name),
        *(SourceFile(file.path, f"{prefix}/{file.name}" if prefix else file.name) for file in beside),
    )


def safetensors(folder: Path, base: str) -> tuple[SourceFile, ...]:
    """The weights, in one file or in shards with their index, each looked into."""
    prefix = f"{base}/" if base else ""
    place = folder / base
    names = [WEIGHTS]
    if (place / _INDEX).is_file():
        shards = mapping(place / _INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise broken(place / _INDEX, "it has no weight_map")
        names = [_INDEX, *sorted({place_in(str(name), place / _INDEX) for name in shards.values()})]
    elif not (place / WEIGHTS).is_file():
        raise no_weights(place, folder)
    for name in names:
        check_there(place / name)
        if name != _INDEX:
            if not is_safetensors(place / name):
                raise broken(place / name, "it does not start as safetensors files do")
            read_safetensors(place / name)
    return tuple(SourceFile(place / name, f"{prefix}{name}") for name in names)


def no_weights(place: Path, folder: Path) -> UsageError | PolicyError:
    """The error for a folder without weights, or with none that may be read."""
    pickled = sorted(file.name for pattern in _PICKLED for file in place.glob(pattern))
    if pickled:
        return PolicyError(
            "adapter.pickled_weights",
            f"`{folder.name}` has its weights in a pickle, `{pickled[0]}`",
            where=str(place / pickled[0]),
            why="unpickling runs what the file names",
            hint="save them as safetensors: `AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)` with the class "
            "config.json names, where you trust the file",
        )
    return UsageError(
        "adapter.missing_weights",
        f"`{folder.name}` has no weights",
        where=str(place),
        why=f"looked for {', '.join(_ONNX_PLACES)}, {WEIGHTS} and {_INDEX}",
        hint="download the whole folder, or save the model there: `model.save_pretrained(FOLDER)`",
    )
