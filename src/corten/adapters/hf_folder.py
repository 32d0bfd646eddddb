"""Read what a Hugging Face folder says of itself: the task, where its weights are, what its tokenizer may take.

`config.json` is written by transformers' `save_pretrained`, `modules.json` by sentence-transformers' `save`; the ONNX
files' places are those of optimum and sentence-transformers. Nothing in a folder is run, and no code in it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from corten.adapters.base import SourceFile
from corten.adapters.corrupt import corrupt
from corten.adapters.onnx_external import external_files
from corten.adapters.onnx_file import is_onnx, read_onnx
from corten.adapters.safetensors_file import is_safetensors, read_safetensors
from corten.errors import PolicyError, UsageError

CONFIG, MODULES, TOKENIZER, TOKENIZER_CONFIG = "config.json", "modules.json", "tokenizer.json", "tokenizer_config.json"
PROMPTS, SENTENCE_CONFIG = "config_sentence_transformers.json", "sentence_bert_config.json"
_ADAPTER = "adapter_config.json"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_ONNX_PLACES = ("model.onnx", "onnx/model.onnx")
_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_MAX_JSON_BYTES = 64 << 20
_LFS = b"version https://git-lfs"
# Families that number positions from behind the padding's id (transformers, `create_position_ids_from_input_ids`).
_SHIFTED = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "data2vec-text", "xlm-roberta-xl"})
_NO_LIMIT = 1_000_000  # tokenizers that know none write 1e30


class Task(Enum):
    """What a folder answers; the values are Hugging Face's names."""

    EMBED = "sentence-similarity"
    CLASSIFY = "text-classification"
    TAG = "token-classification"
    FEATURES = "feature-extraction"


_TASKS = {
    "ForSequenceClassification": Task.CLASSIFY,
    "ForTokenClassification": Task.TAG,
    "Model": Task.FEATURES,
}


# Also what ends in `Model` and is more than an encoder.
_GENERATORS = ("ForCausalLM", "LMHeadModel", "DoubleHeadsModel", "ForConditionalGeneration", "EncoderDecoderModel")


