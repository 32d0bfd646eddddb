"""The embed work as Corten serves it: a class, its texts joined into batches."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Call:
    text: str


class Embedder:
    def __init__(self, models: Path = Path("models")) -> None:
        os.environ["BENCH_MODELS"] = str(models)
        import model

        self._embed = model.load("embed")

    def predict(self, text: str) -> list[float]:
        return self.predict_batch([Call(text)])[0]

    def predict_batch(self, calls: list[Call]) -> list[list[float]]:
        return self._embed([call.text for call in calls]).tolist()
