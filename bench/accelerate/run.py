"""One call of a model as scikit-learn, as Corten's image calls it, and as ONNX: per row and per 256 rows, in one process.

    uv run --group examples --group frameworks python bench/accelerate/run.py [--json FILE]

Each model is timed in turns (original, served, ONNX, original ...), so that a noisy machine is noisy for all; medians.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from corten.adapters.base import Source
from corten.adapters.converted import ConvertedModel, stands_for
from corten.adapters.onnx_session import open_session
from corten.adapters.sklearn import Sklearn, SklearnModel
from corten.adapters.sklearn_quick import settle
from corten.serve.convert import attempt

ROUNDS = 60
BATCH = 256


def models() -> Iterator[tuple[str, Any, np.ndarray]]:
    """Name, fitted estimator, rows."""
    digits, tumours, diabetes = (load(return_X_y=True) for load in (load_digits, load_breast_cancer, load_diabetes))
    yield "LogisticRegression, digits", LogisticRegression(max_iter=300).fit(*digits), digits[0]
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(*tumours)
    yield "scaler + LogisticRegression, tumours", scaled, tumours[0]
    yield "RandomForest(100), digits", RandomForestClassifier(100, random_state=0).fit(*digits), digits[0]
    yield (
        "RandomForest(100, n_jobs=-1), digits",
        RandomForestClassifier(100, random_state=0, n_jobs=-1).fit(*digits),
        digits[0],
    )
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(100, random_state=0)).fit(*tumours)
    yield "scaler + RandomForest(100), tumours", forest, tumours[0]
    yield "RandomForestRegressor(100), diabetes", RandomForestRegressor(100, random_state=0).fit(*diabetes), diabetes[0]
    yield "GradientBoosting(100), tumours", GradientBoostingClassifier(random_state=0).fit(*tumours), tumours[0]
    try:
        import lightgbm
        import onnxmltools  # noqa: F401
        import xgboost
    except ImportError:
        return
    yield "XGBClassifier(100), digits", xgboost.XGBClassifier(n_estimators=100).fit(*digits), digits[0]
    yield (
        "LGBMClassifier(100), tumours",
        lightgbm.LGBMClassifier(n_estimators=100, verbose=-1).fit(*tumours),
        tumours[0],
    )


def measured(estimator: Any, rows: np.ndarray, folder: Path) -> dict[str, Any]:
    """Microseconds a call, and what was found out about the ONNX form."""
    path = folder / "model.joblib"
    joblib.dump(estimator, path)
    schema = Sklearn().inspect(Source(path)).schema
    served = copy.deepcopy(estimator)
    settle(served)
    model = SklearnModel(served, "predict", schema)
    verdict, written = attempt(SklearnModel(estimator, "predict", schema), "predict", None, "sha256:" + "0" * 64)
    calls: dict[str, Callable[[np.ndarray], Any]] = {
        "original": estimator.predict,
        "served": lambda given: model.run({"inputs": given}),
    }
    if written:
        session = open_session(written)
        after = ConvertedModel(session, stands_for(session), schema)
        calls["onnx"] = lambda given: after.run({"inputs": given})
    found: dict[str, Any] = {"reason": verdict.reason}
    if verdict.agreement:
        found |= {"inputs": verdict.agreement.rows, "largest": verdict.agreement.largest}
    for label, count in (("row", 1), ("batch", BATCH)):
        given = np.ascontiguousarray(rows[:count])
        times: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call(given)
        for _ in range(ROUNDS):
            for name, call in calls.items():
                began_s = time.perf_counter()
                call(given)
                times[name].append(time.perf_counter() - began_s)
        found[label] = {name: round(statistics.median(taken) * 1e6, 1) for name, taken in times.items()}
    return found


def main() -> None:
    """Print a table; with --json also write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["CORTEN_THREADS"] = "1"  # as scikit-learn's forests without n_jobs
    results = {}
    print(
        f"| model, `predict` | row: original | served | ONNX | {BATCH} rows: original | served | ONNX | inputs compared |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, estimator, rows in models():
            found = results[name] = measured(estimator, rows, Path(folder))
            figures = [
                f"{found[label].get(kind, float('nan')):,.0f}"
                for label in ("row", "batch")
                for kind in ("original", "served", "onnx")
            ]
            print("|", " | ".join([name, *figures, f"{found.get('inputs', found['reason'])}"]), "|", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