class Activation(Enum):
    """What is done with a classifier's numbers."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Dense:
    """A layer behind the pooling, of sentence-transformers: its folder and whether it ends in tanh."""

    weights: str
    has_tanh: bool


@dataclass(frozen=True, slots=True)
class HfFolder:
    """A folder that can be served. Paths are names relative to it, posix.

    `base` is where the transformer lies ("" for the folder itself). `onnx` names the graph, empty when the weights are
    safetensors. `pooling` are sentence-transformers' modes in the order their vectors are joined; `prompts` by name.
    `needed` are all files the server reads, the main one first.
    """

    task: Task
    config: Mapping[str, Any]
    base: str
    onnx: str
    needed: tuple[SourceFile, ...]
    most_tokens: int | None
    lower: bool = False
    labels: tuple[str, ...] = ()
    activation: Activation = Activation.SOFTMAX
    pooling: tuple[str, ...] = ()
    dense: tuple[Dense, ...] = ()
    normalizes: bool = False
    prompts: Mapping[str, str] | None = None
    prompt: str = ""
    releases: Mapping[str, str] | None = None
    own_code: str = ""
    other_onnx: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """The class that was saved, as `BertForSequenceClassification`."""
        return _architecture(self.config)


def is_hf(folder: Path) -> bool:
    """Whether a folder is one of transformers or sentence-transformers; never raises for content."""
    try:
        config = _json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        if isinstance(config, dict) and ("model_type" in config or isinstance(config.get("architectures"), list)):
            return True
        if (folder / _ADAPTER).is_file():
            return "peft_type" in (_json(folder / _ADAPTER) or {})
        modules = _json(folder / MODULES) if (folder / MODULES).is_file() else []
        return isinstance(modules, list) and any(_module_kind(module) for module in modules)
    except (UsageError, TypeError):
        return False


def read_hf(folder: Path, chosen: str = "") -> HfFolder:
    """Read a folder; `chosen` names the ONNX file to take where there are several.

    Raises UsageError `adapter.unknown_task`, `adapter.missing_weights`, `adapter.corrupt_model`, `adapter.contract`;
    PolicyError `adapter.own_code`, `adapter.pickled_weights`.
    """
    if not (folder / CONFIG).is_file() and (folder / _ADAPTER).is_file():
        raise UsageError(
            "adapter.not_a_model",
            f"`{folder.name}` holds an adapter, not the model it is for",
            where=str(folder / _ADAPTER),
            why=f"{_ADAPTER} is PEFT's",
            hint="join them: `model.merge_and_unload().save_pretrained(FOLDER)`, and save the tokenizer there too",
        )
    sentence = _read_modules(folder) if (folder / MODULES).is_file() else None
    base = sentence.base if sentence else ""
    config = _mapping(folder / base / CONFIG)
    task = Task.EMBED if sentence else _task(config, folder / base / CONFIG)
    tokenizer = _tokenizer_files(folder, base)
    onnx, others = _onnx(folder, base, chosen)
    own_code = _own_code(folder / base, config)
    if own_code and not onnx:
        raise PolicyError(
            "adapter.own_code",
            f"`{folder.name}` needs code of its own, `{own_code}`",
            where=str(folder / base / CONFIG),
            why="its `auto_map` asks for `trust_remote_code`; Corten runs no code that comes with weights",
            hint="export it to ONNX, which needs none, or write a class you trust: `corten up file.py:Class`",
        )
    weights = _onnx_files(folder, onnx) if onnx else _safetensors(folder, base)
    named = [f"{base}/{CONFIG}" if base else CONFIG, *tokenizer]
    if sentence:
        named += [MODULES, *sentence.files]
    files = [SourceFile(folder / name, name) for name in dict.fromkeys(named)]
    for file in files:
        _check_there(file.path)
    return HfFolder(
        task=task,
        config=config,
        base=base,
        onnx=onnx,
        needed=(*files, *weights),
        most_tokens=_most_tokens(folder, base, config, sentence.most_tokens if sentence else None),
        labels=_labels(config, folder / base / CONFIG) if task in (Task.CLASSIFY, Task.TAG) else (),
        activation=_activation(config),
        lower=sentence.lower if sentence else False,
        pooling=sentence.pooling if sentence else (),
        dense=sentence.dense if sentence else (),
        normalizes=sentence.normalizes if sentence else False,
        prompts=sentence.prompts if sentence else None,
        prompt=sentence.prompt if sentence else "",
        releases=_releases(config, sentence),
        own_code=own_code,
        other_onnx=others,
    )


# --- sentence-transformers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sentence:
    base: str
    files: tuple[str, ...]
    pooling: tuple[str, ...]
    dense: tuple[Dense, ...]
    normalizes: bool
    lower: bool
    most_tokens: int | None
    prompts: Mapping[str, str]
    prompt: str
    releases: Mapping[str, str]


# In the order in which sentence-transformers joins their vectors (its models/Pooling.py).
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def _module_kind(module: Any) -> str:
    """`Pooling` for `sentence_transformers.models.Pooling`, wherever a release keeps it; empty for others' classes."""
    kind = module.get("type") if isinstance(module, dict) else None
    return kind.rpartition(".")[2] if isinstance(kind, str) and kind.startswith("sentence_transformers.") else ""


def _read_modules(folder: Path) -> _Sentence:
    path = folder / MODULES
    modules = _json(path)
    if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
        raise _corrupt(path, "it lists no modules")
    base, files, pooling, dense, normalizes = "", [], tuple[str, ...](), list[Dense](), False
    for number, module in enumerate(modules):
        kind, place = _module_kind(module), _place(str(module.get("path", "")), path)
        if not kind:
            raise PolicyError(
                "adapter.own_code",
                f"`{folder.name}` needs code of its own, `{module.get('type')}`",
                where=str(path),
                why="Corten runs no code that comes with weights",
                hint="write a class you trust that loads it: `corten up file.py:Class`",
            )
        match kind:
            case "Transformer" if number == 0:
                base = place
            case "Pooling" if not pooling:
                pooling = _pooling(folder / place / CONFIG)
                files.append(f"{place}/{CONFIG}")
            case "Normalize":
                normalizes = True
            case "Dense" if pooling and not normalizes:
                dense.append(_dense(folder, place))
                files += [f"{place}/{CONFIG}", dense[-1].weights]
            case "Dropout":
                pass  # nothing is dropped when a model answers
            case _:
                raise _contract(path, f"`{MODULES}` has a `{kind}` at place {number}, which is not known there")
    if not pooling:
        raise _contract(path, "it has no pooling, so it makes no vectors of sentences")
    told = folder / base / SENTENCE_CONFIG
    sentence = _mapping(told) if told.is_file() else {}
    settings = _mapping(folder / PROMPTS) if (folder / PROMPTS).is_file() else {}
    if sentence:
        files.append(f"{base}/{SENTENCE_CONFIG}" if base else SENTENCE_CONFIG)
    if settings:
        files.append(PROMPTS)
    prompts = {str(name): str(text) for name, text in (settings.get("prompts") or {}).items() if text}
    releases = settings.get("__version__")
    return _Sentence(
        base=base,
        files=tuple(files),
        pooling=pooling,
        dense=tuple(dense),
        normalizes=normalizes,
        lower=sentence.get("do_lower_case") is True,
        most_tokens=_count(sentence.get("max_seq_length")),
        prompts=prompts,
        prompt=prompts.get(str(settings.get("default_prompt_name")), ""),
        releases={str(name): str(text) for name, text in releases.items()} if isinstance(releases, dict) else {},
    )


