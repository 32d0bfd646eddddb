"""Train the diagnosis model: is a breast tumour malignant (0) or benign (1), told from 30 measures of cell nuclei.

Seeded, on real data that comes with scikit-learn; takes a second. Writes model.joblib beside this file.
"""

from __future__ import annotations

from pathlib import Path

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 7
ENOUGH = 0.95


def split():
    """Rows to learn from, rows to test with, and the answers to both."""
    rows, answers = load_breast_cancer(return_X_y=True)
    return train_test_split(rows, answers, test_size=0.25, random_state=SEED, stratify=answers)


def main() -> None:
    rows, unseen_rows, answers, unseen_answers = split()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, random_state=SEED)).fit(rows, answers)
    accuracy = model.score(unseen_rows, unseen_answers)
    print(f"accuracy on {len(unseen_rows)} unseen patients: {accuracy:.3f}")
    if accuracy < ENOUGH:
        raise SystemExit(f"less than {ENOUGH}: not saved")
    target = Path(__file__).with_name("model.joblib")
    joblib.dump(model, target)
    print(f"wrote {target.name}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
