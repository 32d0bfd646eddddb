"""Config and manifest: what the image spec asks for, and nothing that differs from machine to machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from corten.adapters.base import SourceFile
from corten.builder import image
from corten.builder.debian.release import RELEASES
from corten.builder.lock import Lock
from corten.builder.plan import Plan
from corten.core.digest import Digest
from corten.core.image import CONFIG, MANIFEST, Compression, Layer, LayerKind
from corten.core.model import Example, ModelSpec
from corten.core.platform import Platform
from corten.core.schema import DType, Schema, Style, Tensor
from corten.store.layout import Layout

LAYERS = [
    Layer(LayerKind.BASE, "Debian", Digest.of(b"c"), Digest.of(b"p"), 1, 5, Compression.ZSTD),
    Layer(LayerKind.WEIGHTS, "w.joblib", Digest.of(b"w"), Digest.of(b"w"), 7, 7, Compression.NONE),
]


@pytest.fixture
def plan():
    schema = Schema(Style.ROWS, (Tensor("x", DType.FLOAT64, (None, 4)),), (Tensor("y", DType.INT64, (None,)),))
    return Plan(
        name="iris",
        platform=Platform("arm64"),
        base=RELEASES["bookworm"],
        spec=ModelSpec("iris", "sklearn", ("w.joblib",), schema=schema, example=Example([[1, 2, 3, 4]])),
        lock=Lock("k", Platform("arm64"), "bookworm", "3.11", (), ()),
        wheels=(),
        weights=(),
        code=(SourceFile(Path("/home/me/secret-folder/a.py"), "a.py"),),
    )


def test_a_config_runs_the_server_as_nobody(plan) -> None:
    config = json.loads(image.config_json(plan, LAYERS))

    run = config["config"]
    assert (config["os"], config["architecture"]) == ("linux", "arm64")
    assert run["User"] == "65532:65532"
    assert run["Entrypoint"] == ["/usr/bin/python3", "-m", "corten.serve"]
    assert (run["WorkingDir"], run["StopSignal"], run["ExposedPorts"]) == ("/app", "SIGTERM", {"8080/tcp": {}})
    assert {"LANG=C.UTF-8", "PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"} <= set(run["Env"])
    assert not [text for text in run["Env"] if "THREADS" in text]


def test_a_config_lists_every_layer_and_its_history(plan) -> None:
    config = json.loads(image.config_json(plan, LAYERS))

    assert config["rootfs"] == {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in LAYERS]}
    assert [entry["created_by"] for entry in config["history"]] == ["corten base: Debian", "corten weights: w.joblib"]


def test_neither_time_nor_place_gets_into_the_bytes(plan, monkeypatch) -> None:
    before = image.config_json(plan, LAYERS)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")

    assert image.config_json(plan, LAYERS) == before
    assert b"secret-folder" not in before
    assert json.loads(before)["created"] == "1970-01-01T00:00:00Z"


def test_labels_tell_the_schema_but_not_the_example(plan) -> None:
    labels = image.labels_of(plan)

    assert json.loads(labels["dev.corten.schema"])["inputs"][0]["shape"] == [None, 4]
    assert json.loads(labels["dev.corten.model"])["example"] is None
    assert labels["org.opencontainers.image.title"] == "iris"
    assert "org.opencontainers.image.revision" not in labels


def test_labels_of_the_settings_are_added(plan) -> None:
    labelled = replace(plan, labels={"org.opencontainers.image.revision": "abc"})

    assert image.labels_of(labelled)["org.opencontainers.image.revision"] == "abc"


def test_the_store_reads_what_is_written(plan, tmp_path) -> None:
    layout = Layout(tmp_path)
    config = layout.put(image.config_json(plan, LAYERS), CONFIG)
    manifest = layout.put(image.manifest_json(config, LAYERS), MANIFEST)

    read = layout.image(manifest.digest)

    assert list(read.layers) == LAYERS
    assert read.platform == Platform("arm64")
    assert read.size_bytes == 8
