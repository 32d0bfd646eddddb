"""Corten beside the Python model servers, at the same work: see README.md. JSON on stdout, tables on stderr."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from load import closed, open_loop
from prepare import HERE, ROOT, Workshop
from process import Server
from systems import PORT, SYSTEMS, WORKS, Place, System

CONNECTIONS = (1, 16, 64)
# A part ends before this, whatever is slow: rows not begun by then are told, not waited for.
PART_S = 510.0
COLD_STARTS = 3
COLD_PAIRS = 11  # of Corten's start and the bare one, in turn
SLOW_START_S = 3.0
# Servers made by hand for one model. They are shown; the bars are about what one can install and give a model.
BY_HAND = frozenset({"granian", "fastapi-tuned"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="mlp", choices=[*WORKS, "all"], help="the work (default: mlp)")
    parser.add_argument("--only", default="", help="rows, with commas between: " + ",".join(SYSTEMS))
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load (default: 4)")
    parser.add_argument("--home", type=Path, default=Path("/var/tmp/corten-bench-serve"), help="kept between runs")
    parser.add_argument("--server-core", default="0")
    parser.add_argument("--client-core", default="1")
    parser.add_argument("--prepare", action="store_true", help="only make what is missing below the home")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name] or list(SYSTEMS)
    if unknown := [name for name in names if name not in SYSTEMS]:
        parser.error(f"no such row: {', '.join(unknown)}")
    workshop = Workshop(options.home)
    workshop.prepare([SYSTEMS[name].environment for name in names])
    if options.prepare:
        return
    parts = list(WORKS) if options.part == "all" else [options.part]
    results = {part: Part(part, workshop, options).run(names) for part in parts}
    json.dump(results, sys.stdout, indent=1)
    sys.stdout.write("\n")


class Part:
    """One work, all rows."""

    def __init__(self, work: str, workshop: Workshop, options: argparse.Namespace) -> None:
        self.work, self.workshop, self.options = work, workshop, options

    def run(self, names: Iterable[str]) -> dict:
        end_s = time.monotonic() + PART_S
        rows, costs, failed = {}, {}, {}
        tell(f"\n## {self.work}\n" + HEAD)
        for name in names:
            if time.monotonic() > end_s:
                failed[name] = "not begun: the part's time was over"
            elif self.work == "tensors" and not SYSTEMS[name].tensors:
                continue
            else:
                try:
                    rows[name], cost = self.row(name)
                    costs |= {"cost": cost} if cost else {}
                    tell(line(name, rows[name]))
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    failed[name] = str(error)[-400:]
            if name in failed:
                tell(f"| {name} | failed: {failed[name][:300]} |")
        result = {"rows": rows, **costs, "failed": failed}
        result["verdict"] = verdict(self.work, result)
        tell("\n" + "\n".join(told(result)))
        return result

    def row(self, name: str) -> tuple[dict, dict]:
        system, options = SYSTEMS[name], self.options
        with Server(system, self.work, self.workshop, options.server_core) as server:
            row = {"cold_s": server.cold_s, "wrong": server.wrong(), "idle_mb": server.memory_mb()}
            closed(server, 16, 1, options.client_core)  # warm-up
            cost: dict = {}
            for many in CONNECTIONS:
                before = batches() if name == "corten" else None
                row[f"c{many}"] = found = closed(server, many, options.seconds, options.client_core)
                if before and many == CONNECTIONS[-1]:
                    cost = self.cost(server, found, mean_batch(before, batches()))
            peak = row[f"c{CONNECTIONS[-1]}"]["per_s"]
            row["open"] = open_loop(server, self.workshop, max(peak / 2, 1), options.seconds, options.client_core)
            row["mb"] = server.memory_mb()
        starts = [row["cold_s"]]
        while len(starts) < COLD_STARTS and starts[0] < SLOW_START_S:
            with Server(system, self.work, self.workshop, options.server_core) as again:
                starts.append(again.cold_s)
        row["cold_s"] = round(min(starts), 3)
        if cost:
            cost |= self.floors()
        if cost and self.work != "tensors":
            cost |= self.cold_pairs(system)
        return row, cost

    def cost(self, server: Server, found: dict, batch: float) -> dict:
        """Corten's request at 64 connections in parts: what each costs when it is done alone on the same core."""
        python = self.workshop.python("corten")
        folder = server.folder
        if self.work == "tensors":
            return {"whole_us": found["cpu_us"], "rows_a_call": batch}
        env = {"PYTHONPATH": f"{ROOT / 'src'}:{HERE / 'apps'}", "BENCH_MODELS": str(folder / "models")}
        words = [python, str(HERE / "apps/stages.py"), folder / "app", folder / "models", server.bodies, str(batch)]
        stages = self._json([str(word) for word in words], env)
        return {"whole_us": found["cpu_us"], "rows_a_call": batch, **stages}

    def floors(self) -> dict:
        """The same requests answered with as many fixed bytes."""
        size = "1048576" if self.work == "tensors" else "200"
        words = ["floor.py", str(PORT), size]
        with Floor(words, self.work, self.workshop, self.options.server_core) as server:
            closed(server, 16, 1, self.options.client_core)
            least = closed(server, CONNECTIONS[-1], self.options.seconds, self.options.client_core)
        return {"floor_us": least["cpu_us"], "floor_per_s": least["per_s"]}

    def cold_pairs(self, system: System) -> dict:
        """Starts of Corten, of the least server and without any in turn, so that all meet the same machine: medians."""
        python, core = self.workshop.python("corten"), self.options.server_core
        place = Place(self.workshop, self.workshop.home, self.work)
        env = {"PYTHONPATH": str(HERE / "apps"), "BENCH_MODELS": str(self.workshop.models)}
        served, bare, least = [], [], []
        for _ in range(COLD_PAIRS):
            bare.append(self._first_line_s([python, str(HERE / "apps/bare.py"), place.kind], env))
            with Server(system, self.work, self.workshop, core) as server:
                served.append(server.cold_s)
            with Floor(["least.py", place.kind, str(PORT)], self.work, self.workshop, core) as server:
                least.append(server.cold_s)
        medians = {"served_cold_s": served, "bare_cold_s": bare, "least_cold_s": least}
        return {name: round(statistics.median(took_s), 4) for name, took_s in medians.items()}

    def _first_line_s(self, words: list[str], env: dict[str, str]) -> float:
        """How long a program takes to say something; its end is no part of it."""
        env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **env}
        began_s = time.perf_counter()
        with subprocess.Popen(
            ["taskset", "-c", self.options.server_core, *words], env=env, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            took_s = time.perf_counter() - began_s
        if not said or process.wait(60):
            raise RuntimeError(f"{words[1]} did not work")
        return took_s

    def _json(self, words: list[str], env: dict[str, str]) -> dict:
        words = ["taskset", "-c", self.options.server_core, *words]
        done = subprocess.run(
            words,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-400:])
        return json.loads(done.stdout)


