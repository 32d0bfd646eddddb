"""MLflow folders are read without MLflow, and served by the flavor's own adapter where there is one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.adapters import plain_yaml
from corten.adapters.base import Source
from corten.adapters.mlflow import Mlflow
from corten.adapters.mlflow_file import read_mlflow
from corten.core.schema import DType, Tensor
from corten.errors import CortenError, UsageError

MODEL = """flavors:
  lightgbm:
    code: null
    data: model.lgb
    lgb_version: 4.5.0
    skops_trusted_types:
    - lightgbm.basic.Booster
  python_function:
    data: model.lgb
    loader_module: mlflow.lightgbm
    python_version: 3.12.4
mlflow_version: 3.17.2
saved_input_example_info:
  artifact_path: input_example.json
  pandas_orient: split
  type: dataframe
signature:
  inputs: '[{"type": "double", "name": "mean radius", "required": true}, {"type":
    "long", "name": "mean area", "required": true}]'
  outputs: '[{"type": "double", "required": true}]'
  params: null
"""
PYFUNC = """flavors:
  python_function:
    loader_module: mlflow.pyfunc.model
    python_model: python_model.pkl
    python_version: 3.11.7
mlflow_version: 3.17.2
"""
BOOSTER = """tree
version=v4
num_class=1
max_feature_idx=1
objective=regression
feature_names=mean_radius mean_area

Tree=0
end of trees
"""


@pytest.fixture
def folder(tmp_path):
    """A LightGBM model's folder; more or other files by name, None to leave one out."""

    def make(**files):
        example = {"columns": ["mean area", "mean radius"], "data": [[100, 1.5], [200, None]]}
        requirements = "mlflow==3.17.2\nlightgbm==4.5.0\nnumpy==2.4.6\npandas==3.1.1\n"
        content = {
            "MLmodel": MODEL,
            "model.lgb": BOOSTER,
            "input_example.json": json.dumps(example),
            "requirements.txt": requirements,
        } | {name.replace("__", "."): text for name, text in files.items()}
        for name, text in content.items():
            if text is not None:
                (tmp_path / name).write_text(text)
        return Source(tmp_path)

    return make


def test_a_known_flavor_is_loaded_without_mlflow_in_the_releases_the_folder_lists(folder):
    source = folder()
    assert Mlflow().detect(source)
    found = Mlflow().inspect(source)
    assert found.adapter == "lightgbm"
    assert found.requirements == ("lightgbm==4.5.0", "numpy==2.4.6")
    assert [file.name for file in found.weights] == ["model.lgb"]
    assert found.python == "3.12.4"
    assert not found.warnings


def test_the_signature_names_the_columns_and_the_example_is_in_their_order(folder):
    found = Mlflow().inspect(folder())
    assert found.schema.inputs == (Tensor("inputs", DType.FLOAT64, (None, 2), ("mean radius", "mean area")),)
    assert found.example.inputs == {"inputs": [[1.5, 100], [None, 200]]}


def test_requirements_of_conda_are_taken_where_there_is_no_file_of_pips(folder):
    conda = "channels:\n- conda-forge\ndependencies:\n- python=3.11\n- pip:\n  - lightgbm==4.5.0\n  - numpy==2.1.0\n"
    found = Mlflow().inspect(folder(requirements__txt=None, conda__yaml=conda))
    assert "numpy==2.1.0" in found.requirements
    assert "releases from conda.yaml" in found.notes


def test_other_folders_are_loaded_by_mlflow_whole_with_a_warning(folder):
    found = Mlflow().inspect(folder(MLmodel=PYFUNC, python_model__pkl="...", corten__lock="{}"))
    assert found.adapter == "mlflow"
    assert "mlflow-skinny==3.17.2" in found.requirements
    names = [file.name for file in found.weights]
    assert names[0] == "MLmodel"
    assert "python_model.pkl" in names
    assert "corten.lock" not in names
    assert "the author's code" in found.warnings[0]
    assert "no signature" in found.warnings[1]


def test_the_small_builds_are_taken_for_what_mlflow_lists(folder):
    listed = "mlflow==3.17.2\nxgboost==3.2.0\nmylib>=2"
    found = Mlflow().inspect(folder(MLmodel=PYFUNC, requirements__txt=listed))
    assert set(found.requirements) == {"mlflow-skinny==3.17.2", "xgboost-cpu==3.2.0", "mylib>=2", "numpy", "pandas"}


