"""Read what a Hugging Face folder says of itself: the task, where its weights are, what its tokenizer may take.

`config.json` is written by transformers' `save_pretrained`, `modules.json` by sentence-transformers' `save`; the ONNX
files' places are those of optimum and sentence-transformers. Nothing in a folder is run, and no code in it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from corten.adapters.base import SourceFile
from corten.adapters.hf_documents import (
    CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    broken,
    check_there,
    mapping,
    positive,
    read_json,
)
from corten.adapters.hf_sentence import MODULES, Dense, Sentence, module_kind, read_modules
from corten.adapters.hf_weights import WEIGHTS, onnx_files, onnx_graph, safetensors, tokenizer_files
from corten.errors import PolicyError, UsageError

_ADAPTER = "adapter_config.json"
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
        config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        if isinstance(config, dict) and ("model_type" in config or isinstance(config.get("architectures"), list)):
            return True
        if (folder / _ADAPTER).is_file():
            return "peft_type" in (read_json(folder / _ADAPTER) or {})
        modules = read_json(folder / MODULES) if (folder / MODULES).is_file() else []
        return isinstance(modules, list) and any(module_kind(module) for module in modules)
    except (UsageError, TypeError):
        # Named as one of these folders and damaged: what reads it says where.
        return (folder / CONFIG).is_file() and any((folder / name).is_file() for name in (TOKENIZER, WEIGHTS))


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
    sentence = read_modules(folder) if (folder / MODULES).is_file() else None
    base = sentence.base if sentence else ""
    config = mapping(folder / base / CONFIG)
    task = Task.EMBED if sentence else _task(config, folder / base / CONFIG)
    tokenizer = tokenizer_files(folder, base)
    onnx, others = onnx_graph(folder, base, chosen)
    own_code = _own_code(folder / base, config)
    if own_code and not onnx:
        raise PolicyError(
            "adapter.own_code",
            f"`{folder.name}` needs code of its own, `{own_code}`",
            where=str(folder / base / CONFIG),
            why="its `auto_map` asks for `trust_remote_code`; Corten runs no code that comes with weights",
            hint="export it to ONNX, which needs none, or write a class you trust: `corten up file.py:Class`",
        )
    weights = onnx_files(folder, onnx) if onnx else safetensors(folder, base)
    named = [f"{base}/{CONFIG}" if base else CONFIG, *tokenizer]
    if sentence:
        named += [MODULES, *sentence.files]
    files = [SourceFile(folder / name, name) for name in dict.fromkeys(named)]
    for file in files:
        check_there(file.path)
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
    tokenizer = mapping(base / TOKENIZER_CONFIG) if (base / TOKENIZER_CONFIG).is_file() else {}
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
            raise broken(path, f"id2label: {error}") from error
        if set(named) != set(range(len(named))):
            raise broken(path, f"id2label numbers its labels {', '.join(map(str, sorted(named)[:5]))} ...")
        return tuple(named[number] for number in range(len(named)))
    # transformers writes none for the two labels it takes for granted.
    count = positive(config.get("num_labels")) or 2
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
    limits = [told, positive((mapping(place) if place.is_file() else {}).get("model_max_length"))]
    positions = positive(config.get("max_position_embeddings"))
    if positions and config.get("model_type") in _SHIFTED:
        positions -= (positive(config.get("pad_token_id")) or 1) + 1
    return min((limit for limit in (*limits, positions) if limit and limit < _NO_LIMIT), default=None)


def _releases(config: Mapping[str, Any], sentence: Sentence | None) -> Mapping[str, str]:
    found = dict(sentence.releases) if sentence else {}
    if isinstance(config.get("transformers_version"), str):
        found["transformers"] = config["transformers_version"]
    return found