class Floor(Server):
    """A program of `apps/` in Corten's environment, asked what Corten is asked."""

    def __init__(self, words: list[str], work: str, workshop: Workshop, core: str) -> None:
        protocol, path = SYSTEMS["corten"].asks(work)
        command = [workshop.python("corten"), str(HERE / "apps" / words[0]), *words[1:]]
        super().__init__(System("corten", lambda _: command, path, protocol, protocol), work, workshop, core)


def batches() -> tuple[float, float]:
    """Rows and calls of Corten's model so far, of its own metrics."""

    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10) as answer:
        lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
    return float(lines["corten_batch_rows_sum"]), float(lines["corten_batch_rows_count"])


def mean_batch(before: tuple[float, float], after: tuple[float, float]) -> float:
    rows, calls = (b - a for a, b in zip(before, after, strict=True))
    return round(rows / max(calls, 1), 1)


def verdict(work: str, result: dict) -> dict:
    """The bars of the design that this part can speak to: the figure, the bar, whether it holds."""
    rows, cost = result["rows"], result.get("cost", {})
    many = "c16" if work == "tensors" else "c64"
    # What answers wrongly, or nobody in time, is no rival.
    peers = {
        name: row
        for name, row in rows.items()
        if name != "corten" and name not in BY_HAND and not row["wrong"] and row[many]["p99_ms"]
    }
    found: dict[str, dict] = {}
    if "corten" in rows and peers:
        best = max(peers, key=lambda name: peers[name][many]["per_s"])
        ratio = rows["corten"][many]["per_s"] / peers[best][many]["per_s"]
        bar = {"mlp": 20.0, "tensors": 3.0}.get(work)
        ours, theirs = rows["corten"][many]["p99_ms"], min(row[many]["p99_ms"] for row in peers.values())
        found[f"requests a second, times {best}'s"] = judged(ratio, bar, holds=ratio >= (bar or 0))
        found[f"p99 at {many}, of the best peer's"] = judged(ours / theirs, 1.0, holds=ours <= theirs)
    if cost.get("model_us") is not None and cost.get("floor_us"):
        ratio = cost["whole_us"] / (cost["model_us"] + cost["floor_us"])
        found["processor time, times model + HTTP floor"] = judged(ratio, 1.3, holds=ratio <= 1.3)
    if cost.get("bare_cold_s"):
        ratio = cost["served_cold_s"] / cost["bare_cold_s"]
        found["cold start, times import + load + predict"] = judged(ratio, 1.2, holds=ratio <= 1.2)
        ratio = cost["served_cold_s"] / cost["least_cold_s"]
        found["cold start, times the least server's"] = judged(ratio, 1.1, holds=ratio <= 1.1)
    return found


