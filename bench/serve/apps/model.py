"""The model side, the same for every system: `load(kind)` gives a function from a batch to an array."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

MODELS = Path(os.environ.get("BENCH_MODELS", "models"))
KIND = os.environ.get("BENCH_KIND", "mlp")
PORT = int(os.environ.get("BENCH_PORT", "21000"))
MOST_ROWS = 64  # of a batch, where a system asks for a number
WAIT_S = 0.001  # for others to join a batch, where it asks for that

Batch = Callable[[Any], Any]


def load(kind: str = KIND) -> Batch:
    import numpy as np

    if kind in {"lr", "rf"}:
        import joblib

        estimator = joblib.load(MODELS / f"{kind}.joblib")
        return lambda rows: estimator.predict(np.asarray(rows, dtype=np.float64))
    if kind == "mlp":
        session = _session(MODELS / "mlp.onnx")
        return lambda rows: session.run(None, {"x": np.asarray(rows, dtype=np.float32)})[0]
    if kind == "embed":
        return _embedder(MODELS)
    assert kind == "tensors"
    return lambda rows: rows


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _embedder(folder: Path) -> Batch:
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(256)
    session = _session(folder / "embed.onnx")

    def embed(texts: Any) -> Any:
        encoded = tokenizer.encode_batch(list(texts))
        ids = np.array([one.ids for one in encoded], dtype=np.int64)
        mask = np.array([one.attention_mask for one in encoded], dtype=np.float32)
        return session.run(None, {"ids": ids, "mask": mask})[0]

    return embed
