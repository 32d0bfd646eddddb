"""`corten build` beside a good Dockerfile (uv, cache mount, layers by change rate) in buildah: see README.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
REQUIREMENTS = ("scikit-learn", "joblib")
DOCKERFILE = """\
FROM localhost/base
COPY requirements.txt /app/
RUN --mount=type=bind,source=wheels,target=/wheels --mount=type=cache,target=/root/.cache/uv \\
    --mount=type=bind,source=uv,target=/usr/local/bin/uv \\
    uv pip install --system --break-system-packages --link-mode=copy --no-index --find-links /wheels \\
    -r /app/requirements.txt
COPY model /app/model
COPY serve.py /app/
CMD ["python3", "/app/serve.py"]
"""
STEPS = ("cold", "nothing changed", "code changed", "weights changed")
DEADLINE_S = 300


class Work:
    """A project folder with a class of a few lines and a model, and what both builders are given of it."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.wheels = folder / "wheels"
        (self.project / "model").mkdir(parents=True)
        self.wheels.mkdir()
        self.edit_code(0)
        self.edit_weights(0)

    def edit_code(self, number: int) -> None:
        (self.project / "serve.py").write_text(
            "import joblib\nfrom pathlib import Path\n\n\nclass Model:\n"
            "    def __init__(self, models: Path = Path('model')) -> None:\n"
            "        self.model = joblib.load(models / 'model.joblib')\n\n"
            f"    def predict(self, row: list[float]) -> int:  # {number}\n"
            "        return int(self.model.predict([row])[0])\n"
        )

    def edit_weights(self, seed: int) -> None:
        import joblib
        from sklearn.datasets import load_digits
        from sklearn.ensemble import RandomForestClassifier

        features, labels = load_digits(return_X_y=True)
        model = RandomForestClassifier(100, random_state=seed).fit(features, labels)
        joblib.dump(model, self.project / "model" / "model.joblib")

    def prepare(self, step: str, repeat: int) -> None:
        if step == "code changed":
            self.edit_code(repeat + 1)
        if step == "weights changed":
            self.edit_weights(repeat + 1)


class Corten:
    """`corten build` with a home of its own; its wheels come from the same folder."""

    name = "corten"

    def __init__(self, folder: Path, work: Work) -> None:
        self.home = folder / "home"
        self.work = work
        self.env = {
            **os.environ, "CORTEN_HOME": str(self.home), "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(work.wheels),
        }  # fmt: skip

    def fetch_wheels(self) -> list[str]:
        """Build once from the index: its wheels are what everybody gets. The pins, for a requirements file."""
        self._run({**os.environ, "CORTEN_HOME": str(self.home)})
        lock = next((self.home / "cache" / "locks").glob("*.json"))
        pins = []
        for wheel in json.loads(lock.read_text())["locks"][0]["wheels"]:
            pins.append(f"{wheel['name']}=={wheel['version']}")
            found = self.home / "cache" / "wheels" / wheel["digest"].removeprefix("sha256:") / wheel["filename"]
            shutil.copyfile(found, self.work.wheels / wheel["filename"])
        return pins

    def clear(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)

    def build(self) -> None:
        self._run(self.env)

    def size_bytes(self) -> int:
        document = json.loads(self._run(self.env, "--json"))
        return int(document["size_bytes"])

    def _run(self, env: dict[str, str], *more: str) -> str:
        source = f"{self.work.project / 'serve.py'}:Model"
        requirements = [word for name in REQUIREMENTS for word in ("-r", name)]
        return run([str(BIN / "corten"), "build", source, "--name", "bench", *requirements, "-q", *more], env=env)