def _pooling(path: Path) -> tuple[str, ...]:
    _check_there(path)
    told = _mapping(path)
    given = told.get("pooling_mode")
    modes = [given] if isinstance(given, str) else given
    if not isinstance(modes, list):
        modes = [mode for key, mode in _MODES.items() if told.get(key) is True]
    if not modes or not set(modes) <= set(_MODES.values()):
        raise _contract(
            path, f"its pooling is {', '.join(map(str, modes)) or 'none'}", known=", ".join(_MODES.values())
        )
    if told.get("include_prompt") is False:
        raise _contract(path, "its pooling leaves the prompt's tokens out, which is not known here")
    return tuple(str(mode) for mode in modes)


def _dense(folder: Path, place: str) -> Dense:
    path = folder / place / CONFIG
    _check_there(path)
    activation = str(_mapping(path).get("activation_function", "")).rpartition(".")[2]
    if activation not in ("Identity", "Tanh"):
        raise _contract(path, f"its layer ends in `{activation}`", known="Identity, Tanh")
    weights = f"{place}/{_WEIGHTS}"
    if not (folder / weights).is_file():
        raise _no_weights(folder / place, folder)
    read_safetensors(folder / weights)
    return Dense(weights, activation == "Tanh")


# --- config.json ----------------------------------------------------------------------------------------------------


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _task(config: Mapping[str, Any], path: Path) -> Task:
    architecture = _architecture(config)
    generates = architecture.endswith(_GENERATORS) or config.get("is_encoder_decoder") is True
    for ending, task in () if generates else _TASKS.items():
        if architecture.endswith(ending):
            return task
    known = ", ".join(task.value for task in Task)
    raise UsageError(
        "adapter.unknown_task",
        f"`{architecture or config.get('model_type')}` is for a task Corten does not serve from a folder",
        where=str(path),
        why=f"served are {known}" + ("; this one generates text" if generates else ""),
        hint="write a class with `predict` that loads it: `corten up file.py:Class`",
    )


def _own_code(base: Path, config: Mapping[str, Any]) -> str:
    """The first file of Python the folder asks to be run; empty for none."""
    tokenizer = _mapping(base / TOKENIZER_CONFIG) if (base / TOKENIZER_CONFIG).is_file() else {}
    for document in (config, tokenizer):
        if isinstance(asked := document.get("auto_map"), dict):
            for named in asked.values():
                first = next((name for name in (named if isinstance(named, list) else [named]) if name), "")
                module = str(first).rpartition("--")[2].partition(".")[0]
                return f"{module}.py" if module else "auto_map"
    return ""


