"""The LightGBM adapter reads the head of a text model by itself; tests/e2e/test_frameworks.py runs models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.adapters.base import Source
from corten.adapters.lightgbm import Lightgbm
from corten.adapters.lightgbm_file import lightgbm_in
from corten.core.schema import DType, Tensor
from corten.errors import UsageError

MODEL = """tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=binary sigmoid:1
feature_names=mean_radius mean_area
feature_infos=[6.98:28.1] -1:0:1
tree_sizes=10

Tree=0
num_leaves=2

end of trees

parameters:
end of parameters

pandas_categorical:null
"""


@pytest.fixture
def write(tmp_path):
    def run(content=MODEL, name="model.txt"):
        path = tmp_path / name
        path.write_bytes(content.encode())
        return Source(path)

    return run


def test_a_model_is_told_by_content_and_its_columns_are_known(write):
    source = write(name="notes.pkl")
    assert Lightgbm().detect(source)
    found = Lightgbm().inspect(source)
    assert found.schema.inputs == (Tensor("inputs", DType.FLOAT64, (None, 2), ("mean_radius", "mean_area")),)
    assert found.schema.outputs == (Tensor("outputs", DType.FLOAT64, (None,)),)
    assert found.requirements[0].startswith("lightgbm")
    assert found.notes[0] == "LightGBM booster, binary, text format v4"
    assert "the file tells only that LightGBM 4 or newer reads it" in found.warnings[0]


def test_several_classes_give_as_many_numbers_and_made_up_names_are_no_columns(write):
    text = MODEL.replace("num_class=1", "num_class=3").replace("mean_radius mean_area", "Column_0 Column_1")
    found = Lightgbm().inspect(write(text))
    assert found.schema.outputs[0].shape == (None, 3)
    assert found.schema.inputs[0].columns == ()


def test_lines_may_end_as_on_windows(write):
    source = write(MODEL.replace("\n", "\r\n"))
    assert Lightgbm().detect(source)
    assert Lightgbm().inspect(source).schema.inputs[0].columns == ("mean_radius", "mean_area")


def test_categories_of_a_data_frame_are_told_with_their_codes(write):
    found = Lightgbm().inspect(write(MODEL.replace("categorical:null", 'categorical:[["x", "y"]]')))
    assert "x=0, y=1" in found.warnings[1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("feature_names=mean_radius mean_area\n", ""),
        ("mean_radius mean_area", "one"),
        ("max_feature_idx=1", "max_feature_idx=x"),
        (MODEL[MODEL.index("Tree=0") :], ""),
        (MODEL[MODEL.index("end of trees") :], ""),
    ],
)
def test_incomplete_files_are_refused(old, new, write):
    with pytest.raises(UsageError) as refused:
        Lightgbm().inspect(write(MODEL.replace(old, new)))
    assert refused.value.code == "adapter.corrupt_model"


def test_other_methods_than_predict_are_refused(write):
    with pytest.raises(UsageError) as refused:
        Lightgbm().inspect(Source(write().path, method="predict_proba"))
    assert refused.value.code == "adapter.unknown_method"


@pytest.mark.parametrize("content", ["", "tree", "tree\nversion=4\n", "a tree\nversion=v4\n"])
def test_what_only_looks_like_it_is_not_taken(content, write):
    assert not Lightgbm().detect(write(content))


def test_a_booster_is_found_in_a_pickles_bytes():
    found = lightgbm_in(memoryview(b"\x80\x05junk" + MODEL.encode() + b"\x94b."))
    assert found is not None
    assert found.columns == ("mean_radius", "mean_area")
    assert lightgbm_in(memoryview(b"tree\nversion=v4\nnum_class=1\n")) is None


@given(st.binary(max_size=200))
def test_any_bytes_after_the_start_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any-lightgbm"
    path.write_bytes(b"tree\nversion=v4\n" + data)
    with pytest.raises(UsageError):
        Lightgbm().inspect(Source(path))
