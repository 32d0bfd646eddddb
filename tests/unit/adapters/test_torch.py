"""The PyTorch adapter reads its zip files by itself; tests/e2e/test_frameworks.py runs programs."""

import collections
import io
import json
import pickle
import zipfile

import pytest

from corten.adapters import torch
from corten.adapters.base import Source
from corten.adapters.torch import Torch
from corten.adapters.torch_file import read_exported
from corten.adapters.torch_state import read_state
from corten.core.schema import DType, Tensor
from corten.errors import UsageError


def size(value):
    return (
        {"as_int": value} if isinstance(value, int) else {"as_expr": {"expr_str": f"Symbol('{value}', integer=True)"}}
    )


def tensor(name):
    return {"arg": {"as_tensor": {"name": name}}}


def program(*, inputs=None, outputs=None, ranges=None, **changed):
    """The graph of an exported program: names to (ScalarType, sizes)."""
    inputs = {"x": (7, ["s0", 4])} if inputs is None else inputs
    outputs = {"softmax": (7, ["s0", 3])} if outputs is None else outputs
    values = {
        name: {"dtype": dtype, "sizes": [size(one) for one in sizes]}
        for name, (dtype, sizes) in (inputs | outputs).items()
    }
    return {
        "graph_module": {
            "graph": {"tensor_values": values},
            "signature": {
                "input_specs": [
                    {"parameter": {"arg": {"name": "p_w"}, "parameter_name": "w"}},
                    *({"user_input": tensor(name)} for name in inputs),
                ],
                "output_specs": [{"user_output": tensor(name)} for name in outputs],
            },
        },
        "range_constraints": {"s0": {"min_val": 2, "max_val": None}} if ranges is None else ranges,
        "torch_version": "2.13.0+cpu",
    } | changed


@pytest.fixture
def write(tmp_path):
    def run(members, name="model.bin"):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(f"net/{member}", content)
        return Source(path)

    return run


@pytest.fixture
def export(write, monkeypatch):
    monkeypatch.setattr(torch, "installed", lambda _: "")

    def run(**told):
        return write({"archive_format": "pt2", "models/model.json": json.dumps(program(**told))})

    return run


SCRIPT = {"code/__torch__.py": "class Net(Module): ...", "constants.pkl": "", "data.pkl": "", "version": "3\n"}


def test_an_exported_program_tells_version_and_tensors(export):
    source = export()
    assert Torch().detect(source)
    found = Torch().inspect(source)
    assert found.schema.inputs == (Tensor("x", DType.FLOAT32, (None, 4)),)
    assert found.schema.outputs == (Tensor("outputs", DType.FLOAT32, (None, 3)),)
    assert found.requirements == ("torch==2.13.0", "numpy")
    assert not found.warnings


def test_a_release_other_than_the_one_here_is_warned_of_with_both(export, monkeypatch):
    monkeypatch.setattr(torch, "installed", lambda _: "2.9.1")
    assert "2.9.1 is installed here; the image gets the model's 2.13.0" in Torch().inspect(export()).warnings[0]
    assert "taking PyTorch 2.9.1" in Torch().inspect(export(torch_version=None)).warnings[0]


def test_several_tensors_and_bounds_are_told(export):
    found = Torch().inspect(
        export(
            inputs={"ids": (5, ["s0", "s1"]), "mask": (12, ["s0", "s1"])},
            outputs={"a": (7, ["s0", 2]), "b": (8, ["s0"])},
            ranges={"s0": {"min_val": 2, "max_val": 64}},
        )
    )
    assert found.schema.inputs == (
        Tensor("ids", DType.INT64, (None, None)),
        Tensor("mask", DType.BOOL, (None, None)),
    )
    assert [one.name for one in found.schema.outputs] == ["output_0", "output_1"]
    assert any("64 rows at once" in note for note in found.notes)


def test_a_fixed_batch_stays_fixed_and_is_told(export):
    found = Torch().inspect(export(inputs={"x": (7, [1, 4])}, outputs={"y": (7, [1, 3])}))
    assert found.schema.inputs[0].shape == (1, 4)
    assert any("not joined" in note for note in found.notes)
    assert read_exported(export(inputs={"x": (7, [1, 4])}).path).most_rows is None