def judged(value: float, bar: float | None, *, holds: bool) -> dict:
    return {"value": round(value, 2), "bar": bar, "holds": holds if bar else None}


def told(result: dict) -> Iterable[str]:
    cost = result.get("cost", {})
    if cost.get("model_us") is not None:
        rest = cost["whole_us"] - cost["floor_us"] - cost["decode_us"] - cost["answer_us"] - cost["model_us"]
        yield f"microseconds of a request at 64 connections ({cost['rows_a_call']} rows a call), each part measured alone:"
        parts = {
            "HTTP floor": cost["floor_us"],
            "body to inputs": cost["decode_us"],
            "inputs to array, answer to JSON": cost["answer_us"],
            "the model": cost["model_us"],
            "routing, batching, counting": rest,
            "whole": cost["whole_us"],
        }
        yield from (f"  {name:34}{value:9.1f}" for name, value in parts.items())
    for name, one in result["verdict"].items():
        word = {True: "holds", False: "MISSED", None: ""}[one["holds"]]
        yield f"{name:48}{one['value']:9.2f}  bar {one['bar'] or '-'}  {word}"


HEAD = "| row | 1: req/s | p50 | p99 ms | 16: req/s | p50 | p99 | 64: req/s | p50 | p99 | open: req/s | p50 | p99 | failed | wrong | cold s | MB | others |"
HEAD += "\n" + "|---" * 18 + "|"


def line(name: str, row: dict) -> str:
    cells = [name]
    loads = [row[f"c{many}"] for many in CONNECTIONS] + [row["open"]]
    for load in loads:
        cells += [f"{load['per_s']:,.0f}", f"{load['p50_ms']:.2f}", f"{load['p99_ms']:.2f}"]
    cells += [str(sum(load["failed"] for load in loads)), str(row["wrong"]), f"{row['cold_s']:.2f}", f"{row['mb']:.0f}"]
    return "| " + " | ".join([*cells, f"{max(load['others'] for load in loads):.2f}"]) + " |"


def tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
