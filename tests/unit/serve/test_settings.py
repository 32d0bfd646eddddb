from __future__ import annotations

from pathlib import Path

import pytest

from corten.core.model import ModelSpec
from corten.core.schema import DType, Style
from corten.errors import UsageError
from corten.http import TcpAddress, UnixAddress
from corten.serve.loading import read_spec
from corten.serve.settings import Settings


def test_nothing_told_means_port_8080_of_every_interface():
    settings = Settings.from_env({})
    assert settings.listen == TcpAddress("0.0.0.0", 8080)
    assert (settings.app_dir, settings.models_dir) == (Path("/app"), Path("/models"))
    assert settings.drain_s == 30


def test_the_platforms_port_is_obeyed_and_an_address_wins_over_it():
    assert Settings.from_env({"PORT": "9000"}).listen == TcpAddress("0.0.0.0", 9000)
    assert Settings.from_env({"PORT": "9000", "CORTEN_LISTEN": "unix:/run/x"}).listen == UnixAddress(Path("/run/x"))


@pytest.mark.parametrize(
    "env",
    [
        {"PORT": "http"},
        {"CORTEN_LISTEN": "nowhere"},
        {"CORTEN_DRAIN_S": "soon"},
        {"CORTEN_DRAIN_S": "-1"},
        {"CORTEN_DRAIN_S": "nan"},
        {"CORTEN_ACCESS_LOG": "2"},
        {"CORTEN_LOG_LEVEL": "loud"},
        {"CORTEN_WORKERS": "0"},
        {"CORTEN_WORKERS": "65"},
        {"CORTEN_WORKERS": "two"},
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused_by_its_name(env):
    with pytest.raises(UsageError) as caught:
        Settings.from_env(env)
    assert any(part in str(caught.value) for part in (*env, *env.values()))


def test_a_spec_is_read_with_its_types(tmp_path):
    (tmp_path / "corten.json").write_text(
        '{"name":"a","adapter":"onnx","files":["m.onnx"],"schema":{"style":"rows","inputs":'
        '[{"name":"x","dtype":"float32","shape":[null,3]}]},"example":{"inputs":{"inputs":[[1,2,3]]}},"later":1}'
    )
    spec = read_spec(tmp_path)
    assert spec.schema.style is Style.ROWS
    assert spec.schema.inputs[0].dtype is DType.FLOAT32
    assert spec.schema.inputs[0].shape == (None, 3)
    assert spec.files == ("m.onnx",)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "serve.spec_missing"),
        ("{", "serve.spec_invalid"),
        ('{"name":"a"}', "serve.spec_invalid"),
        ('{"name":"a","adapter":"onnx","format":2}', "serve.spec_format"),
    ],
)
def test_a_spec_that_cannot_be_used_is_told(tmp_path, text, code):
    if text is not None:
        (tmp_path / "corten.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_spec(tmp_path)
    assert caught.value.code == code
    assert str(tmp_path) in caught.value.where


@pytest.mark.parametrize(
    ("env", "spec", "expected"),
    [
        ({}, {}, 1),
        ({}, {"workers": 3}, 3),
        ({"CORTEN_WORKERS": "2"}, {"workers": 3}, 2),
        ({"CORTEN_WORKERS": "auto"}, {}, 4),
        ({}, {"workers": 0}, 4),
        ({"CORTEN_WORKERS": "2"}, {"grpc": True}, 2),
    ],
    ids=["one", "as-built", "as-told", "auto", "auto-as-built", "grpc"],
)
def test_how_many_processes_answer(monkeypatch, env, spec, expected):
    monkeypatch.setattr("corten.serve.settings.processors", lambda: 4.5)
    assert Settings.from_env(env).workers_of(ModelSpec("m", "onnx", **spec)) == expected