def test_torchscript_is_served_with_a_warning_about_its_shapes(write):
    source = write(SCRIPT)
    assert Torch().detect(source)
    found = Torch().inspect(source)
    assert found.schema.inputs[0].dtype is DType.JSON
    assert "no shapes" in found.warnings[0]
    assert "does not tell its version" in found.warnings[1]
    declared = Torch().inspect(Source(source.path, requirements=("torch==2.13.0",)))
    assert len(declared.warnings) == 1


class Storage:
    """What a tensor's numbers are in: a member of its own in the file, a persistent id in the pickle."""


class StatePickler(pickle.Pickler):
    def persistent_id(self, thing):
        return ("storage", "FloatStorage", "0", "cpu", 4) if isinstance(thing, Storage) else None


def _rebuild_tensor_v2(storage):
    raise AssertionError("nothing is unpickled")


class Weights:
    def __reduce__(self):
        return _rebuild_tensor_v2, (Storage(),)


def saved(thing):
    stream = io.BytesIO()
    StatePickler(stream, 2).dump(thing)
    return {"data.pkl": stream.getvalue(), "version": "3\n", "data/0": bytes(16)}


def state(*names):
    made = collections.OrderedDict((name, Weights()) for name in names)
    made._metadata = {"": {"version": 1}}  # as PyTorch sets it
    return made


@pytest.mark.parametrize(
    "thing",
    [state("a.weight", "a.bias"), {"epoch": 3, "model_state_dict": state("module.a.weight", "module.a.bias")}],
)
def test_a_state_dict_is_told_by_its_names_and_nothing_is_unpickled(thing, write):
    assert read_state(write(saved(thing)).path).names == ("a.weight", "a.bias")


def test_tensors_without_a_program_are_refused_with_both_ways_out(write):
    source = write(saved(state("a.weight")))
    assert Torch().detect(source)
    with pytest.raises(UsageError) as refused:
        Torch().inspect(source)
    assert refused.value.code == "adapter.not_a_model"
    assert "1 tensors (a.weight)" in refused.value.why
    assert "net.py:Net" in refused.value.hint
    assert "torch.export.save" in refused.value.hint


def test_safetensors_in_a_hugging_face_folder_lead_to_the_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(UsageError) as refused:
        Torch().inspect(Source(tmp_path / "model.safetensors"))
    assert f"corten up {tmp_path}" in refused.value.hint


@pytest.mark.parametrize("thing", [Weights, {"labels": ["a"]}, ["a"], {}])
def test_another_object_than_a_state_dict_is_refused(thing, write):
    with pytest.raises(UsageError) as refused:
        read_state(write(saved(thing)).path)
    assert refused.value.code == "adapter.not_a_model"
    assert "state_dict()" in refused.value.hint


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"inputs": {}}, "adapter.contract"),
        ({"inputs": {"x": (7, [])}}, "adapter.contract"),
        ({"inputs": {"x": (9, [None, 4])}}, "adapter.contract"),
        ({"graph_module": {}}, "adapter.corrupt_model"),
        ({"graph_module": 7}, "adapter.corrupt_model"),
        (
            {
                "graph_module": {
                    "graph": {"tensor_values": {}},
                    "signature": {"input_specs": [{"user_input": {"arg": {"as_int": 3}}}], "output_specs": []},
                }
            },
            "adapter.contract",
        ),
    ],
)
def test_programs_that_no_request_fits_are_refused(told, code, export):
    with pytest.raises(UsageError) as refused:
        Torch().inspect(export(**told))
    assert refused.value.code == code


def test_broken_and_other_zip_files_are_told_apart(write, tmp_path):
    assert not Torch().detect(write({"schema.json": "{}"}))
    (tmp_path / "cut").write_bytes(b"PK\x03\x04cut")
    assert not Torch().detect(Source(tmp_path / "cut"))
    broken = write({"archive_format": "pt2", "models/model.json": "{"})
    with pytest.raises(UsageError) as refused:
        Torch().inspect(broken)
    assert refused.value.code == "adapter.corrupt_model"
    two = write({"archive_format": "pt2", "models/a.json": "{}", "models/b.json": "{}"})
    with pytest.raises(UsageError) as refused:
        Torch().inspect(two)
    assert "2 programs" in refused.value.what


def test_other_methods_than_forward_are_refused(export):
    with pytest.raises(UsageError) as refused:
        Torch().inspect(Source(export().path, method="predict_proba"))
    assert refused.value.code == "adapter.unknown_method"