class Buildah:
    """`buildah bud --layers` of the Dockerfile; its base image is there already and costs it nothing."""

    name = "buildah + uv"

    def __init__(self, folder: Path, work: Work, base: Path, pins: list[str]) -> None:
        self.work = work
        self.store = folder / "buildah"
        self.base = base
        (work.project / "Dockerfile").write_text(DOCKERFILE)
        (work.project / "requirements.txt").write_text("\n".join(pins) + "\n")
        shutil.copy(BIN / "uv", work.project / "uv")
        (work.project / "wheels").symlink_to(work.wheels)
        self.context = folder / "context"

    def clear(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)
        # The cache mount lies below TMPDIR.
        (self.store / "tmp").mkdir(parents=True)
        container = self._buildah("from", "scratch").strip()
        self._buildah("add", "-q", container, str(self.base), "/")
        self._buildah("commit", "-q", container, "localhost/base")

    def build(self) -> None:
        # The context is made of the project outside the timed step in `main`; only the build is timed.
        self._buildah(
            "bud", "--isolation", "chroot", "--layers", "--pull=never", "-q", "-t", "bench", str(self.context)
        )  # fmt: skip

    def sync(self) -> None:
        self.context.mkdir(exist_ok=True)
        run(["cp", "-aL", f"{self.work.project}/.", str(self.context)])

    def size_bytes(self) -> int:
        """As a registry would get it: its layers compressed."""
        with tempfile.TemporaryDirectory() as folder:
            self._buildah("push", "-q", "bench", f"oci:{folder}/out:bench")
            return sum(path.stat().st_size for path in Path(folder).rglob("blobs/sha256/*"))

    def _buildah(self, *words: str) -> str:
        driver = os.environ.get("BENCH_STORAGE_DRIVER", "overlay")
        store = ["--root", f"{self.store}/root", "--runroot", f"{self.store}/run", "--storage-driver", driver]
        return run(["buildah", *store, *words], env={**os.environ, "TMPDIR": f"{self.store}/tmp"})


def run(words: list[str], *, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=DEADLINE_S, check=False)
    if done.returncode:
        sys.exit(f"failed: {' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def make_base(path: Path) -> None:
    """A python:3.11-slim look-alike out of Debian bookworm."""
    run(["mmdebstrap", "--variant=minbase", "--include=python3,ca-certificates,tzdata", "bookworm", str(path)])


def timed(builder: Corten | Buildah, work: Work, step: str, repeat: int) -> float:
    if step == "cold":
        builder.clear()
    work.prepare(step, repeat)
    if isinstance(builder, Buildah):
        builder.sync()
    began_s = time.perf_counter()
    builder.build()
    return time.perf_counter() - began_s


def measure(builders: list[Corten | Buildah], work: Work, repeats: int) -> dict:
    """Each step in turn by all builders, so that whatever else the machine does meets all of them."""
    seconds: dict[str, dict[str, list[float]]] = {builder.name: {step: [] for step in STEPS} for builder in builders}
    for step in STEPS:
        for repeat in range(1 if step == "cold" else repeats):
            for builder in builders:
                seconds[builder.name][step].append(round(timed(builder, work, step, repeat), 3))
    best = {name: {step: min(found) for step, found in steps.items()} for name, steps in seconds.items()}
    ours, theirs = (best[builder.name] for builder in builders)
    return {
        "seconds": seconds,
        "ratio": {step: round(ours[step] / theirs[step], 3) for step in STEPS},
        "size_mb": {builder.name: round(builder.size_bytes() / 1e6, 1) for builder in builders},
    }


def table(result: dict) -> str:
    lines = [f"{'':18}" + "".join(f"{name:>16}" for name in result["seconds"]) + f"{'ratio':>9}"]
    for step in STEPS:
        row = "".join(f"{min(steps[step]):14.2f} s" for steps in result["seconds"].values())
        lines.append(f"{step:18}{row}{result['ratio'][step]:9.2f}")
    lines.append(f"{'image':18}" + "".join(f"{size:13.1f} MB" for size in result["size_mb"].values()))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--base", type=Path, help="a root file system as a tar (default: made by mmdebstrap)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="corten-bench-", dir="/var/tmp"))
    try:
        work = Work(folder)
        corten = Corten(folder, work)
        pins = corten.fetch_wheels()
        base = options.base or folder / "base.tar"
        if not options.base:
            make_base(base)
        result = measure([corten, Buildah(folder, work, base, pins)], work, options.repeats)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stderr.write(table(result) + "\n")
    json.dump(result, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
