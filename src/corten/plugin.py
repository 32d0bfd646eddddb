"""Find an implementation by kind and name: the built-in table first, entry points only for names it lacks.

Reading entry points costs 32 ms (`importlib.metadata`), so a built-in name must never pay for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from corten.errors import NotFoundError

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "adapters": {
        "mlflow": "corten.adapters.mlflow:Mlflow",
        "huggingface": "corten.adapters.huggingface:HuggingFace",
        "xgboost": "corten.adapters.xgboost:Xgboost",
        "lightgbm": "corten.adapters.lightgbm:Lightgbm",
        "sklearn": "corten.adapters.sklearn:Sklearn",
        "onnx": "corten.adapters.onnx:Onnx",
        "keras": "corten.adapters.keras:Keras",
        "torch": "corten.adapters.torch:Torch",
        "cog": "corten.adapters.cog:Cog",
        "litserve": "corten.adapters.litserve:LitServe",
        "torchclass": "corten.adapters.torchclass:TorchClass",
        "pyclass": "corten.adapters.pyclass:PyClass",
    },
    "engines": {
        "embedded": "corten.engine.embedded:Embedded",
        "podman": "corten.engine.containers:Podman",
        "docker": "corten.engine.containers:Docker",
        "memory": "corten.engine.memory:Memory",
    },
    "exporters": {
        "kubernetes": "corten.exporters.kubernetes:Kubernetes",
        "helm": "corten.exporters.helm:Helm",
        "kustomize": "corten.exporters.kustomize:Kustomize",
        "kserve": "corten.exporters.kserve:KServe",
        "knative": "corten.exporters.knative:Knative",
        "argo-rollouts": "corten.exporters.argo_rollouts:ArgoRollouts",
        "compose": "corten.exporters.compose:Compose",
        "quadlet": "corten.exporters.units:Quadlet",
        "systemd": "corten.exporters.units:Systemd",
    },
}


def find(kind: str, name: str) -> Any:
    """The class registered as `name` under `kind` ("adapters", "engines", "exporters"); raises NotFoundError."""
    target = BUILT_IN[kind].get(name) or _from_entry_points(kind, name)
    if target is None:
        raise NotFoundError(
            "plugin.unknown",
            f"no {kind.removesuffix('s')} called `{name}`",
            why="built in: " + ", ".join(sorted(BUILT_IN[kind])),
            hint=f"install the package that provides the entry point `corten.{kind}`",
        )
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _from_entry_points(kind: str, name: str) -> str | None:
    from importlib.metadata import entry_points

    for entry in entry_points(group=f"corten.{kind}"):
        if entry.name == name:
            return entry.value
    return None
