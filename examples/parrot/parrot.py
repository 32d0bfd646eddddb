"""A Markov model of words, asked as chat models are."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypedDict

from msgspec import Meta

Temperature = Annotated[float, Meta(ge=0, le=2)]
Length = Annotated[int, Meta(ge=1, le=2000)]


class Message(TypedDict):
    role: str
    content: str


class Parrot:
    def __init__(self, models: Path = Path(__file__).parent / "model") -> None:
        found = json.loads((models / "words.json").read_text(encoding="utf-8"))
        self.words: list[str] = found["words"]
        text: list[int] = found["text"]
        # What followed each pair of words, and each word alone, as often as it did.
        self.after: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for first, second, third in zip(text, text[1:], text[2:], strict=False):
            self.after[first, second].append(third)
            self.after[second,].append(third)
        self.starts = [second for first, second in pairwise(text) if self.words[first].endswith(".")]
        self.number = {word.strip().lower(): index for index, word in enumerate(self.words)}

    def predict(
        self, prompt: str, max_tokens: Length = 40, temperature: Temperature = 1.0, seed: int | None = None
    ) -> Iterator[str]:
        yield from self._draw(prompt, max_tokens, temperature, seed)

    def chat(
        self,
        messages: list[Message],
        max_tokens: Length = 60,
        temperature: Temperature = 1.0,
        seed: int | None = None,
        stop: str | list[str] | None = None,
    ) -> Iterator[str | dict[str, Any]]:
        prompt = messages[-1]["content"]
        stops = [stop] if isinstance(stop, str) else stop or []
        said, count = "", 0
        for word in self._draw(prompt, max_tokens, temperature, seed):
            if any(end in said + word for end in stops):
                break
            said, count = said + word, count + 1
            yield word
        asked = sum(len(message["content"].split()) for message in messages)
        reason = "length" if count == max_tokens else "stop"
        yield {"finish_reason": reason, "usage": {"prompt_tokens": asked, "completion_tokens": count}}

    def complete(
        self, prompt: str, max_tokens: Length = 40, temperature: Temperature = 1.0, seed: int | None = None
    ) -> Iterator[str]:
        yield from self._draw(prompt, max_tokens, temperature, seed)

    def _draw(self, prompt: str, count: int, temperature: float, seed: int | None) -> Iterator[str]:
        chance = random.Random(seed)  # noqa: S311
        last = [self.number[word] for word in prompt.lower().split() if word in self.number][-2:]
        for _ in range(count):
            choices = self.after.get(tuple(last)) or self.after.get(tuple(last[-1:])) or self.starts
            # Cold: the commonest word; the first seen of equally common ones.
            drawn = max(choices, key=choices.count) if temperature == 0 else chance.choice(choices)
            last = [*last[-1:], drawn]
            yield self.words[drawn]
