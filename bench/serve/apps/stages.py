"""Where Corten's own time goes, without sockets: `stages.py APP MODELS BODIES ROWS` prints microseconds a request.

`decode` makes inputs of a body, `answer` is one call of the runner for a batch of ROWS rows less the model's own time.
"""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corten.serve.loading import load, read_spec


class Timed:
    """The model with a stop watch."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.took_s = 0.0

    def run(self, inputs: Any) -> Any:
        return self._timed(self._model.run, inputs)

    def call(self, calls: Any) -> Any:
        return self._timed(self._model.call, calls)

    def _timed(self, function: Callable[[Any], Any], given: Any) -> Any:
        began_s = time.perf_counter()
        outputs = function(given)
        self.took_s += time.perf_counter() - began_s
        return outputs


def main(app: Path, models: Path, bodies: Path, rows: int) -> None:
    texts = _texts(bodies)
    runner = load(read_spec(app), models, app).runner
    decode_us = _per_call_us(lambda: [runner.decode(text) for text in texts]) / len(texts)
    batch = [runner.decode(texts[0])]
    while sum(inputs.rows for inputs in batch) + batch[0].rows <= rows:
        batch.append(runner.decode(texts[len(batch) % len(texts)]))
    timed = Timed(runner._model)
    runner._model = timed
    model_us, whole_us = [], []
    for _ in range(30):
        timed.took_s, began_s = 0.0, time.perf_counter()
        for _ in range(10):
            runner.run(batch)
        whole_us.append((time.perf_counter() - began_s) * 1e5)
        model_us.append(timed.took_s * 1e5)
    best = min(range(30), key=whole_us.__getitem__)
    model_us, whole_us = model_us[best] / len(batch), whole_us[best] / len(batch)
    print(
        json.dumps(
            {"decode_us": decode_us, "model_us": model_us, "answer_us": whole_us - model_us, "batch": len(batch)}
        )
    )


def _per_call_us(call: Callable[[], Any]) -> float:
    took_s = []
    for _ in range(30):
        began_s = time.perf_counter()
        call()
        took_s.append(time.perf_counter() - began_s)
    return min(took_s) * 1e6


def _texts(path: Path) -> list[bytes]:
    data, texts, at = path.read_bytes(), [], 0
    while at < len(data):
        size = struct.unpack_from("<I", data, at)[0]
        texts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return texts


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), round(float(sys.argv[4])))
