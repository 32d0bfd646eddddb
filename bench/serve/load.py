"""The generator's side: closed loop by wrk, open loop by openloop; what the server and others spent meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from prepare import HERE, Workshop
from process import Server, machine_s
from systems import PORT

REST_S = 15.0


def closed(server: Server, connections: int, seconds: float, core: str) -> dict:
    """Each connection asks again as soon as it is answered. `cpu_us` is the server's processor time of a request."""
    headers = server.folder / "headers"
    headers.write_text("".join(f"{name}: {value}\n" for name, value in server.headers.items()))
    env = {"BENCH_BODIES": str(server.bodies), "BENCH_HEADERS": str(headers), "BENCH_PATH": server.path}
    words = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
    words += ["-s", str(HERE / "wrk.lua"), f"http://127.0.0.1:{PORT}"]
    found = _measured(server, words, core, seconds, env)
    found["cpu_us"] = round(found.pop("cpu_s") / max(found.pop("count"), 1) * 1e6, 1)
    return found


def open_loop(server: Server, workshop: Workshop, rate_per_s: float, seconds: float, core: str) -> dict:
    """Requests come when they come, whatever the server does (see openloop.c)."""
    words = [str(workshop.generator), str(PORT), f"{rate_per_s:.0f}", str(seconds), "64", str(server.requests())]
    found = _measured(server, words, core, seconds, {})
    found.pop("cpu_s")
    return found


def _rest(server: Server) -> None:
    """Wait until the server has nothing left of the load before: a slow one works on long after its clients are gone."""
    end_s = time.monotonic() + REST_S
    while time.monotonic() < end_s:
        before_s = server.cpu_s()
        time.sleep(0.25)
        if server.cpu_s() - before_s < 0.1:  # some are never wholly at rest
            return


def _measured(server: Server, words: list[str], core: str, seconds: float, env: dict[str, str]) -> dict:
    _rest(server)
    before = (server.cpu_s(), machine_s(), sum(os.times()[2:4]), time.perf_counter())
    done = subprocess.run(
        ["taskset", "-c", core, *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    after = (server.cpu_s(), machine_s(), sum(os.times()[2:4]), time.perf_counter())
    cpu_s, all_s, own_s, took_s = (b - a for a, b in zip(before, after, strict=True))
    lines = [line for line in done.stdout.splitlines() if line.startswith(("RESULT", "{"))]
    if not lines:
        raise RuntimeError(f"{Path(words[0]).name}: {done.stdout[-300:]} {done.stderr[-300:]}")
    found = json.loads(lines[0].removeprefix("RESULT"))
    p50, p99 = found.pop("p50_us"), found.pop("p99_us")
    # What others took of both cores: a figure beside much of it says little.
    others = max(0.0, all_s - cpu_s - own_s) / took_s
    return {
        **found,
        "p50_ms": round(p50 / 1e3, 3),
        "p99_ms": round(p99 / 1e3, 3),
        "cpu_s": cpu_s,
        "others": round(others, 2),
    }
