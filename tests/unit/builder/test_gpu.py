"""`gpu = true`: the choice is part of what decides a lock, and an image with CUDA says so to those who run it."""

import json
from dataclasses import replace

import small_image

from corten.builder import image as documents
from corten.builder.interpreter import debian_python
from corten.builder.lock import Inputs
from corten.builder.source import read_project
from corten.core.platform import Platform

INPUTS = Inputs(("torch",), (), "bookworm", debian_python("3.11", "2.36"), Platform.parse("linux/amd64"))


def test_a_project_may_ask_for_the_build_for_gpus(tmp_path):
    (tmp_path / "net.py").write_text("")
    (tmp_path / "corten.toml").write_text('source = "net.py"\ngpu = true\n')
    assert read_project(tmp_path).gpu
    (tmp_path / "corten.toml").write_text('source = "net.py"\n')
    assert not read_project(tmp_path).gpu


def test_a_lock_with_it_does_not_fit_without_and_earlier_locks_still_fit():
    assert replace(INPUTS, gpu=True).key != INPUTS.key
    # As it was computed before there was the choice.
    assert INPUTS.key == "b1cb5a6c1b58aa08aee60b85bd1b55a74d4512d323340924c3dbd051ae9d3cbd"


def config_of(*names):
    wheels = [replace(small_image.wheel(), name=name) for name in names]
    return json.loads(documents.config_json(small_image.plan(wheels=wheels), []))["config"]


def test_an_image_with_cuda_asks_the_container_toolkit_for_gpus_and_is_labelled():
    config = config_of("torch", "nvidia-cuda-runtime-cu12", "nvidia-cublas-cu12")
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(config["Env"])
    assert config["Labels"]["dev.corten.gpu"] == "cuda"


def test_an_image_without_cuda_asks_for_none():
    # XGBoost's larger build brings this one, and runs without a GPU.
    config = config_of("xgboost", "nvidia-nccl-cu12")
    assert not [line for line in config["Env"] if line.startswith("NVIDIA")]
    assert "dev.corten.gpu" not in config["Labels"]
