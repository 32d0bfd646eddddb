"""MiniLM-L6-v2, a BERT with six layers, as plain numpy: text in, vectors of length one out.

Follows the paper (Devlin et al., 2018, https://arxiv.org/abs/1810.04805) and the pooling of sentence-transformers:
the mean of the last layer over the words of a text, scaled to length one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

MAX_TOKENS = 256  # what the model was trained for; longer texts are cut
_HIDDEN = -1e9  # a score that leaves nothing of a padding word after the softmax


class MiniLM:
    """The network with its weights and its tokenizer. `models` is the folder that holds the three files."""

    def __init__(self, models: Path) -> None:
        config = json.loads((models / "config.json").read_text())
        self._heads = config["num_attention_heads"]
        self._epsilon = config["layer_norm_eps"]
        self._weights = load_file(models / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(models / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._layers = config["num_hidden_layers"]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One vector of length one for each text."""
        encoded = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        longest = max(len(ids) for ids in encoded)
        ids = np.array([tokens + [0] * (longest - len(tokens)) for tokens in encoded])
        mask = np.array([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in encoded], dtype=np.float32)
        words = self._words(ids, mask)
        sums = (words * mask[:, :, None]).sum(axis=1)
        means = sums / mask.sum(axis=1, keepdims=True)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def _words(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        table = self._weights
        state = (
            table["embeddings.word_embeddings.weight"][ids]
            + table["embeddings.position_embeddings.weight"][: ids.shape[1]]
            + table["embeddings.token_type_embeddings.weight"][0]
        )
        state = self._normed(state, "embeddings.LayerNorm")
        hidden = (1 - mask[:, None, None, :]) * np.float32(_HIDDEN)
        for number in range(self._layers):
            state = self._layer(state, hidden, f"encoder.layer.{number}")
        return state

    def _layer(self, state: np.ndarray, hidden: np.ndarray, name: str) -> np.ndarray:
        attended = self._linear(self._attention(state, hidden, name), f"{name}.attention.output.dense")
        state = self._normed(state + attended, f"{name}.attention.output.LayerNorm")
        inner = _gelu(self._linear(state, f"{name}.intermediate.dense"))
        return self._normed(state + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _attention(self, state: np.ndarray, hidden: np.ndarray, name: str) -> np.ndarray:
        texts, words, width = state.shape

        def split(part: str) -> np.ndarray:
            projected = self._linear(state, f"{name}.attention.self.{part}")
            return projected.reshape(texts, words, self._heads, width // self._heads).transpose(0, 2, 1, 3)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(np.sqrt(width // self._heads)) + hidden
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return (weights @ value).transpose(0, 2, 1, 3).reshape(texts, words, width)

    def _linear(self, state: np.ndarray, name: str) -> np.ndarray:
        return state @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normed(self, state: np.ndarray, name: str) -> np.ndarray:
        centred = state - state.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(self._epsilon))
        return centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    """x times the normal distribution's integral, by Abramowitz and Stegun 7.1.26 (error below 1.5e-7)."""
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    polynomial = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - polynomial * np.exp(-z * z))
    return np.float32(0.5) * x * (1 + erf)