def _labels(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    told = config.get("id2label")
    if isinstance(told, dict) and told:
        try:
            named = {int(key): str(label) for key, label in told.items()}
        except ValueError as error:
            raise _corrupt(path, f"id2label: {error}") from error
        if set(named) != set(range(len(named))):
            raise _corrupt(path, f"id2label numbers its labels {', '.join(map(str, sorted(named)[:5]))} ...")
        return tuple(named[number] for number in range(len(named)))
    # transformers writes none for the two labels it takes for granted.
    count = _count(config.get("num_labels")) or 2
    return tuple(f"LABEL_{number}" for number in range(count))


def _activation(config: Mapping[str, Any]) -> Activation:
    """As transformers' text-classification pipeline decides; cross-encoders of sentence-transformers say it."""
    told = config.get("sentence_transformers")
    said = (told.get("activation_fn") if isinstance(told, dict) else None) or config.get(
        "sbert_ce_default_activation_function"
    )
    if isinstance(said, str) and said.rpartition(".")[2] in ("Identity", "Sigmoid"):
        return Activation.NONE if said.endswith("Identity") else Activation.SIGMOID
    problem, labels = config.get("problem_type"), config.get("id2label")
    if problem == "regression":
        return Activation.NONE
    if problem == "multi_label_classification" or (isinstance(labels, dict) and len(labels) == 1):
        return Activation.SIGMOID
    return Activation.SOFTMAX


def _most_tokens(folder: Path, base: str, config: Mapping[str, Any], told: int | None) -> int | None:
    place = folder / base / TOKENIZER_CONFIG
    limits = [told, _count((_mapping(place) if place.is_file() else {}).get("model_max_length"))]
    positions = _count(config.get("max_position_embeddings"))
    if positions and config.get("model_type") in _SHIFTED:
        positions -= (_count(config.get("pad_token_id")) or 1) + 1
    return min((limit for limit in (*limits, positions) if limit and limit < _NO_LIMIT), default=None)


def _releases(config: Mapping[str, Any], sentence: _Sentence | None) -> Mapping[str, str]:
    found = dict(sentence.releases) if sentence else {}
    if isinstance(config.get("transformers_version"), str):
        found["transformers"] = config["transformers_version"]
    return found


# --- files ----------------------------------------------------------------------------------------------------------


def _tokenizer_files(folder: Path, base: str) -> list[str]:
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
    config = f"{place}{TOKENIZER_CONFIG}"
    return [f"{place}{TOKENIZER}", *([config] if (folder / config).is_file() else [])]


def _onnx(folder: Path, base: str, chosen: str) -> tuple[str, tuple[str, ...]]:
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


def _onnx_files(folder: Path, name: str) -> tuple[SourceFile, ...]:
    path = folder / name
    _check_there(path)
    if not is_onnx(path):
        raise _corrupt(path, "it does not start as ONNX files do")
    model = read_onnx(path)
    inputs = {tensor.name for tensor in model.inputs}
    if not {"input_ids"} <= inputs <= _INPUTS:
        raise _contract(
            path,
            f"its graph takes {', '.join(sorted(inputs)) or 'nothing'}",
            known=", ".join(sorted(_INPUTS)) + "; images, decoders and caches are not",
        )
    if any(size is not None for tensor in model.inputs for size in tensor.shape):
        raise _contract(path, "its graph takes texts of one length only", known="free axes for texts and tokens")
    prefix = name.rpartition("/")[0]
    beside = external_files(path, model)
    return (
        SourceFile(path, name),
        *(SourceFile(file.path, f"{prefix}/{file.name}" if prefix else file.name) for file in beside),
    )


def _safetensors(folder: Path, base: str) -> tuple[SourceFile, ...]:
    prefix = f"{base}/" if base else ""
    place = folder / base
    names = [_WEIGHTS]
    if (place / _INDEX).is_file():
        shards = _mapping(place / _INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise _corrupt(place / _INDEX, "it has no weight_map")
        names = [_INDEX, *sorted({_place(str(name), place / _INDEX) for name in shards.values()})]
    elif not (place / _WEIGHTS).is_file():
        raise _no_weights(place, folder)
    for name in names:
        _check_there(place / name)
        if name != _INDEX:
            if not is_safetensors(place / name):
                raise _corrupt(place / name, "it does not start as safetensors files do")
            read_safetensors(place / name)
    return tuple(SourceFile(place / name, f"{prefix}{name}") for name in names)


def _no_weights(place: Path, folder: Path) -> UsageError | PolicyError:
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
        why=f"looked for {', '.join(_ONNX_PLACES)}, {_WEIGHTS} and {_INDEX}",
        hint="download the whole folder, or save the model there: `model.save_pretrained(FOLDER)`",
    )


def _check_there(path: Path) -> None:
    """A file that is there and is itself, not what git-lfs leaves in its place."""
    if not path.is_file():
        raise UsageError("adapter.missing_weights", f"`{path.name}` is not there", where=str(path))
    with path.open("rb") as stream:
        if stream.read(len(_LFS)) == _LFS:
            raise UsageError(
                "adapter.missing_weights",
                f"`{path.name}` is a pointer of git-lfs, not the file",
                where=str(path),
                why="the repository was cloned without its large files",
                hint="git lfs pull",
            )


def _place(text: str, path: Path) -> str:
    """A relative path of a document, below the folder. Raises UsageError `adapter.unsafe_path`."""
    parts = Path(text).parts
    if text.startswith("/") or ".." in parts or "\\" in text or "\0" in text:
        raise UsageError("adapter.unsafe_path", f"`{text[:80]}` lies outside of its folder", where=str(path))
    return "/".join(parts)


def _mapping(path: Path) -> dict[str, Any]:
    document = _json(path)
    if not isinstance(document, dict):
        raise _corrupt(path, f"it holds a {type(document).__name__}")
    return document


def _json(path: Path) -> Any:
    _check_there(path)
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise _corrupt(path, "it is too long")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, str(error)) from error


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e9 else None


def _corrupt(path: Path, why: Exception | str) -> UsageError:
    return corrupt(path, "is not what it should be", why, hint="save or download the folder again")


def _contract(path: Path, what: str, *, known: str = "") -> UsageError:
    return UsageError(
        "adapter.contract",
        what,
        where=str(path),
        why=f"known: {known}" if known else "",
        hint="write a class with `predict` that loads it: `corten up file.py:Class`",
    )
