"""PyTorch, transformers and Keras in images: trained elsewhere, started in the sandbox, equal in their answers."""

import json
import os
import shutil
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

OWN = """

from pathlib import Path


class Own:
    def __init__(self, models: Path):
        self.net = Net()
        self.net.load_state_dict(torch.load(models / "state.pt", weights_only=True))

    def predict(self, pixels: list[float]) -> list[float]:
        with torch.inference_mode():
            return self.net(torch.tensor([pixels]))[0].tolist()
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


@pytest.fixture(scope="module")
def nets(train):
    """The folder with a small network in all its forms, and what it answered when it was trained."""
    folder = train("train_nets.py")
    return folder, json.loads((folder / "net.json").read_text())


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


def test_a_class_of_pytorch_and_its_weights_answer_as_in_training_without_cuda(corten, port, nets, lock_torch):
    options, env = lock_torch
    folder, told = nets
    given = [folder / "net.py:Net", "--file", folder / "net.safetensors", "--port", port, *options]
    up = corten.up(*given, env=env)
    status, answer = ask(up["url"], {"inputs": told["rows"]}, timeout_s=60)
    assert status == 200
    near(answer["outputs"], told["answers"])
    assert not [name for name in packages(corten, up) if name.startswith(("nvidia", "cuda", "triton"))]
    assert up["build"]["size_bytes"] < 250_000_000
    assert ask(up["url"], {"inputs": [["no number"]]})[0] == 422


def test_an_exported_program_is_told_by_its_content_and_takes_rows_in_turns(corten, port, folder, nets, lock_torch):
    options, env = lock_torch
    trained, told = nets
    shutil.copy(trained / "program.pt2", folder / "weights.bin")
    up = corten.up(folder / "weights.bin", "--port", port, "--name", "program", *options, env=env)
    for count in (1, 20):  # it was exported for 16 at most
        status, answer = ask(up["url"], {"inputs": told["rows"][:count]}, timeout_s=60)
        assert status == 200, answer
        near(answer["outputs"], told["answers"][:count])
    assert ask(up["url"], {"inputs": [[1.0, 2.0]]})[0] == 422


def test_a_torchscript_program_answers_the_same(corten, port, nets, lock_torch):
    options, env = lock_torch
    trained, told = nets
    up = corten.up(trained / "script.pt", "--port", port, "--name", "script", *options, env=env)
    status, answer = ask(up["url"], {"inputs": told["rows"]}, timeout_s=60)
    assert status == 200, answer
    near(answer["outputs"], told["answers"])
    refused, answer = ask(up["url"], {"inputs": [["x", *told["rows"][0][1:]]]})
    assert refused == 422, answer


def test_a_state_dict_is_served_by_a_class_of_ones_own_that_loads_it(corten, port, folder, nets, lock_torch):
    options, env = lock_torch
    trained, told = nets
    (folder / "model").mkdir()
    shutil.copy(trained / "net.pt", folder / "model" / "state.pt")
    (folder / "own.py").write_text(NET + OWN)
    refused = corten.run("build", folder / "model" / "state.pt", "--json", code=2)
    assert "net.py:Net --file state.pt" in refused.json["error"]["hint"]
    up = corten.up(f"{folder}/own.py:Own", "--port", port, "--name", "own", *options, env=env)
    status, answer = ask(up["url"], {"pixels": told["rows"][0]}, timeout_s=60)
    assert status == 200, answer
    near([answer["outputs"]], told["answers"][:1])


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
    # Told by its content, and in the image it has the ending that Keras goes by.
    shutil.copy(folder / "convolutions.keras", folder / "weights.bin")
    up = corten.up(folder / "weights.bin", "--port", port, "--name", "convolutions")
    status, answer = ask(up["url"], {"inputs": told["rows"]}, timeout_s=60)
    assert status == 200
    near(answer["outputs"], told["answers"])
    names = packages(corten, up)
    assert "openvino" in names
    assert not names & {"tensorflow", "torch", "jax"}
    assert up["build"]["size_bytes"] < 210_000_000
