"""Each example: trained by its script, packaged, run, asked, and equal to what its training process answers."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from stories import ask, get

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.envoy, pytest.mark.network, pytest.mark.examples, pytest.mark.timeout(400)]


def make(name, script):
    """Run the example's script in a process of its own, as its README says."""
    done = subprocess.run([sys.executable, EXAMPLES / name / script], timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return EXAMPLES / name


def module_of(path):
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_diagnosis_answers_unseen_patients_as_its_training_process_does(corten, port):
    import joblib

    folder = make("diagnosis", "train.py")
    _, rows, _, _ = module_of(folder / "train.py").split()
    up = corten.up(folder, "--port", port)
    status, answer = ask(up["url"], {"inputs": rows.tolist()})
    assert status == 200
    assert answer["outputs"] == joblib.load(folder / "model.joblib").predict(rows).tolist()
    assert up["build"]["size_bytes"] < 110_000_000


def test_digits_in_onnx_answers_as_onnx_runtime_does_on_real_scans(corten, port):
    from sklearn.datasets import load_digits

    folder = make("digits", "train.py")
    scans, labels = load_digits(return_X_y=True)
    up = corten.up(folder, "--port", port)
    seen = json.loads(get(up["url"], "openapi.json")[1])
    assert seen["openapi"].startswith("3.1")
    status, answer = ask(up["url"], {"inputs": (scans[-50:] / 16).tolist()})
    assert status == 200
    outputs = answer["outputs"]
    names = list(outputs) if isinstance(outputs, dict) else [None]
    best = outputs if names == [None] else outputs[names[0]]
    guesses = [row.index(max(row)) if isinstance(row, list) else row for row in best]
    assert sum(guess == label for guess, label in zip(guesses, labels[-50:].tolist(), strict=True)) >= 45


def test_the_annotator_finds_the_label_a_person_would_give(corten, port):
    folder = make("annotator", "make.py")
    up = corten.up(folder, "--port", port, "--replicas", "2")
    cases = {
        "The parcel never arrived and the tracking page says nothing.": "delivery",
        "I was charged twice for the same order.": "billing",
    }
    for text, label in cases.items():
        status, answer = ask(up["url"], {"text": text}, timeout_s=60)
        assert status == 200
        assert answer["outputs"][0]["name"] == label, answer
    refused, answer = ask(up["url"], {"txet": "a misspelt parameter"})
    assert refused == 422
    assert "text" in json.dumps(answer["error"])
