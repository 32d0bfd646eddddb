"""A class of PyTorch is read as text; tests/integration/test_nets.py runs one."""

import pytest

from corten import plugin
from corten.adapters.base import Source
from corten.adapters.torchclass import TorchClass
from corten.builder import inspecting
from corten.errors import UsageError

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.first = nn.Linear(width, 3)
        self.register_buffer("scale", torch.ones(3))
    def forward(self, x: torch.Tensor, mask=None):
        return self.first(x) * self.scale
"""
WEIGHTS = (
    b'{"first.weight":{"dtype":"F32","shape":[3,1],"data_offsets":[0,12]},'
    b'"scale":{"dtype":"F32","shape":[3],"data_offsets":[12,24]}}'
)


@pytest.fixture
def write(tmp_path):
    def run(text=NET, entry="", head=WEIGHTS):
        (tmp_path / "net.py").write_text(text)
        if head:
            (tmp_path / "net.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(24))
        extra = (tmp_path / "net.safetensors",) if head else ()
        return Source(tmp_path / "net.py", entry=entry, extra_files=extra)

    return run


def adapter_of(source):
    adapters = (plugin.find("adapters", name)() for name in plugin.BUILT_IN["adapters"])
    return next(adapter.name for adapter in adapters if adapter.detect(source))


def test_a_module_brings_its_class_its_weights_and_says_what_it_needs(write):
    source = write()
    assert adapter_of(source) == "torchclass"
    found = TorchClass().inspect(source)
    assert found.entry == "net:Net"
    assert found.weights[0].name == "net.safetensors"
    assert found.notes[:2] == ("a module of PyTorch, forward(inputs)", "2 tensors in `net.safetensors`, safetensors")
    assert "safetensors" in found.requirements
    assert any(line.startswith("torch") for line in found.requirements)
    assert [tensor.name for tensor in found.schema.inputs] == ["inputs"]


def test_a_module_of_several_tensors_is_asked_for_each_by_name(write):
    text = NET.replace("mask=None", "mask: torch.BoolTensor")
    assert [tensor.name for tensor in TorchClass().inspect(write(text)).schema.inputs] == ["x", "mask"]


def test_a_class_with_predict_of_its_own_is_no_bare_module(write):
    assert adapter_of(write(NET.replace("def forward", "def predict"))) == "pyclass"
    beside = NET + "class Model:\n    def predict(self, x: float) -> float: ...\n"
    assert adapter_of(write(beside)) == "pyclass"
    assert adapter_of(write(beside, entry="Net")) == "torchclass"


def test_of_several_modules_the_one_made_of_the_others_serves(write):
    text = (
        NET
        + "class Outer(nn.Module):\n    def __init__(self):\n        self.net = Net()\n    def forward(self, x): ...\n"
    )
    assert TorchClass().inspect(write(text)).entry == "net:Outer"


def test_weights_the_class_does_not_seem_to_have_are_a_warning_that_names_both(write):
    text = NET.replace("self.first =", "self.other =")
    (doubt,) = [line for line in TorchClass().inspect(write(text)).warnings if "does not" in line]
    assert doubt == "`net.safetensors` has `first`, `Net` does not"
    assert not [line for line in TorchClass().inspect(write()).warnings if "does not" in line]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"head": b""}, "no files of weights"),
        ({"text": NET.replace("width: int = 8", "width")}, "needs `width`"),
        ({"text": NET.replace("def forward", "def run")}, "no method `forward`"),
        ({"text": NET.replace("self, x: torch.Tensor, mask=None", "self, x=None")}, "takes no tensor"),
        ({"text": NET + NET.replace("Net(", "Other(")}, "2 modules"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(changed, says, write):
    with pytest.raises(UsageError) as refused:
        TorchClass().inspect(write(**changed))
    assert says in refused.value.what
    assert refused.value.hint


def test_the_builder_finds_it_among_the_adapters_it_asks_about_modules(write, tmp_path):
    _, found = inspecting.inspect(write(entry="Net"), cache=tmp_path / "cache")
    assert found.adapter == "torchclass"
