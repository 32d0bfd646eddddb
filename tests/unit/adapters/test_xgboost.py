"""The XGBoost adapter reads the head of JSON and UBJSON files by itself; tests/e2e/test_frameworks.py runs models."""

import json
import pickle
import struct
import sys
import types
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.adapters import json_members, ubjson
from corten.adapters.base import Source
from corten.adapters.sklearn import Sklearn
from corten.adapters.xgboost import Xgboost
from corten.adapters.xgboost_facts import cpu_requirement
from corten.adapters.xgboost_file import read_xgboost, xgboost_in
from corten.core.schema import DType, Tensor
from corten.errors import UsageError


def document(*, objective="binary:logistic", names=("a", "b"), types=("float", "int"), features=2, classes=0, **more):
    """A model as `save_model` writes it, with trees of random-looking length."""
    trees = [{"split_conditions": [0.5, -1e-7, 2.0] * 40, "tree_param": {"num_nodes": "3"}, "text": 'a "}" in ]'}] * 3
    return {
        "learner": {
            "attributes": more.get("attributes", {}),
            "feature_names": list(names),
            "feature_types": list(types),
            "gradient_booster": {"model": {"trees": trees}, "name": more.get("booster", "gbtree")},
            "learner_model_param": {
                "base_score": "5E-1",
                "num_class": str(classes),
                "num_feature": str(features),
                "num_target": str(more.get("targets", 1)),
            },
            "objective": {"name": objective},
        },
        "version": more.get("version", [3, 2, 0]),
    }


def in_ubjson(value):
    """The encoding XGBoost uses: 64-bit lengths, typed arrays of numbers."""
    match value:
        case dict():
            return b"{" + b"".join(text(key) + in_ubjson(item) for key, item in value.items()) + b"}"
        case list() if value and all(isinstance(item, float) for item in value):
            return b"[$d#L" + struct.pack(">q", len(value)) + struct.pack(f">{len(value)}f", *value)
        case list():
            return b"[#L" + struct.pack(">q", len(value)) + b"".join(map(in_ubjson, value))
        case bool() | None:
            return {True: b"T", False: b"F", None: b"Z"}[value]
        case int():
            return b"i" + struct.pack(">b", value) if -128 <= value < 128 else b"L" + struct.pack(">q", value)
        case float():
            return b"d" + struct.pack(">f", value)
        case _:
            return b"S" + text(value)


def text(value):
    data = value.encode()
    return b"L" + struct.pack(">q", len(data)) + data


FORMS = {"JSON": lambda value: json.dumps(value).encode(), "UBJSON": in_ubjson}


@pytest.fixture(params=FORMS)
def write(request, tmp_path):
    def run(value, name="model.bin"):
        path = tmp_path / name
        path.write_bytes(FORMS[request.param](value))
        return Source(path)

    run.form = request.param
    return run


def test_a_model_is_told_by_content_and_its_columns_are_known(write):
    source = write(document(), "weights.onnx")
    assert Xgboost().detect(source)
    found = Xgboost().inspect(source)
    assert found.schema.inputs == (Tensor("inputs", DType.FLOAT32, (None, 2), ("a", "b")),)
    assert found.schema.outputs == (Tensor("outputs", DType.FLOAT32, (None,)),)
    assert found.requirements == ("xgboost-cpu==3.2.0", "numpy")
    assert found.notes[0] == f"XGBoost gbtree, binary:logistic, {write.form}"


def test_the_build_that_is_declared_is_told_of_and_no_other(write):
    source = write(document())
    declared = Xgboost().inspect(Source(source.path, requirements=("xgboost==3.0.2",)))
    assert not any("without CUDA" in note for note in declared.notes)
    assert any("brings CUDA" in warning for warning in declared.warnings)
    assert not Xgboost().inspect(Source(source.path, requirements=("xgboost-cpu==3.0.2",))).warnings


def test_a_classifiers_own_file_answers_with_labels_or_probabilities(write):
    told = {"scikit_learn": '{"_estimator_type": "classifier"}'}
    source = write(document(objective="multi:softprob", classes=3, attributes=told))
    assert Xgboost().inspect(source).schema.outputs == (Tensor("outputs", DType.INT64, (None,)),)
    probabilities = Xgboost().inspect(Source(source.path, method="predict_proba"))
    assert probabilities.schema.outputs == (Tensor("outputs", DType.FLOAT32, (None, 3)),)


def test_several_labels_a_row_are_answered_each(write):
    told = {"scikit_learn": '{"_estimator_type": "classifier"}'}
    source = write(document(targets=3, attributes=told))
    assert Xgboost().inspect(source).schema.outputs == (Tensor("outputs", DType.INT64, (None, 3)),)
    probabilities = Xgboost().inspect(Source(source.path, method="predict_proba"))
    assert probabilities.schema.outputs[0].shape == (None, 3)


def test_a_boosters_file_answers_as_its_objective_does(write):
    found = Xgboost().inspect(write(document(objective="multi:softprob", classes=3)))
    assert found.schema.outputs[0].shape == (None, 3)
    found = Xgboost().inspect(write(document(objective="reg:squarederror", targets=2)))
    assert found.schema.outputs[0].shape == (None, 2)
    with pytest.raises(UsageError) as refused:
        Xgboost().inspect(Source(write(document()).path, method="predict_proba"))
    assert refused.value.code == "adapter.unknown_method"


