"""The plan: which requirements, which layers, and that an unrelated change moves nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.adapters.base import Inspection, Source, SourceFile
from corten.builder import plan as planning
from corten.builder.debian.release import RELEASES
from corten.builder.lock import Lock
from corten.builder.pylock import Locked
from corten.builder.source import Project
from corten.core.digest import Digest
from corten.core.platform import Platform
from corten.errors import UsageError


def _wheel(name: str, size_bytes: int) -> Locked:
    return Locked(
        name, "1.0", f"http://i/{name}.whl", Digest.of(name.encode()), size_bytes, f"{name}-1-py3-none-any.whl"
    )


_WHEELS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 4_000_000), max_size=40).map(
    lambda sizes: [_wheel(name, size) for name, size in sizes.items()]
)
_FILES = st.dictionaries(st.text("abcdef", min_size=1, max_size=5), st.integers(0, 1 << 40), max_size=90)


@given(_WHEELS, st.integers(1, 50))
def test_every_wheel_is_in_exactly_one_layer(wheels: list[Locked], most: int) -> None:
    groups = planning.group_wheels(wheels, most=most)

    assert sorted(wheel.name for group in groups for wheel in group.wheels) == sorted(wheel.name for wheel in wheels)
    assert len(groups) <= most


@given(_WHEELS, st.randoms())
def test_the_order_of_the_lock_does_not_change_the_layers(wheels: list[Locked], random) -> None:
    assert planning.group_wheels(wheels, most=124) == planning.group_wheels(
        random.sample(wheels, len(wheels)), most=124
    )


@given(_WHEELS, st.data())
def test_a_wheel_that_changes_moves_one_layer(wheels: list[Locked], data) -> None:
    if not wheels:
        return
    number = data.draw(st.integers(0, len(wheels) - 1))
    changed = [*wheels]
    changed[number] = replace(wheels[number], digest=Digest.of(b"another"))

    before = planning.group_wheels(wheels, most=124)
    after = planning.group_wheels(changed, most=124)

    assert len([1 for one, other in zip(before, after, strict=True) if one != other]) == 1


@given(_FILES)
def test_weights_have_a_layer_each_until_there_are_too_many(sizes: dict[str, int]) -> None:
    files = [SourceFile(Path(name), name) for name in sizes]

    groups = planning.group_weights(files, sizes)

    assert sorted(file.name for group in groups for file in group.files) == sorted(sizes)
    assert len(groups) == min(len(sizes), 60)
    if len(groups) < len(sizes):
        shared = {file.name for file in groups[-1].files}
        assert max(sizes[name] for name in shared) <= min(sizes[name] for name in sizes if name not in shared)


def _project(*requirements: str, **more: object) -> Project:
    return Project("iris", Source(Path("/m/iris.joblib"), requirements=requirements), **more)  # type: ignore[arg-type]


def _inspection(*requirements: str, **more: object) -> Inspection:
    return Inspection("sklearn", requirements, **more)  # type: ignore[arg-type]


def test_what_the_user_declares_wins_over_what_was_inferred() -> None:
    found = planning.requirements_of(
        _project("Scikit_Learn==1.5", "pandas"), _inspection("scikit-learn==1.9.1", "joblib>=1")
    )

    assert set(found) - set(planning.RUNTIME_REQUIREMENTS) == {"Scikit_Learn==1.5", "pandas", "joblib>=1"}
    assert set(planning.RUNTIME_REQUIREMENTS) <= set(found)
    assert list(found) == sorted(found)


def test_another_build_of_a_library_that_is_declared_is_taken_alone() -> None:
    found = Inspection("xgboost", ("xgboost-cpu==3.2.0", "numpy"))
    project = _project("XGBoost==3.0.2", "numpy")

    assert set(planning.requirements_of(project, found)) == {"XGBoost==3.0.2", *planning.RUNTIME_REQUIREMENTS}
    assert planning.needs_of(project, found) == "needs XGBoost==3.0.2, numpy as declared"
    lock = Lock("k", Platform("amd64"), "bookworm", "3.11", (), (_wheel("xgboost", 10),))
    assert planning.overruled(found, lock) == (
        "the source is of xgboost-cpu 3.2.0; xgboost 1.0 goes into the image, as declared",
    )


@pytest.mark.parametrize("where", ["declared", "inferred"])
def test_an_option_among_the_requirements_is_refused(where: str) -> None:
    line = "--index-url=http://evil"

    with pytest.raises(UsageError):
        planning.requirements_of(
            _project(*[line] * (where == "declared")), _inspection(*[line] * (where == "inferred"))
        )


@pytest.mark.parametrize(
    ("asked", "made_with", "release"),
    [("", "", "bookworm"), ("", "3.11", "bookworm"), ("", "3.13", "trixie"), ("3.11", "3.13", "bookworm")],
)
def test_the_base_has_the_python_asked_for_or_else_the_models(asked: str, made_with: str, release: str) -> None:
    assert planning.release_of(_project(python=asked), _inspection(python=made_with)).codename == release


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Scikit_Learn[x]>=1", "scikit-learn"),
        ("a.b-c ; python_version<'3'", "a-b-c"),
        ("x @ file:///w.whl", "x"),
        ("", ""),
    ],
)
def test_distributions_are_named_as_indexes_do(line: str, name: str) -> None:
    assert planning.distribution(line) == name


def test_a_plan_says_what_goes_where() -> None:
    lock = Lock("k", Platform("amd64"), "bookworm", "3.11", (), (_wheel("numpy", 5_000_000), _wheel("six", 10)))
    inspection = _inspection(
        weights=(SourceFile(Path("/m/iris.joblib"), "iris.joblib"),), notes=("a forest",), warnings=("old",)
    )
    project = _project()

    plan = planning.plan(
        project,
        inspection,
        lock,
        base=RELEASES["bookworm"],
        platform=Platform("amd64"),
        spec=planning.spec_of(project, inspection, None),
        sizes={"iris.joblib": 7},
    )

    text = plan.describe()
    for part in (
        "iris for linux/amd64",
        "Python 3.11",
        "numpy 1.0",
        "six 1.0",
        "/models/iris.joblib",
        "/app/corten.json",
        "downloads, with nothing in the cache: 5.0 MB",
    ):
        assert part in text
    assert "a forest" in text
    assert "warning: old" in text
    assert plan.spec.files == ("iris.joblib",)
    assert plan.download_bytes == 5_000_010


def test_what_is_needed_is_told_with_where_it_is_from() -> None:
    found = Inspection("sklearn", ("scikit-learn==1.9.1", "numpy>=2"))

    assert planning.needs_of(_project(), found) == "needs scikit-learn==1.9.1, numpy>=2 by the source"
    assert planning.needs_of(_project("scikit-learn>=1.8"), found) == (
        "needs numpy>=2 by the source; scikit-learn>=1.8 as declared"
    )


def test_another_release_than_the_sources_own_is_a_warning_that_names_both() -> None:
    lock = Lock("k", Platform("amd64"), "bookworm", "3.11", (), (_wheel("torch", 10), _wheel("six", 10)))

    assert planning.overruled(Inspection("torch", ("torch==2.13.0", "six==1.0", "numpy")), lock) == (
        "the source is of torch 2.13.0; 1.0 goes into the image, as declared",
    )
