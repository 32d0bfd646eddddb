"""Folders of Hugging Face: encoders that embed, classify or tag texts, with a tokenizer and safe weights.

The smallest runtime that answers the same: where an ONNX graph lies in the folder, ONNX Runtime and `tokenizers`; else
transformers and PyTorch on the CPU. A task is a class in `hf_tasks` and an entry in its table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace

from corten.adapters.base import Inspection, Source
from corten.adapters.distributions import installed, numbers
from corten.adapters.hf_folder import HfFolder, Task, is_hf, read_hf
from corten.adapters.weights import declared, once_each
from corten.core.model import ModelSpec
from corten.core.schema import Schema
from corten.errors import UsageError

if TYPE_CHECKING:
    from corten.adapters.py_call import PyModel

_ONNX_NEEDS = ("onnxruntime", "tokenizers", "numpy")
# The first that loads what current releases write, and all that earlier ones wrote.
_FIRST_TRANSFORMERS = "4.48"


class HuggingFace:
    """A folder with `config.json`, a tokenizer, and weights as ONNX or safetensors."""

    name: ClassVar[str] = "huggingface"

    def detect(self, source: Source) -> bool:
        """Whether it is a folder of transformers, sentence-transformers or PEFT, by its documents."""
        return source.path.is_dir() and is_hf(source.path)

    def inspect(self, source: Source) -> Inspection:
        """Task, labels, weights and releases from the folder's documents. Nothing in it is run."""
        if source.method not in ("", "predict"):
            raise UsageError(
                "adapter.unknown_method",
                f"a folder of Hugging Face has no method `{source.method}`",
                where=str(source.path),
                hint="leave `method` out: its task says what it answers",
            )
        chosen, others = _chosen(source)
        folder = read_hf(source.path.absolute(), chosen)
        requirements, said, warnings = _requirements(folder)
        return Inspection(
            adapter=self.name,
            requirements=requirements,
            weights=once_each((*folder.needed, *declared(replace(source, extra_files=others)))),
            # Which graph was chosen is not to be told from the image's files alone when several lie there.
            entry=folder.onnx,
            schema=_schema(folder),
            notes=(*_notes(folder), *said),
            warnings=(*warnings, *_warnings(folder)),
        )

    def load(self, spec: ModelSpec, models: Path, app: Path) -> PyModel:
        """Load tokenizer and weights; raises what they raise."""
        from corten.adapters.hf_tasks import class_of
        from corten.adapters.py_call import PyModel

        del app
        folder = read_hf(models, spec.entry)
        return PyModel(class_of(folder)(models, folder))


def _chosen(source: Source) -> tuple[str, tuple[Path, ...]]:
    """The ONNX file of the folder that the settings name, and the other files they name."""
    folder = source.path.absolute()
    named = [
        extra for extra in source.extra_files if (folder / extra).is_relative_to(folder) and extra.suffix == ".onnx"
    ]
    if not named:
        return "", source.extra_files
    return (folder / named[0]).relative_to(folder).as_posix(), tuple(
        extra for extra in source.extra_files if extra not in named
    )


def _schema(folder: HfFolder) -> Schema:
    from corten.adapters.hf_tasks import class_of
    from corten.adapters.py_call import PyModel

    answers = class_of(folder)
    return PyModel(answers.__new__(answers)).schema  # its types, without its weights


def _requirements(folder: HfFolder) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """PEP 508 lines, notes on where releases come from, and warnings where they disagree."""
    if folder.onnx:
        return _ONNX_NEEDS, ("ONNX Runtime and tokenizers run it: no PyTorch, no transformers",), ()
    told = (folder.releases or {}).get("transformers", "")
    here, torch_here = installed("transformers"), installed("torch")
    least = told if numbers(told) >= numbers(_FIRST_TRANSFORMERS) else _FIRST_TRANSFORMERS
    line = f"transformers=={here}" if here else f"transformers>={least}"
    wrote = f"written by transformers {told}" if told else "the folder does not tell its release of transformers"
    notes = (
        f"{wrote}; {f'{here}, installed here,' if here else 'the newest'} goes into the image",
        f"PyTorch {f'{torch_here}, as installed here' if torch_here else 'of the newest release'}, on the CPU",
    )
    older = bool(told and here) and numbers(here) < numbers(told)
    warnings = (
        (f"the folder was written by transformers {told}, {here} is installed here and goes into the image",)
        if older
        else ()
    )
    return (line, f"torch=={torch_here}" if torch_here else "torch", "tokenizers", "numpy"), notes, warnings


def _notes(folder: HfFolder) -> list[str]:
    weights = folder.onnx or "safetensors"
    notes = [f"{folder.architecture or 'encoder'} for {folder.task.value}, weights in {weights}"]
    if folder.task is Task.EMBED:
        steps = [f"{' and '.join(folder.pooling)} pooling", *("a dense layer" for _ in folder.dense)]
        steps += ["vectors of length one"] if folder.normalizes else []
        notes.append(f"{', '.join(steps)}; answers /v1/embeddings too")
    if folder.prompts:
        notes.append(f"prompts: {', '.join(folder.prompts)}")
    if folder.labels:
        more = " …" if len(folder.labels) > 5 else ""
        notes.append(f"{len(folder.labels)} labels: {', '.join(folder.labels[:5])}{more}")
    if folder.most_tokens:
        notes.append(f"texts are cut at {folder.most_tokens} tokens")
    if folder.other_onnx:
        notes.append(f"also there: {', '.join(folder.other_onnx[:4])}; `files = [NAME]` in corten.toml takes one")
    return notes


def _warnings(folder: HfFolder) -> list[str]:
    found = []
    if folder.task is Task.FEATURES:
        found.append("no modules.json: a vector a token is answered; save it by sentence-transformers for one a text")
    if folder.own_code:
        found.append(f"the folder's own code, `{folder.own_code}`, is left out; its ONNX graph does without")
    return found
