"""Train a small neural network on scanned digits and export it to ONNX.

Seeded, on real data that comes with scikit-learn; takes a few seconds. Writes model.onnx beside this file.
Inputs are the 8 by 8 pixels of a scan, divided by 16; outputs are the digit and the probability of each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

SEED = 7
LEARN_FROM = 1400  # of 1,797; the rest, by other writers, is for the test
ENOUGH = 0.9


def main() -> None:
    scans, digits = load_digits(return_X_y=True)
    pixels = (scans / 16).astype(np.float32)
    model = MLPClassifier((64, 64), alpha=1e-2, max_iter=300, random_state=SEED)
    model.fit(pixels[:LEARN_FROM], digits[:LEARN_FROM])
    accuracy = model.score(pixels[LEARN_FROM:], digits[LEARN_FROM:])
    print(f"accuracy on {len(pixels) - LEARN_FROM} unseen scans: {accuracy:.3f}")
    if accuracy < ENOUGH:
        raise SystemExit(f"less than {ENOUGH}: not saved")
    # Without ZipMap the probabilities are one array instead of a list of maps.
    graph = to_onnx(model, pixels[:1], options={"zipmap": False})
    target = Path(__file__).with_name("model.onnx")
    target.write_bytes(graph.SerializeToString())
    print(f"wrote {target.name}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
