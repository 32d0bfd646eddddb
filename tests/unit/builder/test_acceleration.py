"""What is locked, planned and said when a model's ONNX form takes its place."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from corten.adapters.base import SourceFile
from corten.builder import acceleration
from corten.builder.acceleration import Converted, Verdict
from corten.builder.debian.release import RELEASES
from corten.builder.lock import Inputs, Lock, dumps, fitting, for_platform, read, with_lock
from corten.builder.plan import Plan, WeightGroup
from corten.builder.pylock import Locked
from corten.core.acceleration import Agreement, Conversion, Speed
from corten.core.digest import Digest
from corten.core.model import ModelSpec
from corten.core.platform import Platform
from corten.errors import UsageError

AMD, ARM = Platform("amd64"), Platform("arm64")
ORIGINAL = str(Digest.of(b"original"))
YES = Conversion(
    ORIGINAL,
    agreement=Agreement(5000, 16, 120, 3e-8),
    speed=Speed(5186.0, 14.0, 7000.0, 900.0, 256),
    tools=("onnxruntime 1.30.0", "numpy 2.3.1", "skl2onnx 1.20.0"),
)
NO = Conversion(ORIGINAL, "it has no equal")


def wheel(name, version="1.0"):
    return Locked(
        name, version, f"https://x/{name}.whl", Digest.of(name.encode()), 100, f"{name}-{version}-py3-none-any.whl"
    )


def lock(*names, purpose="", platform=AMD):
    release = next(iter(RELEASES))
    return Lock("key", platform, release, "3.11", (), tuple(wheel(name) for name in names), purpose=purpose)


@pytest.fixture
def plan():
    release = next(iter(RELEASES.values()))
    files = (SourceFile(Path("/m/f.joblib"), "f.joblib"), SourceFile(Path("/m/notes.txt"), "notes.txt"))
    return Plan(
        name="f",
        platform=AMD,
        base=release,
        spec=ModelSpec("f", "sklearn", ("f.joblib", "notes.txt"), method="predict_proba", trusted=(ORIGINAL,)),
        lock=lock("scikit-learn", "scipy", "numpy", "msgspec", "httptools", "uvloop"),
        wheels=(),
        weights=(WeightGroup("small weights", files),),
        code=(),
    )


@pytest.fixture
def inputs(plan):
    return Inputs(("scikit-learn",), (), plan.base.codename, plan.base.interpreter, AMD)


def test_the_converters_are_locked_beside_the_models_own_versions(plan, inputs):
    asked = acceleration.converter_inputs(plan, inputs, ARM)
    assert {"scikit-learn==1.0", "numpy==1.0", "scipy==1.0"} <= set(asked.requirements)
    assert any(line.startswith("skl2onnx") for line in asked.requirements)
    assert not any(line.startswith("onnxmltools") for line in asked.requirements)
    assert (asked.platform, asked.purpose) == (ARM, "converter")
    boosted = replace(plan, lock=lock("xgboost-cpu"))
    assert any(
        line.startswith("onnxmltools") for line in acceleration.converter_inputs(boosted, inputs, AMD).requirements
    )


def test_the_image_gets_the_runtime_that_was_compared_and_nothing_of_scikit_learn(plan, inputs):
    asked = acceleration.accelerated_inputs(plan, inputs, Converted(YES, Path("/c/model.onnx")))
    assert set(asked.requirements) == {
        "onnxruntime==1.30.0", "numpy==2.3.1", "msgspec==1.0", "httptools==1.0", "uvloop==1.0",
    }  # fmt: skip


def test_the_onnx_file_takes_the_place_of_the_original_and_the_rest_stays(plan):
    made = acceleration.accelerated_plan(plan, lock("onnxruntime"), Converted(YES, Path("/c/model.onnx")))
    assert (made.spec.adapter, made.spec.files, made.spec.method) == (
        "onnx",
        ("model.onnx", "notes.txt"),
        "predict_proba",
    )
    assert made.spec.trusted == ()
    names = {file.name for group in made.weights for file in group.files}
    assert names == {"model.onnx", "notes.txt"}


def test_locks_for_several_purposes_lie_in_one_file(tmp_path, inputs):
    locks = ()
    for purpose in ("", "converter", "accelerated"):
        locks = with_lock(locks, replace(lock("numpy", purpose=purpose), inputs=replace(inputs, purpose=purpose).key))
    again = with_lock(locks, replace(locks[1], inputs="other"))
    assert len(again) == 3
    (tmp_path / "corten.lock").write_text(dumps(locks))
    assert {one.purpose for one in read(tmp_path / "corten.lock")} == {"", "converter", "accelerated"}
    assert for_platform(read(tmp_path / "corten.lock"), AMD).purpose == ""
    assert fitting(locks, inputs) is not None
    assert '"purpose"' not in dumps([lock("numpy")])


def test_a_statement_reads_back_as_it_was_said():
    made = acceleration.statement("f", Digest.of(b"image"), "f.joblib", YES)
    document = json.loads(made.data)
    assert document["predicateType"] == acceleration.PREDICATE
    assert document["predicate"]["originalFile"] == "f.joblib"
    assert Verdict("f.joblib", YES).as_dict()["agreement"]["rows"] == 5000


def test_a_verdict_is_told_in_a_line():
    line = acceleration.told(YES)
    assert "5,186 → 14 µs" in line
    assert "5000 inputs, 16 of them recorded" in line
    assert acceleration.told(NO) == "the original stays: it has no equal"


def test_there_is_no_plan_of_a_model_that_was_not_converted(plan):
    with pytest.raises(ValueError, match="no ONNX model"):
        acceleration.accelerated_plan(plan, plan.lock, Converted(NO))


def test_settings_trust_digests_only(tmp_path):
    from corten.builder.source import read_project

    (tmp_path / "m.joblib").write_bytes(b"x")
    digest = str(Digest.of(b"x"))
    settings = tmp_path / "corten.toml"
    settings.write_text(f'source = "m.joblib"\naccelerate = "require"\ntrust = ["{digest}"]\n')
    project = read_project(tmp_path, trust=[str(tmp_path / "m.joblib")])
    assert project.source.trusted == (digest, digest)
    assert project.accelerate.value == "require"
    settings.write_text('source = "m.joblib"\ntrust = ["m.joblib"]\n')
    with pytest.raises(UsageError) as caught:
        read_project(tmp_path)
    assert digest in caught.value.hint
    settings.write_text('source = "m.joblib"\ntrust = ["sha256:12"]\n')
    with pytest.raises(UsageError):
        read_project(tmp_path)
    settings.write_text('source = "m.joblib"\naccelerate = "always"\n')
    with pytest.raises(UsageError, match="wrong value"):
        read_project(tmp_path)
