"""What folders answer, as typed classes: `py_call` makes schema, checks and batches of them as of a user's own class.

Numbers are those of transformers' pipelines and of sentence-transformers; tests compare them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from corten.adapters.base import InputError
from corten.adapters.hf_folder import Activation, HfFolder, Task
from corten.adapters.hf_network import open_network
from corten.adapters.hf_sentence import Dense
from corten.adapters.hf_tokens import Tokenizer, Tokens
from corten.adapters.safetensors_file import read_array, read_safetensors

if TYPE_CHECKING:
    import numpy as np

# More at once gain nothing and take memory: attention grows with the square of the longest text.
_MOST_TEXTS = 32
_Text = str | tuple[str, str]
_Amount = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True, slots=True)
class Label:
    """A class and how sure the model is of it."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Entity:
    """A stretch of a text, from character `start` up to `end`, and what it is."""

    label: str
    score: float
    text: str
    start: int
    end: int


def class_of(folder: HfFolder) -> type[_Answers]:
    """The class that answers a folder's task; not made yet, it still tells its types."""
    if folder.task is Task.EMBED:
        return PromptedEmbedder if folder.prompts else Embedder
    return {Task.CLASSIFY: TextClassifier, Task.TAG: TokenClassifier, Task.FEATURES: Features}[folder.task]


class _Answers:
    """Tokenizer and network of a folder."""

    def __init__(self, models: Path, folder: HfFolder) -> None:
        self._folder = folder
        self._tokenizer = Tokenizer(models, folder)
        self._network = open_network(models, folder)

    def _each(self, texts: Sequence[_Text], answer: Callable[[Tokens, np.ndarray], Iterable[Any]]) -> list[Any]:
        """An answer a text, in order; the network runs for texts of like length together, so that few tokens pad."""
        order = sorted(range(len(texts)), key=lambda at: _length(texts[at]))
        found: list[Any] = [None] * len(texts)
        for start in range(0, len(order), _MOST_TEXTS):
            part = order[start : start + _MOST_TEXTS]
            tokens = self._tokenizer.encode([texts[at] for at in part])
            for at, value in zip(part, answer(tokens, self._network.run(tokens)), strict=True):
                found[at] = value
        return found


def _length(text: _Text) -> int:
    return len(text) if isinstance(text, str) else len(text[0]) + len(text[1])


class Embedder(_Answers):
    """A vector a text, pooled and scaled as the folder's modules say."""

    def __init__(self, models: Path, folder: HfFolder) -> None:
        super().__init__(models, folder)
        self._dense = [_Layer(models, dense) for dense in folder.dense]

    def predict(self, text: str) -> list[float]:
        """The vector of one text."""
        return self._vectors([self._folder.prompt + text])[0]

    def predict_batch(self, calls: list[dict[str, Any]]) -> list[list[float]]:
        """Those of texts that came together."""
        return self._vectors([self._folder.prompt + call["text"] for call in calls])

    def embed(self, texts: list[str]) -> list[list[float]]:
        """For `/v1/embeddings`."""
        return self._vectors([self._folder.prompt + text for text in texts])

    def _vectors(self, texts: Sequence[str]) -> list[list[float]]:
        return [vector.tolist() for vector in self._each(texts, self._pooled)]

    def _pooled(self, tokens: Tokens, hidden: np.ndarray) -> np.ndarray:
        import numpy as np

        parts = [_pool(mode, hidden, tokens.mask) for mode in self._folder.pooling]
        vectors = np.concatenate(parts, axis=1)
        for layer in self._dense:
            vectors = layer.run(vectors)
        if self._folder.normalizes:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


class PromptedEmbedder(Embedder):
    """An embedder whose folder has prompts, put before a text by their name."""

    def predict(self, text: str, prompt: str | None = None) -> list[float]:
        """The vector of one text, with the prompt of that name (left out: the folder's default) before it."""
        return self._vectors([self._with(text, prompt)])[0]

    def predict_batch(self, calls: list[dict[str, Any]]) -> list[list[float]]:
        """Those of texts that came together; a name that is not there fails its own call."""
        found: list[Any] = []
        for call in calls:
            try:
                found.append(self._with(call["text"], call["prompt"]))
            except InputError as error:
                found.append(error)
        vectors = iter(self._vectors([text for text in found if isinstance(text, str)]))
        return [next(vectors) if isinstance(text, str) else text for text in found]

    def _with(self, text: str, name: str | None) -> str:
        prompts = self._folder.prompts or {}
        if name is not None and name not in prompts:
            raise InputError(f"no prompt `{name[:60]}`; there are {', '.join(prompts)}", path="prompt")
        return (self._folder.prompt if name is None else prompts[name]) + text


class TextClassifier(_Answers):
    """The classes of a text, or of a pair of texts, the likeliest first."""

    def predict(self, text: str, pair: str | None = None, top: _Amount | None = None) -> list[Label]:
        """The `top` likeliest classes (left out: all) of a text, or of a text with its pair."""
        return self.predict_batch([{"text": text, "pair": pair, "top": top}])[0]

    def predict_batch(self, calls: list[dict[str, Any]]) -> list[list[Label]]:
        """Those of calls that came together."""
        texts: list[_Text] = [call["text"] if call["pair"] is None else (call["text"], call["pair"]) for call in calls]
        scores = self._each(texts, lambda _, logits: _activated(logits, self._folder.activation))
        names = self._folder.labels
        return [
            [Label(names[at], float(row[at])) for at in (-row).argsort(kind="stable")[: call["top"]]]
            for call, row in zip(calls, scores, strict=True)
        ]