def test_tensors_of_a_signature_are_the_inputs(folder):
    specs = [
        {"name": "image", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 28, 28]}},
        {"name": "label", "type": "tensor", "tensor-spec": {"dtype": "str", "shape": [-1]}},
    ]
    outputs = [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]
    text = PYFUNC + f"signature:\n  inputs: '{json.dumps(specs)}'\n  outputs: '{json.dumps(outputs)}'\n"
    schema = Mlflow().inspect(folder(MLmodel=text)).schema
    assert schema.inputs == (
        Tensor("image", DType.FLOAT32, (None, 28, 28)),
        Tensor("label", DType.STRING, (None,)),
    )
    assert schema.outputs == (Tensor("outputs", DType.INT64, (None,)),)


def test_columns_of_several_types_are_open_and_of_texts_texts(folder):
    def inputs(*kinds):
        columns = [{"type": kind, "name": f"c{i}"} for i, kind in enumerate(kinds)]
        text = PYFUNC + f"signature:\n  inputs: '{json.dumps(columns)}'\n"
        return Mlflow().inspect(folder(MLmodel=text)).schema.inputs[0].dtype

    assert inputs("string", "double") is DType.JSON
    assert inputs("long", "double") is DType.FLOAT64
    assert inputs("string", "string") is DType.STRING
    assert inputs("datetime") is DType.JSON


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("model.lgb", "../model.lgb", "adapter.unsafe_path"),
        ("model.lgb", "/etc/passwd", "adapter.unsafe_path"),
        ("model.lgb", "other.lgb", "adapter.missing_weights"),
        ("model.lgb", "input_example.json", "adapter.corrupt_model"),
        ("data: model.lgb", "data: null", "adapter.corrupt_model"),
        ("data: model.lgb", "data: &a model.lgb", "adapter.corrupt_model"),
        ('"mean radius"', '"mean', "adapter.corrupt_model"),
        ("flavors:\n", "flavors: 7\nother:\n", "adapter.corrupt_model"),
        ("input_example.json", "../input_example.json", "adapter.unsafe_path"),
    ],
)
def test_folders_that_lead_elsewhere_or_contradict_themselves_are_refused(old, new, code, folder):
    with pytest.raises(UsageError) as refused:
        Mlflow().inspect(folder(MLmodel=MODEL.replace(old, new)))
    assert refused.value.code == code


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret"
    outside.write_text(BOOSTER)
    source = folder(model__lgb=None)
    (source.path / "model.lgb").symlink_to(outside)
    with pytest.raises(UsageError) as refused:
        Mlflow().inspect(source)
    assert refused.value.code == "adapter.unsafe_path"


def test_a_folder_without_a_flavor_to_serve_is_refused(folder):
    with pytest.raises(UsageError) as refused:
        Mlflow().inspect(folder(MLmodel="flavors:\n  spark:\n    model_data: x\n"))
    assert refused.value.code == "adapter.not_a_model"


def test_other_folders_are_not_taken(tmp_path):
    assert not Mlflow().detect(Source(tmp_path))
    (tmp_path / "MLmodel").write_bytes(b"\x00\xffno")
    assert not Mlflow().detect(Source(tmp_path))


def test_yaml_as_programs_write_it():
    text = """---
# a comment
empty: {}
list:
- 1
- -2.5
- 'it''s'  # said so
- - inner
  - a: b: c
    "d": "tab\\t \\
      joined \\xe9"
nothing: ~
folded: one
  two
blank: 'first

  second'
yes: true
time: 2026-11-22 19:20:45
"""
    assert plain_yaml.read(text) == {
        "empty": {},
        "list": [1, -2.5, "it's", ["inner", {"a": "b: c", "d": "tab\t joined é"}]],
        "nothing": None,
        "folded": "one two",
        "blank": "first\nsecond",
        "yes": True,
        "time": "2026-11-22 19:20:45",
    }


@pytest.mark.parametrize(
    "text", ["a: &x 1", "a: *x", "a: !!python/object:os.system", "a: |\n  x", "a: {b: 1}", "a: 1\na: 2", "\ta: 1",
             "a: 'open", "a: 1\n   b: 2", "- a\nb: 1", 'a: "\\q"', "- " * 100 + "x"],
)  # fmt: skip
def test_more_of_yaml_is_refused_by_line(text):
    with pytest.raises(plain_yaml.YamlError, match="line "):
        plain_yaml.read(text)


@given(st.text(alphabet="ab:-#'\"\n {}[]&\\~1.", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        plain_yaml.read(text)
    except plain_yaml.YamlError as error:
        assert error.line >= 1  # noqa: PT017  # one way of two


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_model_file_is_read_or_refused(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "any-mlflow"
    folder.mkdir(exist_ok=True)
    (folder / "MLmodel").write_text("flavors:\n" + text)
    try:
        read_mlflow(folder)
    except CortenError as error:
        assert error.code == "adapter.corrupt_model"  # noqa: PT017  # the same
