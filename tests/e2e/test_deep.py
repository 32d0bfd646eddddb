"""PyTorch, transformers and Keras in images: trained elsewhere, started in the sandbox, equal in their answers."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from stories import ask

SUPPORT = Path(__file__).parents[1] / "support"
pytestmark = [
    pytest.mark.envoy,
    pytest.mark.network,
    pytest.mark.torch,
    pytest.mark.examples,
    pytest.mark.timeout(500),
]
NET = """\
import torch


class Net(torch.nn.Module):
    def __init__(self, width: int = 64):
        super().__init__()
        self.hidden = torch.nn.Linear(width, width)
        self.last = torch.nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.hidden(x)))
"""


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Run a training script of tests/support with the digits beside it; gives its folder."""
    import numpy as np
    from sklearn.datasets import load_digits

    def run(script):
        folder = tmp_path_factory.mktemp(script.partition(".")[0])
        rows, digits = load_digits(return_X_y=True)
        np.save(folder / "digits.npy", np.column_stack([rows, digits]))
        (folder / "net.py").write_text(NET)
        command = [os.environ["CORTEN_TORCH_PYTHON"], SUPPORT / script, folder]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return folder

    return run


@pytest.fixture
def lock_torch():
    """Options and environment by which a lock finds PyTorch's build for CPUs on this machine."""
    wheels = Path(os.environ.get("CORTEN_TORCH_WHEELS", ""))
    found = sorted(wheels.glob("torch-*.whl"))
    if not found:
        pytest.skip("CORTEN_TORCH_WHEELS names no folder with a wheel of torch")
    release = found[-1].name.split("-")[1].partition("+")[0]
    return ["-r", f"torch=={release}"], {"UV_FIND_LINKS": str(wheels)}


def packages(corten, up):
    told = corten.run("inspect", up["build"]["digest"], "--json").json
    return {package["name"] for package in told["packages"]}


def near(answers, expected):
    for answer, row in zip(answers, expected, strict=True):
        assert answer == pytest.approx(row, abs=1e-5)


def test_a_class_of_pytorch_and_its_weights_answer_as_in_training_without_cuda(corten, port, train, lock_torch):
    options, env = lock_torch
    folder = train("train_nets.py")
    told = json.loads((folder / "net.json").read_text())
    given = [folder / "net.py:Net", "--file", folder / "net.safetensors", "--port", port, *options]
    up = corten.up(*given, env=env)
    status, answer = ask(up["url"], {"inputs": told["rows"]}, timeout_s=60)
    assert status == 200
    near(answer["outputs"], told["answers"])
    assert not [name for name in packages(corten, up) if name.startswith(("nvidia", "cuda", "triton"))]
    assert up["build"]["size_bytes"] < 250_000_000
    assert ask(up["url"], {"inputs": [["no number"]]})[0] == 422


def test_a_folder_without_a_graph_is_run_by_transformers(corten, port, train, lock_torch):
    options, env = lock_torch
    folder = train("train_texts.py")
    told = json.loads((folder / "classes.json").read_text())
    up = corten.up(folder / "classes", "--port", port, *options, env=env)
    for text, expected in zip(told["texts"][:5], told["answers"], strict=False):
        status, answer = ask(up["url"], {"text": text}, timeout_s=60)
        assert status == 200
        assert [one["label"] for one in answer["outputs"]] == [one["label"] for one in expected]
        assert [one["score"] for one in answer["outputs"]] == pytest.approx(
            [one["score"] for one in expected], abs=1e-5
        )


def test_a_model_of_keras_is_served_without_tensorflow(corten, port, train):
    folder = train("train_keras.py")
    told = json.loads((folder / "convolutions.json").read_text())
    up = corten.up(folder / "convolutions.keras", "--port", port)
    status, answer = ask(up["url"], {"inputs": told["rows"]}, timeout_s=60)
    assert status == 200
    near(answer["outputs"], told["answers"])
    names = packages(corten, up)
    assert "openvino" in names
    assert not names & {"tensorflow", "torch", "jax"}
    assert up["build"]["size_bytes"] < 210_000_000
