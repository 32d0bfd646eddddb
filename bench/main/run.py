"""What the main path costs: build, up, redeploy, memory, requests. Prints JSON on stdout and a table on stderr.

`python bench/main/run.py [--seconds 5] [--port 8765] [--no-cold]`; see README.md beside this file.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORTEN = Path(sys.executable).with_name("corten")
CONNECTIONS = (1, 16, 64)
WARM_BUILDS = 5
REDEPLOYS = 3
DEADLINE_S = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default: 5)")
    parser.add_argument("--port", type=int, default=8765, help="the gateway's; the one above it is used as well")
    parser.add_argument("--no-cold", action="store_true", help="use the caches of this machine: no download")
    options = parser.parse_args()
    home = Path(os.environ.get("CORTEN_HOME", "/var/lib/corten")) if options.no_cold else make_home()
    models = make_home()
    try:
        figures = measure(Corten(home), models, options)
    finally:
        Corten(home).run("stop", "--all", check=False)
        shutil.rmtree(models, ignore_errors=True)
        if not options.no_cold:
            shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(figures, indent=2))
    print("\n".join(f"{name:46} {value}" for name, value in flat(figures)), file=sys.stderr)
    return 0


def make_home() -> Path:
    # Not closed (0700): replicas of root run as another user.
    folder = Path(tempfile.mkdtemp(prefix="corten-bench-", dir="/tmp"))
    folder.chmod(0o755)
    return folder


class Corten:
    """The console script with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {**os.environ, "CORTEN_HOME": str(home)}

    def run(self, *words: object, check: bool = True) -> subprocess.CompletedProcess:
        command = [str(CORTEN), *map(str, words)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        if check and done.returncode:
            raise SystemExit(f"{' '.join(command)} gave {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *words: object) -> dict:
        return json.loads(self.run(*words, "--json").stdout)

    def timed(self, *words: object) -> tuple[float, subprocess.CompletedProcess]:
        """Seconds of the whole process, start of the interpreter included."""
        began_s = time.perf_counter()
        done = self.run(*words, "--json")
        return time.perf_counter() - began_s, done


def measure(corten: Corten, models: Path, options: argparse.Namespace) -> dict:
    paths = train(models)
    cold_s, done = corten.timed("build", paths[0], "--name", "bench")
    built = json.loads(done.stdout)
    warm = [corten.timed("build", paths[0], "--name", "bench")[0] for _ in range(WARM_BUILDS)]
    figures = {
        "processors": os.cpu_count(),
        "build": {
            ("first_s" if options.no_cold else "cold_s"): round(cold_s, 2),
            "warm_s": round(statistics.median(warm), 3),
            "image_mb": round(built["size_bytes"] / 1e6, 1),
        },
    }
    up_s, done = corten.timed("up", paths[0], "--name", "bench", "--port", options.port)
    url = json.loads(done.stdout)["url"]
    figures["up"] = {"built_before_s": round(up_s, 2), "replica_ready_s": round(ready_s(done), 2)}
    settle(corten)
    figures["redeploy"] = redeploys(corten, paths)
    figures["memory_mb"] = memory(corten, paths[0])
    body = json.dumps({"inputs": [[0.0] * 30]})
    figures["gateway"] = {f"c{many}": load(f"{url}predict", body, many, options.seconds) for many in CONNECTIONS}
    with served(paths[0], options.port + 1, corten.env) as direct:
        figures["direct"] = {f"c{many}": load(f"{direct}predict", body, many, options.seconds) for many in CONNECTIONS}
    return figures


def train(folder: Path) -> list[Path]:
    """Models that differ in their weights only, on data that comes with scikit-learn."""
    import joblib
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, answers = load_breast_cancer(return_X_y=True)
    paths = []
    for number in range(REDEPLOYS + 1):
        (folder / str(number)).mkdir()
        paths.append(folder / str(number) / "model.joblib")
        joblib.dump(make_pipeline(StandardScaler(), LogisticRegression(C=1 + number)).fit(rows, answers), paths[-1])
    return paths


def events(done: subprocess.CompletedProcess) -> list[dict]:
    lines = (line for line in done.stderr.splitlines() if line.startswith('{"event"'))
    return [json.loads(line)["event"] for line in lines]


def ready_s(done: subprocess.CompletedProcess) -> float:
    """From the start of the first replica to its ready, as the daemon saw it."""
    return next(one["seconds"] for one in events(done) if (one["step"], one["phase"]) == ("ready", "done"))


def settle(corten: Corten) -> None:
    """Wait for the bytecode that is compiled beside the first replica of new layers, at most a minute."""
    made = corten.home / "trees/pyc"
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s and not [one for one in made.glob("*") if not one.name.startswith(".")]:
        time.sleep(0.5)


def redeploys(corten: Corten, paths: list[Path]) -> dict:
    """Other weights under load-free conditions: the whole command, and what of it is not the model's own start."""
    whole, beyond = [], []
    for path in paths[1:]:
        seconds, done = corten.timed("up", path, "--name", "bench")
        whole.append(seconds)
        beyond.append(seconds - ready_s(done))
    return {"whole_s": round(statistics.median(whole), 2), "beyond_model_start_s": round(statistics.median(beyond), 2)}


def memory(corten: Corten, path: Path) -> dict:
    corten.run("up", path, "--name", "bench", "--replicas", 1)
    found = corten.json("status")
    replica = found["deployments"][0]["replicas"][0]["pid"]
    alone = field_mb(replica, "smaps_rollup", "Pss")
    figures = {
        "daemon_rss": field_mb(found["daemon"]["pid"], "status", "VmRSS"),
        "gateway_rss": field_mb(found["gateway"]["pid"], "status", "VmRSS"),
        "replica_rss": field_mb(replica, "status", "VmRSS"),
        "first_replica_pss": alone,
    }
    corten.run("up", path, "--name", "bench", "--replicas", 2)
    both = [one["pid"] for one in corten.json("status")["deployments"][0]["replicas"]]
    figures["second_replica_adds_pss"] = round(sum(field_mb(pid, "smaps_rollup", "Pss") for pid in both) - alone, 1)
    corten.run("up", path, "--name", "bench", "--replicas", 1)
    return figures


def field_mb(pid: int, file: str, name: str) -> float:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6, 1)


def load(url: str, body: str, connections: int, seconds: float) -> dict:
    """Requests a second and the 99th percentile in a closed loop: by wrk, else by our own slower client."""
    if shutil.which("wrk"):
        return wrk(url, body, connections, seconds)
    host, _, rest = url.removeprefix("http://").partition("/")
    words = ["--host", host.partition(":")[0], "--port", host.partition(":")[2], "--path", f"/{rest}", "--body", body]
    words += ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(
        [sys.executable, "-m", "corten.testing.load", *words], capture_output=True, text=True, timeout=60, check=False
    )
    found = json.loads(done.stdout)
    return {"per_s": found["ok_per_s"], "p99_ms": found["latency_ms"]["p99"], "failed": found["failed"]}


_SCRIPT = """
wrk.method = "POST"; wrk.headers["content-type"] = "application/json"; wrk.body = [==[%s]==]
done = function(summary, latency)
  local failed = 0
  for _, count in pairs(summary.errors) do failed = failed + count end
  print(string.format('{"per_s": %%.1f, "p99_ms": %%.3f, "failed": %%d}',
    summary.requests / (summary.duration / 1e6), latency:percentile(99) / 1e3, failed))
end
"""


def wrk(url: str, body: str, connections: int, seconds: float) -> dict:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT % body)
        script.flush()
        words = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", script.name, url]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60 + seconds, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def served(path: Path, port: int, env: dict) -> Iterator[str]:
    """The image's server on this Python and a TCP port, without gateway and sandbox."""
    words = [str(CORTEN), "serve", str(path), "--port", str(port)]
    with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until_s = time.monotonic() + 60
            while not is_ready(port) and time.monotonic() < until_s:
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server = children(process.pid)
            process.send_signal(signal.SIGINT)
            for pid in server:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            process.wait(timeout=60)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_ready(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
        return answer.status == 200
    return False


def flat(figures: dict, before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


if __name__ == "__main__":
    raise SystemExit(main())
