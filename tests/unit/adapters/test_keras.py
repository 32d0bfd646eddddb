"""Files of Keras are read by their documents; tests/integration/test_keras.py runs some."""

import json
import zipfile

import pytest

from corten.adapters import keras
from corten.adapters.base import Source
from corten.adapters.keras import Keras
from corten.core.schema import DType, Tensor
from corten.errors import PolicyError, UsageError


def layer(kind, module="keras.layers", *, build=None, **config):
    return {
        "module": module,
        "class_name": kind,
        "config": config,
        "registered_name": None if module else kind,
        **({"build_config": {"input_shape": build}} if build else {}),
    }


def sequential(*layers, **changed):
    first = layer("InputLayer", batch_shape=[None, 64], dtype="float32", name="pixels")
    last = layer("Dense", build=[None, 64], name="last", units=10, activation="softmax")
    config = {"name": "net", "layers": [first, *layers, last]}
    return {"module": "keras", "class_name": "Sequential", "config": config} | changed


@pytest.fixture
def write(tmp_path, monkeypatch):
    def run(config=None, version="3.15.1", *, here="", weights=b"\x89HDF", name="model.bin"):
        monkeypatch.setattr(keras, "installed", lambda distribution: here)
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": version}))
            archive.writestr("config.json", json.dumps(config or sequential()))
            if weights:
                archive.writestr("model.weights.h5", weights)
        return Source(path)

    return run


def test_a_file_is_told_by_its_members_and_says_its_release_its_layers_and_its_inputs(write):
    source = write()
    assert Keras().detect(source)
    found = Keras().inspect(source)
    assert found.requirements == ("keras==3.15.1", "numpy", "scipy", "openvino")
    assert found.schema.inputs == (Tensor("inputs", DType.FLOAT32, (None, 64)),)
    assert found.schema.outputs == (Tensor("outputs", DType.FLOAT32, (None, 10)),)
    assert found.notes[0] == "Keras 3.15.1, Sequential of 2 layers, from inputs [?, 64]"
    assert not found.warnings


def test_in_the_image_a_file_has_the_ending_that_keras_goes_by(write):
    assert Keras().inspect(write()).weights[0].name == "model.bin.keras"
    assert Keras().inspect(write(name="model.keras")).weights[0].name == "model.keras"


def test_ends_by_name_or_in_a_list_keep_their_names(write):
    first = layer("InputLayer", batch_shape=[None, 3], dtype="int32", name="ids")
    other = layer("InputLayer", batch_shape=[None, 2], dtype="float32", name="rest")
    last = [layer("Dense", build=[None, 5], name=name, units=1) for name in ("left", "right")]
    ends = {"layers": [first, other, *last], "output_layers": [["left", 0, 0], ["right", 0, 0]]}
    for given, names in (
        ({"a": ["ids", 0, 0], "b": ["rest", 0, 0]}, ["a", "b"]),
        ([["ids", 0, 0], ["rest", 0, 0]], ["ids", "rest"]),
    ):
        config = {"class_name": "Functional", "module": "keras", "config": ends | {"input_layers": given}}
        found = Keras().inspect(write(config))
        assert [tensor.name for tensor in found.schema.inputs] == names
        assert found.schema.inputs[0].dtype is DType.INT32
        assert [tensor.name for tensor in found.schema.outputs] == ["left", "right"]


def test_another_backend_is_taken_where_it_is_declared(write):
    source = write()
    found = Keras().inspect(Source(source.path, requirements=("jax>=0.6",)))
    assert "openvino" not in found.requirements
    assert "jax runs it, as declared" in found.notes[1]


def test_a_release_that_differs_from_the_one_here_is_a_warning_that_names_both(write):
    (warning,) = Keras().inspect(write(here="3.15.0")).warnings
    assert "3.15.0" in warning
    assert "3.15.1" in warning
    older = Keras().inspect(write(version="3.4.1"))
    assert older.requirements[0] == "keras>=3.15,<4"
    assert "3.4.1" in older.warnings[0]


LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wE="}}
GADGET = {"module": "keras.src.utils.file_utils", "class_name": "function", "config": "get_file"}


@pytest.mark.parametrize(
    ("config", "code", "says"),
    [
        (sequential(layer("Lambda", function=LAMBDA)), "own_code", "Lambda"),
        (sequential(layer("Lambda", function=GADGET)), "unknown_code", "file_utils"),
        (sequential(layer("Lambda", function={"module": "os", "class_name": "system"})), "unknown_code", "os.system"),
        (sequential(layer("Mine", module=None)), "unknown_code", "Mine"),
        (sequential(layer("Mine", module="keras_evil.layers")), "unknown_code", "keras_evil"),
        (sequential(config={"layers": [layer("InputLayer", name="x", batch_shape=[None], dtype="string")]}), "contract", "string"),
        (sequential(config={"layers": [layer("Dense", name="x", units=1)]}), "contract", "no shape"),
        (sequential(config={}), "corrupt_model", "complete"),
        ({"class_name": "Sequential", "module": "keras"}, "corrupt_model", "config"),
    ],
)  # fmt: skip
def test_what_is_not_of_keras_alone_is_refused_by_name(config, code, says, write):
    with pytest.raises((UsageError, PolicyError)) as refused:
        Keras().inspect(write(config))
    assert refused.value.code == f"adapter.{code}"
    assert says in str(refused.value)
    assert refused.value.hint


def test_what_a_model_was_compiled_with_is_not_loaded_and_may_be_anything(write):
    config = sequential(compile_config={"loss": {"module": "my.losses", "class_name": "Focal", "config": {}}})
    assert Keras().inspect(write(config)).requirements


def test_older_formats_are_refused_with_the_way_on(write, tmp_path):
    (tmp_path / "old.h5").write_bytes(b"\x89HDF\r\n\x1a\nrest")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    for path, hint in ((tmp_path / "old.h5", ".keras"), (tmp_path / "saved", "tf2onnx")):
        assert Keras().detect(Source(path))
        with pytest.raises(UsageError) as refused:
            Keras().inspect(Source(path))
        assert refused.value.code == "adapter.not_a_model"
        assert hint in refused.value.hint
    with pytest.raises(UsageError, match=r"Keras 2\.15"):
        Keras().inspect(write(version="2.15.0"))


def test_a_file_without_weights_is_incomplete(write):
    with pytest.raises(UsageError) as refused:
        Keras().inspect(write(weights=b""))
    assert "model.weights.h5" in refused.value.why