def test_the_release_decides_requirement_and_python(write):
    assert Xgboost().inspect(write(document(version=[3, 4, 1]))).python == "3.13"
    assert Xgboost().inspect(write(document(version=[3, 2, 0]))).python == ""
    old = Xgboost().inspect(write(document(version=[1, 7, 6])))
    assert old.requirements[0] == "xgboost-cpu>=2.1.1,<3"
    assert any("1.7.6" in line for line in old.warnings)
    unknown = document()
    del unknown["version"]
    assert any("does not tell its version" in line for line in Xgboost().inspect(write(unknown)).warnings)


def test_categorical_features_are_warned_of_by_name(write):
    (warning,) = Xgboost().inspect(write(document(types=("c", "int")))).warnings
    assert "categorical features (a)" in warning


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.99])
def test_a_file_cut_short_is_refused_with_the_place(cut, write):
    source = write(document())
    data = source.path.read_bytes()
    source.path.write_bytes(data[: int(len(data) * cut)])
    assert Xgboost().detect(source)
    with pytest.raises(UsageError) as refused:
        Xgboost().inspect(source)
    assert refused.value.code == "adapter.corrupt_model"
    assert "byte" in refused.value.why


@pytest.mark.parametrize(
    "broken",
    [
        {"names": ("a",)},
        {"features": 0},
        {"features": "many"},
        {"version": ["x", 1, 2]},
    ],
)
def test_heads_that_contradict_themselves_are_refused(broken, write):
    with pytest.raises(UsageError) as refused:
        Xgboost().inspect(write(document(**broken)))
    assert refused.value.code == "adapter.corrupt_model"


def test_what_only_looks_like_it_is_not_taken(tmp_path):
    for name, content in {"a": b'{"version": 3, "locks": []}', "b": b"", "c": b"{L\x00", "d": b"[1]"}.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert not Xgboost().detect(Source(path))


def test_a_booster_is_found_in_a_pickles_bytes():
    held = {"Config": {"learner": {}}, "Model": document()}
    found = xgboost_in(memoryview(b"\x80\x05junk" + in_ubjson(held) + b"\x94b."))
    assert found is not None
    assert (found.release, found.columns) == ("3.2.0", ("a", "b"))
    assert xgboost_in(memoryview(b"no booster here")) is None
    assert xgboost_in(memoryview(in_ubjson(held)[:200])) is None


@pytest.fixture
def pickled(tmp_path, monkeypatch):
    """A pickle of an object whose class goes by XGBoost's name, with a model in it as boosters have."""

    def made(module, name):
        cls = type(name, (), {"__module__": module})
        place = types.ModuleType(module)
        setattr(place, name, cls)
        monkeypatch.setitem(sys.modules, module, place)
        return cls()

    def run(wrapper="", **told):
        monkeypatch.setitem(sys.modules, "xgboost", types.ModuleType("xgboost"))
        top = booster = made("xgboost.core", "Booster")
        booster.handle = bytearray(in_ubjson({"Config": {"learner": {}}, "Model": document(**told)}))
        if wrapper:
            top = made("xgboost.sklearn", wrapper)
            top._Booster, top.n_classes_ = booster, 2
        path = tmp_path / "model.pkl"
        path.write_bytes(pickle.dumps(top))
        return Source(path)

    return run


def test_a_pickled_booster_needs_no_scikit_learn(pickled):
    found = Sklearn().inspect(pickled())
    assert found.requirements == ("xgboost-cpu==3.2.0", "numpy")
    assert found.schema.inputs == (Tensor("inputs", DType.FLOAT32, (None, 2), ("a", "b")),)


def test_a_pickled_wrapper_takes_its_features_from_the_booster_in_it(pickled):
    found = Sklearn().inspect(pickled("XGBClassifier", version=[3, 4, 1]))
    assert "xgboost-cpu==3.4.1" in found.requirements
    assert found.python == "3.13"
    assert found.schema.inputs == (Tensor("inputs", DType.FLOAT64, (None, 2), ("a", "b")),)
    assert found.schema.outputs == (Tensor("outputs", DType.INT64, (None,)),)


def test_a_pickled_booster_without_a_model_is_refused(pickled):
    with pytest.raises(UsageError) as refused:
        Sklearn().inspect(pickled(features="none"))
    assert refused.value.code == "adapter.not_a_model"


def test_the_build_for_cpus_is_required():
    assert cpu_requirement((3, 0, 5)) == "xgboost-cpu==3.0.5"
    assert cpu_requirement(()) == "xgboost-cpu"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_ubjson_reads_back_what_was_written(value):
    assert ubjson.read(in_ubjson(value)) == value


@given(st.dictionaries(st.text(max_size=6), _VALUES, max_size=5), st.sampled_from([None, 2]))
def test_members_of_an_object_are_found_with_their_values(value, indent):
    found = json_members.whole(json.dumps(value, indent=indent).encode()).members()
    assert {key: span.value() for key, span in found.items()} == value


@pytest.mark.parametrize("read", [ubjson.read, lambda data: json_members.whole(data).members()])
@given(data=st.binary(max_size=60), start=st.sampled_from([b"", b"{", b"{L", b'{"a":', b"[$d#"]))
def test_any_other_bytes_are_refused_in_one_way(read, data, start):
    with suppress(ubjson.BrokenError, json_members.BrokenError):
        read(start + data)


def test_lengths_beyond_the_file_cost_nothing(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(b"{" + text("learner") + b"[$Z#L" + struct.pack(">q", 1 << 60))
    with pytest.raises(UsageError) as refused:
        read_xgboost(path)
    assert "announced" in refused.value.why
