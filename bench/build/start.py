"""How long a replica takes to its first answer, beside a bare Python that imports, loads and predicts in the same root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from builders import BIN, DEADLINE_S, FailedError
from loopback import free_port

REPEATS = 3
_BARE = """
import joblib, numpy
joblib.load("/models/model.joblib").predict(numpy.zeros((1, 64)))
"""


def measure(folder: Path) -> dict:
    if not shutil.which("bwrap"):
        raise FailedError("bwrap is not installed")
    corten = Corten(folder)
    write_model(folder / "model")
    first_s = corten.ready_s()
    # Two roots may be there: the one with the server is the one with most files; one image was built, so there is one.
    root = next(path for path in (corten.home / "trees" / "roots").iterdir() if not path.name.startswith("."))
    bare_first_s = bare(root, folder / "model", None)
    pyc = corten.learn(root.name)
    later_s = min(corten.ready_s() for _ in range(REPEATS))
    bare_later_s = min(bare(root, folder / "model", pyc) for _ in range(REPEATS))
    figures = {
        "first_start_s": round(first_s, 2),
        "bare_without_bytecode_s": round(bare_first_s, 2),
        "later_start_s": round(later_s, 2),
        "bare_with_bytecode_s": round(bare_later_s, 2),
    }
    bars = [
        bar("first start of new layers, of a bare one", first_s / bare_first_s),
        bar("later starts, of a bare one", later_s / bare_later_s),
    ]
    return {"figures": figures, "bars": bars}


def bar(name: str, ratio: float) -> dict:
    return {"name": f"start: {name}", "value": round(ratio, 2), "most": 1.2, "met": ratio <= 1.2}


class Corten:
    """One home, so that layers are unpacked and bytecode is made once."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.home.chmod(0o755)
        self.source = folder / "model" / "model.joblib"
        env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.env = {**env, "CORTEN_HOME": str(self.home)}

    def ready_s(self) -> float:
        """Process start to ready, which a replica is when it has answered its example (or was warmed up)."""
        return self.run("build", str(self.source), "--name", "start", "--test")["gate"]["ready_s"]

    def learn(self, chain: str) -> Path:
        """Let a replica run until the bytecode of what it imported is there."""
        made = self.home / "trees" / "pyc" / chain
        try:
            self.run("up", str(self.source), "--name", "start", "--port", str(free_port()))
            until_s = time.monotonic() + 60
            while not made.is_dir():
                if time.monotonic() > until_s:
                    raise FailedError("no bytecode was made")
                time.sleep(0.2)
        finally:
            self.run("stop", "--all")
        return made

    def run(self, *words: str) -> dict:
        command = [str(BIN / "corten"), *words, "--json"]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        if done.returncode:
            raise FailedError(f"corten {' '.join(words)}: {done.stdout[-1500:]}")
        return json.loads(done.stdout)


def write_model(folder: Path) -> None:
    import joblib
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    folder.mkdir()
    features, labels = load_digits(return_X_y=True)
    joblib.dump(RandomForestClassifier(200, random_state=0).fit(features, labels), folder / "model.joblib")


def bare(root: Path, models: Path, pyc: Path | None) -> float:
    words = [
        "bwrap",
        "--ro-bind",
        str(root),
        "/",
        "--ro-bind",
        str(models),
        "/models",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
    ]
    words += ["--tmpfs", "/tmp", "--clearenv", "--setenv", "LANG", "C.UTF-8"]
    if pyc:
        words += ["--ro-bind", str(pyc), "/tmp/pyc", "--setenv", "PYTHONPYCACHEPREFIX", "/tmp/pyc"]
    began_s = time.perf_counter()
    done = subprocess.run(
        [*words, "/usr/bin/python3", "-c", _BARE], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    if done.returncode:
        raise FailedError(f"the bare Python: {done.stderr[-1500:]}")
    return time.perf_counter() - began_s
