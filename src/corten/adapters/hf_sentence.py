"""Read `modules.json` of sentence-transformers: how the vectors of a text's tokens become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.adapters.hf_documents import CONFIG, broken, check_there, mapping, place_in, positive, read_json, unfit
from corten.adapters.hf_weights import WEIGHTS, no_weights
from corten.adapters.safetensors_file import read_safetensors
from corten.errors import PolicyError

MODULES = "modules.json"
PROMPTS, SENTENCE_CONFIG = "config_sentence_transformers.json", "sentence_bert_config.json"


@dataclass(frozen=True, slots=True)
class Dense:
    """A layer behind the pooling, of sentence-transformers: its folder and whether it ends in tanh."""

    weights: str
    has_tanh: bool


@dataclass(frozen=True, slots=True)
class Sentence:
    """What the modules say: where the transformer lies (`base`), what is done with its vectors, its `files`."""

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


def module_kind(module: Any) -> str:
    """`Pooling` for `sentence_transformers.models.Pooling`, wherever a release keeps it; empty for others' classes."""
    kind = module.get("type") if isinstance(module, dict) else None
    return kind.rpartition(".")[2] if isinstance(kind, str) and kind.startswith("sentence_transformers.") else ""


def read_modules(folder: Path) -> Sentence:
    """Read the folder's modules.

    Raises UsageError `adapter.corrupt_model`, `adapter.contract`; PolicyError `adapter.own_code`.
    """
    path = folder / MODULES
    modules = read_json(path)
    if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
        raise broken(path, "it lists no modules")
    base, files, pooling, dense, normalizes = "", [], tuple[str, ...](), list[Dense](), False
    for number, module in enumerate(modules):
        kind, place = module_kind(module), place_in(str(module.get("path", "")), path)
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
                raise unfit(path, f"`{MODULES}` has a `{kind}` at place {number}, which is not known there")
    if not pooling:
        raise unfit(path, "it has no pooling, so it makes no vectors of sentences")
    told = folder / base / SENTENCE_CONFIG
    sentence = mapping(told) if told.is_file() else {}
    settings = mapping(folder / PROMPTS) if (folder / PROMPTS).is_file() else {}
    if sentence:
        files.append(f"{base}/{SENTENCE_CONFIG}" if base else SENTENCE_CONFIG)
    if settings:
        files.append(PROMPTS)
    prompts = {str(name): str(text) for name, text in (settings.get("prompts") or {}).items() if text}
    releases = settings.get("__version__")
    return Sentence(
        base=base,
        files=tuple(files),
        pooling=pooling,
        dense=tuple(dense),
        normalizes=normalizes,
        lower=sentence.get("do_lower_case") is True,
        most_tokens=positive(sentence.get("max_seq_length")),
        prompts=prompts,
        prompt=prompts.get(str(settings.get("default_prompt_name")), ""),
        releases={str(name): str(text) for name, text in releases.items()} if isinstance(releases, dict) else {},
    )


def _pooling(path: Path) -> tuple[str, ...]:
    check_there(path)
    told = mapping(path)
    given = told.get("pooling_mode")
    modes = [given] if isinstance(given, str) else given
    if not isinstance(modes, list):
        modes = [mode for key, mode in _MODES.items() if told.get(key) is True]
    if not modes or not set(modes) <= set(_MODES.values()):
        raise unfit(path, f"its pooling is {', '.join(map(str, modes)) or 'none'}", known=", ".join(_MODES.values()))
    if told.get("include_prompt") is False:
        raise unfit(path, "its pooling leaves the prompt's tokens out, which is not known here")
    return tuple(str(mode) for mode in modes)


def _dense(folder: Path, place: str) -> Dense:
    path = folder / place / CONFIG
    check_there(path)
    activation = str(mapping(path).get("activation_function", "")).rpartition(".")[2]
    if activation not in ("Identity", "Tanh"):
        raise unfit(path, f"its layer ends in `{activation}`", known="Identity, Tanh")
    weights = f"{place}/{WEIGHTS}"
    if not (folder / weights).is_file():
        raise no_weights(folder / place, folder)
    read_safetensors(folder / weights)
    return Dense(weights, activation == "Tanh")
