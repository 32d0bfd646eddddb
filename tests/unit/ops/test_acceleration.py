"""Where a model's ONNX form is tried, and what is said where it cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from corten.adapters.base import SourceFile
from corten.builder.acceleration import Converted
from corten.builder.debian.release import RELEASES
from corten.builder.interpreter import Interpreter, Libc, LibcFamily
from corten.builder.lock import Inputs, Lock, Pin
from corten.builder.oci_base import Facts, OciBase, System
from corten.builder.plan import Plan, WeightGroup
from corten.core.acceleration import Accelerate, Conversion
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.model import ModelSpec
from corten.core.platform import Platform
from corten.errors import CortenError, UsageError
from corten.ops.acceleration import Attempts, accelerated

HERE = Platform.of_machine()
OTHER = Platform("arm64" if Platform("amd64") == HERE else "amd64")
RELEASE = next(iter(RELEASES))
LIBC = Libc(LibcFamily.GLIBC, "2.36")


class Shop:
    """What hears of the build."""

    def __init__(self):
        self.heard = []

    def listen(self, event):
        self.heard.append(event)


class Locks:
    """Remembers what was to be locked; gives a lock, or says that there is none for the converters."""

    def __init__(self, *, refuses=False):
        self.asked = []
        self.refuses = refuses

    def __call__(self, inputs):
        self.asked.append(inputs)
        if self.refuses:
            raise UsageError("build.lock_failed", "no lock", why="skl2onnx wants another numpy")
        return Lock("key", inputs.platform, RELEASE, "3.11", (), ())


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "f.joblib"
    file.write_bytes(b"original")
    return Plan(
        name="f",
        platform=OTHER,
        base=RELEASES[RELEASE],
        spec=ModelSpec("f", "sklearn", ("f.joblib",)),
        lock=Lock("key", OTHER, RELEASE, "3.11", (), ()),
        wheels=(),
        weights=(WeightGroup("weights", (SourceFile(file, "f.joblib"),)),),
        code=(),
    )


def attempts(locks, wish=Accelerate.AUTO):
    return Attempts(wish, Shop(), None, Home(Path("/nowhere")), {}, locks)


def inputs(plan):
    return Inputs(("scikit-learn",), (), RELEASES[RELEASE].codename, RELEASES[RELEASE].interpreter, plan.platform)


def based(plan, platform):
    python = Interpreter("3.12", "/usr/bin/python3", "usr", "usr/lib/python3/dist-packages", LIBC)
    pin = Pin("registry.example/base:1", Digest.of(b"base"), Digest.of(b"image"))
    return replace(plan, platform=platform, base=OciBase(pin, (), {}, Facts(System(), (python,), (), (), True), python))


def test_on_a_base_of_another_platform_the_original_stays_and_nothing_is_locked_or_run(plan):
    locks = Locks()
    kept = accelerated(based(plan, OTHER), inputs(plan), attempts(locks))
    assert (kept.spec.adapter, kept.spec.files, kept.platform) == ("sklearn", ("f.joblib",), OTHER)
    assert f"its base is for {OTHER}" in kept.converted.conversion.reason
    assert locks.asked == []


def test_who_requires_it_there_is_refused(plan):
    with pytest.raises(CortenError) as refused:
        accelerated(based(plan, OTHER), inputs(plan), attempts(Locks(), Accelerate.REQUIRE))
    assert refused.value.code == "build.not_accelerated"
    assert str(OTHER) in refused.value.why


@pytest.mark.parametrize("base", [lambda plan: plan, lambda plan: based(plan, HERE)], ids=["packages", "an image"])
def test_it_is_tried_with_wheels_of_this_machine_whatever_the_image_is_for(base, plan):
    locks = Locks(refuses=True)
    kept = accelerated(base(plan), inputs(plan), attempts(locks))
    (asked,) = locks.asked
    assert (asked.platform, asked.purpose) == (HERE, "converter")
    assert "skl2onnx wants another numpy" in kept.converted.conversion.reason


def test_a_verdict_of_this_machine_serves_the_image_of_another(plan, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"onnx")
    locks = Locks()
    conversion = Conversion(str(Digest.of(b"original")), tools=("onnxruntime 1.30.0", "numpy 2.3.1"))
    made = accelerated(plan, inputs(plan), attempts(locks), Converted(conversion, file))
    assert (made.spec.adapter, made.platform) == ("onnx", OTHER)
    (asked,) = locks.asked
    assert (asked.platform, asked.purpose) == (OTHER, "accelerated")
    assert {"onnxruntime==1.30.0", "numpy==2.3.1"} <= set(asked.requirements)
