"""Without any server: import, load, predict one row; the bar of a cold start. With a number, the cost of a batch so large.

`bare.py KIND [ROWS]` prints seconds: of one prediction, or of the best of many batches.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import model


def main(kind: str, rows: int) -> None:
    run = model.load(kind)
    known = json.loads((Path(model.MODELS) / ("sentences.json" if kind == "embed" else "rows.json")).read_text())
    batch = [known[i % len(known)] for i in range(rows)]
    if kind != "embed":
        import numpy as np

        batch = np.asarray(batch, dtype=np.float64 if kind in {"lr", "rf"} else np.float32)
    began_s = time.perf_counter()
    run(batch)
    took_s = [time.perf_counter() - began_s]
    until_s = began_s + (0.5 if len(sys.argv) > 2 else 0.0)
    while time.perf_counter() < until_s:
        began_s = time.perf_counter()
        run(batch)
        took_s.append(time.perf_counter() - began_s)
    print(json.dumps({"median_s": sorted(took_s)[len(took_s) // 2], "best_s": min(took_s)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1)
