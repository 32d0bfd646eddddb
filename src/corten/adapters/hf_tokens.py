"""Texts to tokens by the folder's `tokenizer.json`, with `tokenizers` alone: no transformers, no code of a family."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corten.adapters.hf_documents import TOKENIZER, TOKENIZER_CONFIG
from corten.adapters.hf_folder import HfFolder

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts as arrays of (texts, tokens), padded on the right; `encodings` are the library's own, one a text."""

    ids: np.ndarray
    mask: np.ndarray
    kinds: np.ndarray
    encodings: Sequence[Any]


class Tokenizer:
    """The folder's tokenizer; texts longer than the network takes are cut."""

    def __init__(self, models: Path, folder: HfFolder) -> None:
        from tokenizers import Tokenizer as Library

        place = next(file.name for file in folder.needed if file.name.endswith(TOKENIZER))
        path = models / place
        self._library = Library.from_file(str(path))
        # What a file was saved with holds for its last training batch: padded to 128 tokens, or cut there.
        self._library.no_padding()
        self._library.no_truncation()
        if folder.most_tokens:
            self._library.enable_truncation(folder.most_tokens)
        told = path.with_name(TOKENIZER_CONFIG)
        self._padding = self._padding_id(json.loads(told.read_bytes()) if told.is_file() else {}, folder.config)
        self._lower = folder.lower

    def encode(self, texts: Sequence[str | tuple[str, str]]) -> Tokens:
        """Tokens of texts, or of pairs of them."""
        import numpy as np

        encodings = self._library.encode_batch([self._lowered(text) for text in texts] if self._lower else list(texts))
        longest = max(len(encoding.ids) for encoding in encodings)
        ids = np.full((len(encodings), longest), self._padding, dtype=np.int64)
        mask, kinds = np.zeros_like(ids), np.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            ids[row, :length], mask[row, :length], kinds[row, :length] = encoding.ids, 1, encoding.type_ids
        return Tokens(ids, mask, kinds, encodings)

    def _padding_id(self, told: Mapping[str, Any], config: Mapping[str, Any]) -> int:
        token = told.get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        number = self._library.token_to_id(token) if isinstance(token, str) else None
        if number is None:
            number = config.get("pad_token_id")
        return number if isinstance(number, int) else 0

    @staticmethod
    def _lowered(text: str | tuple[str, str]) -> str | tuple[str, str]:
        return text.lower() if isinstance(text, str) else (text[0].lower(), text[1].lower())
