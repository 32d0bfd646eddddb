"""Models of Keras, trained with PyTorch as its backend, answer the same by OpenVINO, alone and in batches."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from corten.adapters.base import Source
from corten.adapters.keras import Keras

TESTS = Path(__file__).parents[1]
pytestmark = [pytest.mark.torch, pytest.mark.examples]


def run(script, *words, given="", **env):
    done = subprocess.run(
        [os.environ["CORTEN_TORCH_PYTHON"], TESTS / "support" / script, *map(str, words)],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent / "src"), **env},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    import numpy as np
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("keras")
    rows, digits = load_digits(return_X_y=True)
    np.save(folder / "digits.npy", np.column_stack([rows, digits]))
    run("train_keras.py", folder)
    return folder


def answered(folder, name, rows):
    given = json.dumps({"files": [f"{name}.keras"], "rows": rows})
    # An image has OpenVINO alone; here PyTorch lies beside it.
    return json.loads(run("answers.py", "keras", folder, "", given=given, KERAS_BACKEND="openvino"))["rows"]


@pytest.mark.parametrize("name", ["convolutions", "recurrent"])
def test_a_trained_model_answers_the_same_without_the_backend_it_was_trained_with(name, trained):
    told = json.loads((trained / f"{name}.json").read_text())
    assert told["right"] > 0.5  # of ten digits
    for rows in (told["rows"], told["rows"][:1]):
        answers = answered(trained, name, {"inputs": rows})["outputs"]
        for answer, expected in zip(answers, told["answers"][: len(rows)], strict=True):
            assert answer == pytest.approx(expected, abs=1e-5)


def test_inputs_and_outputs_keep_the_names_they_have(trained):
    found = Keras().inspect(Source(trained / "ends.keras"))
    assert [(tensor.name, tensor.shape) for tensor in found.schema.inputs] == [
        ("rows", (None, 8, 8)),
        ("first", (None, 8)),
    ]
    told = json.loads((trained / "ends.json").read_text())
    answers = answered(trained, "ends", told["rows"])
    assert set(answers) == {tensor.name for tensor in found.schema.outputs}
    for name, expected in told["answers"].items():
        key = name if name in answers else "dense"
        for answer, row in zip(answers[key], expected, strict=True):
            assert answer == pytest.approx(row, abs=1e-5)
