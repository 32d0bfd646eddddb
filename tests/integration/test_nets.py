"""A class of PyTorch with its weights, in every form they are saved in, answers as it did where it was trained."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from corten.adapters.base import Source
from corten.adapters.torch import Torch
from corten.adapters.torchclass import TorchClass
from corten.errors import UsageError

TESTS = Path(__file__).parents[1]
pytestmark = [pytest.mark.torch, pytest.mark.examples]
NET = """\
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return torch.relu(self.linear(x)) + x


class Net(nn.Module):
    def __init__(self, width: int = 64):
        super().__init__()
        self.blocks = nn.Sequential(Block(width), nn.Dropout(0.5), Block(width))
        self.last = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.blocks(x))
"""


def run(script, *words, given=""):
    return subprocess.run(
        [os.environ["CORTEN_TORCH_PYTHON"], TESTS / "support" / script, *map(str, words)],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent / "src")},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    import numpy as np
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("nets")
    rows, digits = load_digits(return_X_y=True)
    np.save(folder / "digits.npy", np.column_stack([rows, digits]))
    (folder / "net.py").write_text(NET)
    done = run("train_nets.py", folder)
    assert done.returncode == 0, done.stderr
    return folder


def inspected(folder, weights):
    return TorchClass().inspect(Source(folder / "net.py", entry="Net", extra_files=(folder / weights,)))


def answered(folder, weights, rows):
    spec = {"files": [weights], "rows": {"inputs": rows}, "app": str(folder)}
    return run("answers.py", "torchclass", folder, "net:Net", given=json.dumps(spec))


@pytest.mark.parametrize("weights", ["net.safetensors", "net.pt", "checkpoint.pt", "misnamed.safetensors"])
def test_the_class_with_its_weights_answers_as_it_did_in_training(weights, trained):
    shutil.copy(trained / "net.pt", trained / "misnamed.safetensors")  # PyTorch itself goes by the ending
    told = json.loads((trained / "net.json").read_text())
    assert told["right"] > 0.8
    found = inspected(trained, weights)
    assert found.weights[0].name == weights
    assert not [warning for warning in found.warnings if "does not" in warning]
    done = answered(trained, weights, told["rows"])
    assert done.returncode == 0, done.stderr
    (answers,) = json.loads(done.stdout)["rows"].values()
    for answer, expected in zip(answers, told["answers"], strict=True):
        assert answer == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("weights", "says"), [("short.pt", "it lacks `last.bias`"), ("narrow.pt", "size mismatch")])
def test_weights_of_another_class_are_refused_and_named(weights, says, trained):
    done = answered(trained, weights, [[0.0] * 64])
    assert done.returncode
    assert "does not hold the weights of `Net`" in done.stderr
    assert says in done.stderr


def test_a_pickled_module_is_refused_before_it_is_loaded(trained):
    with pytest.raises(UsageError) as refused:
        inspected(trained, "pickled.pt")
    assert refused.value.code == "adapter.not_a_model"
    assert "net.Net" in refused.value.what


@pytest.mark.parametrize("weights", ["net.safetensors", "net.pt"])
def test_weights_alone_are_refused_with_both_ways_on(weights, trained):
    assert Torch().detect(Source(trained / weights))
    with pytest.raises(UsageError) as refused:
        Torch().inspect(Source(trained / weights))
    assert "weights and no program" in refused.value.what
    assert "net.py:Net" in refused.value.hint
    assert "torch.export.save" in refused.value.hint
