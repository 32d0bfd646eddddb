"""The systems beside each other: how each is started, in which protocol it is asked, and where."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prepare import HERE, ROOT, Workshop

APPS = HERE / "apps"
PORT = 21000
# Work, and the kind of model behind it.
WORKS = {"lr": "lr", "rf": "rf", "mlp": "mlp", "mlp32": "mlp", "embed": "embed", "tensors": "tensors"}


@dataclass(frozen=True)
class Place:
    """Where a server is started: the bench's home, a folder of its own, the work it is to do."""

    workshop: Workshop
    folder: Path
    work: str

    @property
    def kind(self) -> str:
        return WORKS[self.work]

    def bin(self, environment: str, name: str = "python") -> str:
        return str(Path(self.workshop.python(environment)).with_name(name))


@dataclass(frozen=True)
class System:
    """`protocol` is a folder of bodies that make.py wrote; `tensors` the one for the megabyte, empty for none."""

    environment: str
    command: Callable[[Place], list[str]]
    path: str = "/predict"
    protocol: str = "plain"
    tensors: str = "octets"
    env: Mapping[str, str] = field(default_factory=dict)

    def asks(self, work: str) -> tuple[str, str]:
        """Folder of bodies and path of requests for a work."""
        return (self.tensors if work == "tensors" else self.protocol), self.path


class Corten(System):
    """Our row: the process an image starts, with the folders an image has."""

    def __init__(self) -> None:
        super().__init__("corten", _corten)

    def asks(self, work: str) -> tuple[str, str]:
        if work == "tensors":
            return "v2corten", "/v2/models/tensors/infer"
        return ("call" if work == "embed" else "plain"), "/predict"


def _corten(place: Place) -> list[str]:
    """`/app` and `/models` as `corten build` would fill them, made by the builder's own functions."""
    import sys

    app = place.folder / "app"
    if not (app / "corten.json").exists():
        import subprocess

        source = {"lr": "lr.joblib", "rf": "rf.joblib", "embed": f"{APPS / 'embedder.py'}:Embedder"}
        given = source.get(place.kind, f"{place.kind}.onnx")
        given = given if ":" in given else str(place.workshop.models / given)
        words = [sys.executable, str(HERE / "unpacked.py"), given, str(place.folder), str(place.workshop.models)]
        subprocess.run(words, check=True, timeout=120)
    return [place.bin("corten"), "-m", "corten.serve"]


def _app(environment: str, name: str) -> Callable[[Place], list[str]]:
    return lambda place: [place.bin(environment), "-u", str(APPS / name)]


def _uvicorn(app: str, *more: str) -> Callable[[Place], list[str]]:
    words = [f"{app}:app", "--app-dir", str(APPS), "--port", str(PORT), *more]
    return lambda place: [place.bin("fastapi", "uvicorn"), *words]


def _granian(place: Place) -> list[str]:
    words = ["--interface", "rsgi", "--port", str(PORT), "--workers", "1", "--no-access-log", "--backpressure", "1024"]
    return [place.bin("fastapi", "granian"), *words, "--working-dir", str(APPS), "granian_app:app"]


def _bentoml(place: Place) -> list[str]:
    words = ["serve", "bentoml_app:Bench", "--port", str(PORT), "--host", "127.0.0.1", "--working-dir", str(APPS)]
    return [place.bin("bentoml", "bentoml"), *words]


def _mlserver(place: Place) -> list[str]:
    ports = {"http_port": PORT, "grpc_port": PORT + 1, "metrics_port": PORT + 2}
    quiet = {"host": "127.0.0.1", "debug": False, "parallel_workers": 0, "metrics_dir": str(place.folder)}
    (place.folder / "settings.json").write_text(json.dumps({**ports, **quiet, "gzip_enabled": False}))
    about = {"name": "m", "implementation": "mlserver_app.Runtime", "max_batch_size": 64, "max_batch_time": 0.001}
    if place.kind in {"lr", "rf"}:
        uri = {"uri": str(place.workshop.models / f"{place.kind}.joblib")}
        about |= {"implementation": "mlserver_sklearn.SKLearnModel", "parameters": uri}
    (place.folder / "model-settings.json").write_text(json.dumps(about))
    return [place.bin("mlserver", "mlserver"), "start", str(place.folder)]


_RAY = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

SYSTEMS: dict[str, System] = {
    "corten": Corten(),
    "granian": System("fastapi", _granian),
    "fastapi": System("fastapi", _uvicorn("fastapi_app"), tensors=""),
    "fastapi-tuned": System("fastapi", _uvicorn("fastapi_tuned", "--no-access-log")),
    "bentoml": System("bentoml", _bentoml, env={"BENTOML_DO_NOT_TRACK": "True"}),
    "litserve": System("litserve", _app("litserve", "litserve_app.py"), tensors=""),
    "mlserver": System("mlserver", _mlserver, "/v2/models/m/infer", "v2", tensors=""),
    "kserve": System("kserve", _app("kserve", "kserve_app.py"), "/v1/models/m:predict", "v1", tensors=""),
    "kserve-v2": System("kserve", _app("kserve", "kserve_app.py"), "/v2/models/m/infer", "v2", tensors="v2binary"),
    "ray": System("ray", _app("ray", "ray_app.py"), "/", env=_RAY),
}


def environment_of(system: System, place: Place) -> dict[str, str]:
    """Variables of a server's process; the bytecode of what is measured is written as usual."""
    own = {
        "BENCH_MODELS": str(place.workshop.models),
        "BENCH_KIND": place.kind,
        "BENCH_PORT": str(PORT),
        "BENCH_TMP": str(place.folder),
        "BENTOML_HOME": str(place.folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(APPS),
    }
    if isinstance(system, Corten):
        folder = place.folder
        own |= {
            "PYTHONPATH": str(ROOT / "src"),
            "CORTEN_LISTEN": f"127.0.0.1:{PORT}",
            "CORTEN_APP_DIR": str(folder / "app"),
            "CORTEN_MODELS_DIR": str(folder / "models"),
        }
    return {**own, **system.env}
