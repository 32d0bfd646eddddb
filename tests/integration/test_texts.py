"""Folders of transformers, really trained, answer as transformers' own pipelines do: with PyTorch, and by ONNX without."""

import json
import os
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
pytestmark = [pytest.mark.torch]


def run(script, *words, given=""):
    """A script of tests/support, by the Python that has PyTorch."""
    done = subprocess.run(
        [os.environ["CORTEN_TORCH_PYTHON"], TESTS / "support" / script, *map(str, words)],
        input=given,
        capture_output=True,
        text=True,
        # The order of sets is part of what is trained on: the seed of the script alone does not fix it.
        env={**os.environ, "PYTHONPATH": str(TESTS.parent / "src"), "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    run("train_texts.py", folder)
    return folder


def answered(folder, calls, graph=""):
    return json.loads(run("answers.py", "huggingface", folder, graph, given=json.dumps({"calls": calls})))["calls"]


@pytest.mark.parametrize("form", ["classes", "classes-onnx"])
def test_a_classifier_answers_as_the_pipeline_alone_and_for_pairs(form, trained):
    told = json.loads((trained / "classes.json").read_text())
    assert told["right"] > 0.5  # it has learnt something: chance is a third, and sums of floats differ with the load
    calls = [{"text": text} for text in told["texts"]]
    calls += [{"text": pair["text"], "pair": pair["text_pair"]} for pair in told["pairs"]]
    answers = answered(trained / form, calls, "onnx/model.onnx" if form.endswith("onnx") else "")
    for answer, expected in zip(answers, told["answers"] + told["paired"], strict=True):
        assert [one["label"] for one in answer] == [one["label"] for one in expected]
        assert [one["score"] for one in answer] == pytest.approx([one["score"] for one in expected], abs=1e-5)


@pytest.mark.parametrize("form", ["names", "names-onnx"])
def test_names_are_found_where_the_pipeline_finds_them(form, trained):
    told = json.loads((trained / "names.json").read_text())
    calls = [{"text": text} for text in told["texts"]]
    answers = answered(trained / form, calls, "onnx/model.onnx" if form.endswith("onnx") else "")
    assert sum(map(len, told["answers"])) > 20
    for call, answer, expected in zip(calls, answers, told["answers"], strict=True):
        assert [(one["label"], one["start"], one["end"]) for one in answer] == [
            (one["label"], one["start"], one["end"]) for one in expected
        ]
        assert [one["text"] for one in answer] == [call["text"][one["start"] : one["end"]] for one in answer]
        assert [one["score"] for one in answer] == pytest.approx([one["score"] for one in expected], abs=1e-5)


def test_weights_that_lack_the_classifier_are_refused_and_not_made_up(trained, tmp_path):
    # transformers only warns of it, and answers with random numbers.
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((trained / "classes" / name).read_bytes())
    weights = (trained / "classes" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights.replace(b'"classifier.weight"', b'"klassifier.weight"'))
    with pytest.raises(AssertionError, match="lack"):
        answered(tmp_path, [{"text": "a text"}])
