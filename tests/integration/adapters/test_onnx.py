"""The ONNX adapter reads the head of a file by itself, and runs the model with ONNX Runtime where that is installed."""

import importlib.util
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corten.adapters.base import InputError, Source
from corten.adapters.onnx import Onnx
from corten.adapters.onnx_file import read_onnx
from corten.adapters.threads import threads
from corten.core.model import ModelSpec
from corten.core.schema import DType, Tensor
from corten.errors import UsageError

needs_onnx = pytest.mark.examples
needs_runtime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None,
    reason="onnxruntime is not installed (tests/e2e runs it in an image)",
)


@pytest.fixture(scope="module")
def graph():
    """Make a model: y = x @ w, with shapes as given."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    def make(shape, *, element=TensorProto.FLOAT, listed=False, domain="", ir_version=10):
        weights = numpy_helper.from_array(np.arange(8, dtype="f4").reshape(4, 2), "w")
        inputs = [helper.make_tensor_value_info("x", element, shape)]
        if listed:
            inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 2]))
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])]
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
        return helper.make_model(
            helper.make_graph(nodes, "g", inputs, outputs, [weights]), ir_version=ir_version, opset_imports=opsets
        )

    return make


@pytest.fixture
def write(tmp_path):
    def run(data, name="model.onnx"):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
        return Source(path)

    return run


@needs_onnx
@pytest.mark.parametrize("free", [None, "n", 0, -1])
def test_inputs_and_outputs_are_told_and_free_lengths_are_none(free, graph, write):
    source = write(graph([free, 4]), "weights.pkl")
    assert Onnx().detect(source)
    found = Onnx().inspect(source)
    assert found.schema.inputs == (Tensor("x", DType.FLOAT32, (None, 4)),)
    assert found.schema.outputs == (Tensor("y", DType.FLOAT32, (None, 2)),)
    assert found.requirements == ("onnxruntime", "numpy")
    assert "ONNX, IR version 10, operator sets ai.onnx 17" in found.notes


@needs_onnx
def test_a_fixed_batch_stays_fixed_and_is_told(graph, write):
    found = Onnx().inspect(write(graph([1, 4])))
    assert found.schema.inputs[0].shape == (1, 4)
    assert any("not joined" in note for note in found.notes)


@needs_onnx
def test_weights_listed_among_the_inputs_are_no_inputs(graph, write):
    assert [tensor.name for tensor in read_onnx(write(graph(["n", 4], listed=True)).path).inputs] == ["x"]


@needs_onnx
def test_every_type_that_fits_a_request_is_told_and_others_are_refused(graph, write):
    from onnx import TensorProto

    told = {}
    for name, code in TensorProto.DataType.items():
        if name != "UNDEFINED":
            try:
                told[name] = read_onnx(write(graph([None, 4], element=code)).path).inputs[0].dtype.value
            except UsageError as error:
                told[name] = error.why.partition("has ")[2][:20]
    for name in ("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT32", "UINT64", "FLOAT16"):
        assert told[name] == name.lower()
    assert told["FLOAT"] == "float32"
    assert told["DOUBLE"] == "float64"
    assert told["STRING"] == "string"
    assert told["UINT16"] == "uint16"
    assert told["BFLOAT16"].startswith("element type 16")


@needs_onnx
def test_unknown_operators_are_warned_of(graph, write):
    assert any("my.ops" in warning for warning in Onnx().inspect(write(graph([None, 4], domain="my.ops"))).warnings)


@needs_onnx
def test_weights_in_other_files_go_along_or_are_missed(graph, tmp_path):
    import onnx

    path = tmp_path / "model.onnx"
    onnx.save_model(graph([None, 4]), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    found = Onnx().inspect(Source(path))
    assert [file.name for file in found.weights] == ["model.onnx", "w.bin"]
    (tmp_path / "w.bin").unlink()
    with pytest.raises(UsageError, match=r"w\.bin") as caught:
        Onnx().inspect(Source(path))
    assert caught.value.code == "adapter.missing_weights"


@needs_onnx
@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "a/../../w.bin", "a\\b", ""])
def test_weights_outside_of_the_folder_are_refused(location, graph, write):
    from onnx import TensorProto

    model = graph([None, 4])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    with pytest.raises(UsageError) as caught:
        Onnx().inspect(write(model))
    assert caught.value.code == "adapter.unsafe_path"


@needs_onnx
def test_external_weights_of_inner_graphs_are_found(graph, tmp_path):
    from onnx import TensorProto, helper

    tensor = TensorProto(name="t", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "inner.bin"
    inner = helper.make_graph([], "inner", [], [], [tensor])
    model = graph([None, 4])
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_onnx(path).external == ("inner.bin",)


@needs_onnx
def test_every_truncation_is_an_error_or_a_smaller_model(graph, tmp_path):
    data = graph([None, 4]).SerializeToString()
    path = tmp_path / "model.onnx"
    refused = 0
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            read_onnx(path)
        except UsageError as error:
            refused += 1
            assert error.code == "adapter.corrupt_model"  # noqa: PT017  # most lengths raise, not all
    assert refused > len(data) * 0.9


@given(data=st.binary(max_size=300))
@settings(deadline=1000)
def test_any_bytes_give_a_model_or_an_error_of_ours(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    for head in (b"", b"\x08\x0a", b"\x08\x0a\x3a" + bytes([min(len(data), 127)])):
        path.write_bytes(head + data)
        assert outcome(path) in {"read", "adapter.corrupt_model"}


@needs_onnx
@given(data=st.data())
@settings(deadline=1000)
def test_a_damaged_model_gives_a_model_or_an_error_of_ours(data, graph, tmp_path_factory):
    damaged = bytearray(graph([None, 4]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(damaged)
    assert outcome(path) in {"read", "adapter.corrupt_model"}


def outcome(path):
    try:
        read_onnx(path)
    except UsageError as error:
        return error.code
    return "read"


def test_graphs_in_graphs_without_end_are_refused(tmp_path):
    def message(number, data):
        length = len(data)
        size = bytearray()
        while length >= 0x80:
            size.append(length & 0x7F | 0x80)
            length >>= 7
        return bytes([number << 3 | 2]) + bytes([*size, length]) + data

    inner = b""
    for _ in range(200):
        inner = message(1, message(5, message(6, inner)))
    path = tmp_path / "deep.onnx"
    path.write_bytes(b"\x08\x0a" + message(7, inner))
    with pytest.raises(UsageError, match="nested too deep"):
        read_onnx(path)


@pytest.mark.parametrize(
    "data", [b"", b"\x08", b"PK\x03\x04", b"\x80\x04\x95", b"hello", b"\x08\x00\x12", b"\x08\xff\x12"]
)
def test_other_files_are_left_to_other_adapters(data, write, tmp_path):
    assert not Onnx().detect(write(data))
    assert not Onnx().detect(Source(tmp_path))


def test_a_model_without_outputs_is_refused(write):
    with pytest.raises(UsageError, match="0 inputs and 0 outputs"):
        Onnx().inspect(write(b"\x08\x0a\x3a\x00"))


@needs_onnx
def test_there_are_no_other_methods(graph, write):
    with pytest.raises(UsageError, match="predict_proba"):
        Onnx().inspect(Source(write(graph([None, 4])).path, method="predict_proba"))


@pytest.mark.parametrize(
    ("value", "expected"), [("3", 3), ("", None), ("0", None), ("x", None), ("-1", None), ("٣", None)]
)
def test_threads_are_as_told_else_as_many_as_processors(value, expected):
    assert threads({"CORTEN_THREADS": value}) == (expected or len(os.sched_getaffinity(0)))


@needs_onnx
def test_inspection_imports_neither_onnx_nor_numpy(graph, write):
    source = write(graph([None, 4]))
    code = (
        "import sys; from pathlib import Path; from corten.adapters.base import Source\n"
        "from corten.adapters.onnx import Onnx\n"
        f"Onnx().inspect(Source(Path({str(source.path)!r})))\n"
        "print(*sorted({'numpy', 'onnx', 'onnxruntime', 'google'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == ""


@pytest.fixture
def load():
    def run(source):
        adapter = Onnx()
        found = adapter.inspect(source)
        return adapter.load(
            ModelSpec("m", "onnx", (source.path.name,), schema=found.schema), source.path.parent, source.path.parent
        )

    return run


@needs_onnx
@needs_runtime
def test_the_model_computes_and_takes_other_number_types(graph, write, load):
    import numpy as np

    model = load(write(graph([None, 4])))
    answers = model.run({"x": np.ones((3, 4), dtype="f8")})["y"]
    assert answers.tolist() == [[12.0, 16.0]] * 3


@needs_onnx
@needs_runtime
def test_a_wrong_shape_is_the_requests_fault_and_said_without_the_runtimes_code(graph, write, load):
    import numpy as np

    with pytest.raises(InputError, match="invalid dimensions for input: x") as caught:
        load(write(graph([None, 4]))).run({"x": np.ones((3, 5))})
    assert caught.value.path == "inputs"
    assert "INVALID_ARGUMENT" not in caught.value.message


@needs_onnx
@needs_runtime
@pytest.mark.slow  # importing the converter alone takes seconds
def test_a_classifier_with_zipmap_answers_in_json_values(trained, write, load):
    import msgspec
    import numpy as np
    from skl2onnx import to_onnx

    source = write(to_onnx(trained["forest"], np.zeros((1, 4), dtype="f4")))
    found = load(source).run({"X": np.ones((2, 4))})
    probabilities = found["output_probability"].tolist()
    assert set(probabilities[0]) == {"setosa", "versicolor", "virginica"}
    assert msgspec.json.decode(msgspec.json.encode(probabilities)) == probabilities
    assert found["output_label"].tolist()[0] in probabilities[0]


@needs_onnx
@needs_runtime
def test_loading_leaves_no_telemetry_behind(graph, write, tmp_path):
    source = write(graph([None, 4]))
    code = f"from pathlib import Path; from corten.adapters.onnx_session import open_session\nopen_session(Path({str(source.path)!r}))"
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=env, timeout=60, check=True)
    assert list(home.rglob("*")) == []
