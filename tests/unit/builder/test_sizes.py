"""Budgets: a build that is too large fails and says what takes the room."""

from __future__ import annotations

from dataclasses import replace

import pytest
import small_image

from corten.builder.plan import WheelGroup
from corten.builder.sizes import check_budget, packages_by_layer
from corten.builder.source import read_project
from corten.core.digest import Digest
from corten.core.image import Compression, Layer, LayerKind
from corten.errors import PolicyError, UsageError


def layer(kind, title, size_bytes):
    digest = Digest.of(title.encode())
    return Layer(kind, title, digest, digest, size_bytes, size_bytes, Compression.ZSTD)


LARGE = replace(small_image.wheel(), name="scipy", version="1.17", size_bytes=30_000_000)
SMALL = [replace(small_image.wheel(), name=name, size_bytes=size) for name, size in (("a", 100_000), ("b", 900_000))]
PLAN = replace(
    small_image.plan(wheels=[LARGE, *SMALL]),
    wheels=(WheelGroup("scipy 1.17", (LARGE,)), WheelGroup("small wheels", tuple(SMALL))),
)
LAYERS = [
    layer(LayerKind.BASE, "Debian", 12_000_000),
    layer(LayerKind.WHEELS, "scipy 1.17", 32_000_000),
    layer(LayerKind.WHEELS, "small wheels", 1_000_000),
    layer(LayerKind.RUNTIME, "server", 1_000),
    layer(LayerKind.WEIGHTS, "m.joblib", 500_000),
    layer(LayerKind.CODE, "code", 1_000),
]


def test_each_layer_tells_its_packages_the_largest_first():
    found = packages_by_layer(PLAN, LAYERS)

    assert [[one.name for one in packages] for packages in found] == [["zlib1g"], ["scipy"], ["b", "a"], [], [], []]


@pytest.mark.parametrize("budget_mb", [0, 45.502, 46])
def test_an_image_within_its_budget_passes(budget_mb):
    check_budget(PLAN, LAYERS, budget_mb)


def test_an_image_over_its_budget_is_refused_and_the_largest_parts_are_named():
    with pytest.raises(PolicyError) as caught:
        check_budget(PLAN, LAYERS, 45.5)

    error = caught.value
    assert (error.code, error.exit_code) == ("build.over_budget", 7)
    assert "45.5 MB" in error.what
    assert error.why.startswith("the largest layers: scipy 1.17 32.0 MB, Debian 12.0 MB, small wheels 1.0 MB")
    assert error.why.endswith("within others: b 1.17.0 0.9 MB, a 1.17.0 0.1 MB")


def test_a_project_may_set_its_own_budget(tmp_path):
    (tmp_path / "corten.toml").write_text('source = "m.py:M"\nmax_image_mb = 80\n')
    (tmp_path / "m.py").write_text("class M: ...\n")

    assert read_project(tmp_path).max_image_mb == 80


def test_a_negative_budget_is_refused(tmp_path):
    (tmp_path / "corten.toml").write_text("max_image_mb = -1\n")

    with pytest.raises(UsageError) as caught:
        read_project(tmp_path)
    assert caught.value.code == "source.bad_config"