class TokenClassifier(_Answers):
    """The named stretches of a text."""

    def predict(self, text: str) -> list[Entity]:
        """Neighbouring tokens of one class together, as `aggregation_strategy="simple"` of transformers has it."""
        return self.predict_batch([{"text": text}])[0]

    def predict_batch(self, calls: list[dict[str, Any]]) -> list[list[Entity]]:
        """Those of calls that came together."""
        texts = [call["text"] for call in calls]
        found = self._each(texts, _by_token)
        return [_entities(text, tokens, self._folder.labels) for text, tokens in zip(texts, found, strict=True)]


class Features(_Answers):
    """A vector a token, the special ones included."""

    def predict(self, text: str) -> list[list[float]]:
        """The last layer of the network."""
        return self.predict_batch([{"text": text}])[0]

    def predict_batch(self, calls: list[dict[str, Any]]) -> list[list[list[float]]]:
        """Those of calls that came together."""
        return [vectors.tolist() for vectors in self._each([call["text"] for call in calls], _unpadded)]


def _unpadded(tokens: Tokens, hidden: np.ndarray) -> Iterable[np.ndarray]:
    return (vectors[: len(encoding.ids)] for vectors, encoding in zip(hidden, tokens.encodings, strict=True))


def _pool(mode: str, hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One vector a text out of one a token: sentence-transformers' Pooling."""
    import numpy as np

    counts = np.maximum(mask.sum(axis=1, keepdims=True), 1).astype(np.float32)
    weights = mask[:, :, None].astype(np.float32)
    found: np.ndarray
    match mode:
        case "cls":
            found = hidden[:, 0]
        case "max":
            found = np.where(weights > 0, hidden, np.float32(-1e9)).max(axis=1)
        case "mean":
            found = (hidden * weights).sum(axis=1) / counts
        case "mean_sqrt_len_tokens":
            found = (hidden * weights).sum(axis=1) / np.sqrt(counts)
        case "weightedmean":
            places = weights * np.arange(1, hidden.shape[1] + 1, dtype=np.float32)[None, :, None]
            found = (hidden * places).sum(axis=1) / places.sum(axis=1)
        case _:  # lasttoken: padding is on the right
            found = hidden[np.arange(len(hidden)), mask.sum(axis=1) - 1]
    return found


class _Layer:
    """A dense layer behind the pooling."""

    def __init__(self, models: Path, dense: Dense) -> None:
        path = models / dense.weights
        tensors = read_safetensors(path).tensors
        self._weight = read_array(path, tensors["linear.weight"])
        self._bias = read_array(path, tensors["linear.bias"]) if "linear.bias" in tensors else 0.0
        self._has_tanh = dense.has_tanh

    def run(self, vectors: np.ndarray) -> np.ndarray:
        import numpy as np

        made: np.ndarray = vectors @ self._weight.T + self._bias
        return np.tanh(made) if self._has_tanh else made


def _activated(logits: np.ndarray, activation: Activation) -> np.ndarray:
    import numpy as np

    match activation:
        case Activation.NONE:
            return logits
        case Activation.SIGMOID:
            found: np.ndarray = 1 / (1 + np.exp(-logits.astype(np.float64)))
            return found
        case Activation.SOFTMAX:
            raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
            shares: np.ndarray = raised / raised.sum(axis=-1, keepdims=True)
            return shares


@dataclass(frozen=True, slots=True)
class _Token:
    number: int
    score: float
    start: int
    end: int


def _by_token(tokens: Tokens, logits: np.ndarray) -> Iterable[list[_Token]]:
    """The likeliest class of each token of the text itself."""
    scores = _activated(logits, Activation.SOFTMAX)
    best = scores.argmax(axis=2)
    for row, encoding in enumerate(tokens.encodings):
        yield [
            _Token(int(best[row, at]), float(scores[row, at, best[row, at]]), *encoding.offsets[at])
            for at in range(len(encoding.ids))
            if not encoding.special_tokens_mask[at]
        ]


def _entities(text: str, tokens: Sequence[_Token], labels: Sequence[str]) -> list[Entity]:
    """Neighbours of one class joined, `B-` begins anew; `O` is nothing."""
    found: list[Entity] = []
    group: list[_Token] = []

    def close() -> None:
        if group and (name := _tag(labels[group[0].number])[1]) != "O":
            start, end = group[0].start, group[-1].end
            score = sum(token.score for token in group) / len(group)
            found.append(Entity(name, score, text[start:end], start, end))
        group.clear()

    for token in tokens:
        begins, name = _tag(labels[token.number])
        if group and (begins or name != _tag(labels[group[-1].number])[1]):
            close()
        group.append(token)
    close()
    return found


def _tag(label: str) -> tuple[bool, str]:
    """`B-PER` begins a `PER`; labels without a mark are inside one."""
    mark, dash, name = label.partition("-")
    return (mark == "B", name) if dash and mark in ("B", "I") else (False, label)
