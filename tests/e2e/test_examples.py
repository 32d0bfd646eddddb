"""Each example: trained by its script, packaged, run, asked, and equal to what its training process answers."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stories import ask, get

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.envoy, pytest.mark.network, pytest.mark.examples]


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


def test_a_hugging_face_folder_embeds_as_its_authors_library_does_without_pytorch(corten, port):
    folder = make("embedder", "make.py")
    up = corten.up(folder, "--port", port)
    texts = ["Hello world", "A man is eating food.", "A man eats a piece of bread.", "A woman plays the violin."]
    body = {"model": "embedder", "input": texts}
    status, answer = ask(up["url"], body, path="v1/embeddings", timeout_s=60)
    assert status == 200
    first, eats, bread, violin = (one["embedding"] for one in answer["data"])
    # What sentence-transformers gives for this text with the same weights (compared to 1e-6 when this was written).
    assert first[:4] == pytest.approx([-0.034477, 0.031023, 0.006735, 0.026109], abs=1e-5)
    assert sum(a * b for a, b in zip(eats, bread, strict=True)) > sum(a * b for a, b in zip(eats, violin, strict=True))
    assert ask(up["url"], {"text": "Hello world"})[1]["outputs"] == pytest.approx(first, abs=1e-6)
    assert ask(up["url"], {"text": 1})[0] == 422
    packages = {one["name"] for one in corten.run("inspect", up["build"]["digest"], "--json").json["packages"]}
    assert "onnxruntime" in packages
    assert not packages & {"torch", "transformers", "sentence-transformers"}
    assert up["build"]["size_bytes"] < 180_000_000


def test_without_a_sandbox_it_runs_as_a_plain_process_and_says_so_loudly(corten, port, digits_model):
    plain = {"CORTEN_SANDBOX": "none"}
    done = corten.run("up", digits_model["paths"][0], "--port", port, env=plain)
    assert "WITHOUT a sandbox" in done.err
    rows = digits_model["rows"]
    status, answer = ask(done.out.strip(), {"inputs": rows.tolist()})
    assert status == 200
    assert answer["outputs"] == digits_model["models"][0].predict(rows).tolist()
    assert "none (plain process)" in corten.run("status").err


def test_a_notebook_gets_from_an_estimator_to_a_service_in_two_lines(corten, port, digits_model):
    code = (
        "import corten, joblib, json, sys\n"
        f"model = joblib.load({str(digits_model['paths'][0])!r})\n"
        f"rows = json.loads({json.dumps(digits_model['rows'].tolist())!r})\n"
        "image = corten.package(model, name='notebook', example=rows[:2])\n"
        f"print(image.deploy(replicas=1, port={port}).url)\n"
    )
    env = {**os.environ, "CORTEN_HOME": str(corten.home)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, env=env)
    assert done.returncode == 0, done.stderr
    status, answer = ask(done.stdout.strip().splitlines()[-1], {"inputs": digits_model["rows"].tolist()})
    assert status == 200
    assert answer["outputs"] == digits_model["models"][0].predict(digits_model["rows"]).tolist()
