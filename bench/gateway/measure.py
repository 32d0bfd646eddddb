"""What the gateway costs: start, change, memory, CPU per request beside a bare Envoy route in the same run.

Needs wrk. Prints JSON. `python bench/gateway/measure.py [--seconds 3] [--rounds 3]`
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from corten.control.signing import new_key, sign
from corten.core.access import Access, Auth, Trust
from corten.core.front import Front
from corten.core.home import Home
from corten.core.route import DeploymentRoute, Endpoint, RevisionRoute, RouteTable
from corten.gateway import resources
from corten.gateway.envoy import Envoy
from corten.gateway.process import find_binary
from corten.http import run
from corten.testing.load import Load

sys.path.insert(0, str(Path(__file__).parents[2] / "tests/support"))
from certificates import write_certificate

UPSTREAM = Path(__file__).parents[2] / "tests/integration/gateway_upstream.py"
PORT, BARE_PORT = 24610, 24611
_TICKS = os.sysconf("SC_CLK_TCK")


def table(*shares):
    return RouteTable((DeploymentRoute("iris", tuple(shares)),))


def share(name, *addresses, weight=1):
    return RevisionRoute(name, weight, tuple(Endpoint(address) for address in addresses))


def upstream(folder, name):
    address = str(folder / f"{name}.sock")
    process = subprocess.Popen([sys.executable, str(UPSTREAM), f"unix:{address}", name], stdout=subprocess.PIPE)
    process.stdout.readline()
    return process, address


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mb(pid):
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def bare_envoy(folder, address):
    """One listener, one static cluster, the router and an access log: what any Envoy route costs at least."""
    manager = {
        "@type": resources.TYPES + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "http_filters": [
            {"name": "router", "typed_config": {"@type": resources.TYPES + "extensions.filters.http.router.v3.Router"}}
        ],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "one"}}]}
            ]
        },
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": resources.TYPES + "extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(folder / "bare.log"),
                },
            }
        ],
    }
    ends = [{"lb_endpoints": [{"endpoint": {"address": resources.address(address)}}]}]
    config = {
        "static_resources": {
            "listeners": [
                {
                    "address": resources.address(f"127.0.0.1:{BARE_PORT}"),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "one",
                    "type": "STATIC",
                    "load_assignment": {"cluster_name": "one", "endpoints": ends},
                    "circuit_breakers": {"thresholds": [{"max_connections": 4096, "max_requests": 4096}]},
                }
            ],
        }
    }
    file = folder / "bare.json"
    file.write_text(json.dumps(config))
    words = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return subprocess.Popen([str(find_binary()), *words])


def wrk(port, pid, seconds, *, scheme="http", bearer="x"):
    """Microseconds of CPU a request, and requests a second."""
    before_s = cpu_s(pid)
    url = f"{scheme}://127.0.0.1:{port}/iris/predict"
    words = ["wrk", "-t1", "-c16", f"-d{seconds}s", "-H", f"authorization: Bearer {bearer}", url]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout)
    used_s = cpu_s(pid) - before_s
    requests = int(next(line for line in done.stdout.splitlines() if "requests in" in line).split()[0])
    return {"cpu_us": round(used_s / requests * 1e6, 1), "per_s": round(requests / seconds)}


async def guarded(gateway, folder, address, seconds):
    """The same with a token, a rate that is never met, by TLS, and while the gateway is replaced."""
    key, now_s = new_key(), int(time.time())
    token = sign(key.pem, key.kid, {"iss": "corten", "jti": "1", "sub": "b", "aud": ["*"], "exp": now_s + 600})
    trust = Trust((key.jwk,))
    found = {}
    for label, access in (
        ("none", Access()),
        ("token", Access(auth=Auth.TOKEN)),
        ("rate", Access(rate_per_s=1_000_000)),
        ("both", Access(auth=Auth.TOKEN, rate_per_s=1_000_000)),
    ):
        await gateway.apply(RouteTable((DeploymentRoute("iris", (share("r1", address),), access=access),), trust))
        found[label] = await asyncio.to_thread(wrk, PORT, gateway.pid, seconds, bearer=token)
    await gateway.apply(table(share("r1", address)))
    chain, private = write_certificate(folder)
    await gateway.listen(Front(port=PORT, certificate=str(chain), key=str(private)))
    found["tls"] = await asyncio.to_thread(wrk, PORT, gateway.pid, seconds, scheme="https")
    await gateway.listen(Front(port=PORT))
    load = asyncio.create_task(Load(PORT, "/iris/predict", connections=16).run(4.0))
    await asyncio.sleep(1.0)
    found["restart_ms"] = round(await timed(gateway.restart()), 1)
    report = await load
    found["restart"] = {"ok": report.ok, "failed": report.failed, "max_ms": round(report.latency_s(1.0) * 1e3, 1)}
    return found


async def until(condition, *args):
    async with asyncio.timeout(10):
        while not await condition(*args):  # noqa: ASYNC110
            await asyncio.sleep(0.0005)


async def timed(work):
    started_s = time.perf_counter()
    await work
    return (time.perf_counter() - started_s) * 1e3


def spread(values):
    return {"median": round(statistics.median(values), 1), "max": round(max(values), 1), "n": len(values)}


async def changes(gateway, a, b):
    """Milliseconds of apply() for a change of endpoints, weights and revisions, with and without a pause before."""
    found = {}
    for label, pause_s in (("after a pause", 0.15), ("at once", 0.0)):
        endpoints_ms, weights_ms, revision_ms = [], [], []
        for _ in range(10):
            await asyncio.sleep(pause_s)

            async def add():
                await gateway.apply(table(share("r1", a, b)))
                await until(gateway.routable, b)

            endpoints_ms.append(await timed(add()))
            await asyncio.sleep(pause_s)
            weights_ms.append(await timed(gateway.apply(table(share("r1", a)))))
            await asyncio.sleep(pause_s)
            revision_ms.append(await timed(gateway.apply(table(share("r1", a), share("r2", b)))))
            await asyncio.sleep(pause_s)
            await gateway.apply(table(share("r1", a)))
        found[label] = {
            "endpoint added and routable_ms": spread(endpoints_ms),
            "endpoint removed_ms": spread(weights_ms),
            "revision added_ms": spread(revision_ms),
        }
    return found


async def measure(seconds, rounds):
    folder = Path(tempfile.mkdtemp(prefix="corten-bench-", dir="/tmp"))
    folder.chmod(0o755)  # noqa: ASYNC240
    (p, a), (q, b) = upstream(folder, "a"), upstream(folder, "b")
    bare = bare_envoy(folder, a)
    gateway = Envoy(Home(folder / "home"), Front(port=PORT))
    result = {}
    try:
        result["start_ms"] = round(await timed(gateway.start(table(share("r1", a)))), 1)
        result["rss_idle_mb"] = rss_mb(gateway.pid)
        result["changes"] = await changes(gateway, a, b)
        pairs = []
        for _ in range(rounds):
            ours = await asyncio.to_thread(wrk, PORT, gateway.pid, seconds)
            theirs = await asyncio.to_thread(wrk, BARE_PORT, bare.pid, seconds)
            pairs.append((ours, theirs))
        result["corten"] = min((ours for ours, _ in pairs), key=lambda found: found["cpu_us"])
        result["bare"] = min((theirs for _, theirs in pairs), key=lambda found: found["cpu_us"])
        result["cpu ratio"] = round(result["corten"]["cpu_us"] / result["bare"]["cpu_us"], 2)
        result["guarded"] = await guarded(gateway, folder, a, seconds)
        result["rss_after_load_mb"] = rss_mb(gateway.pid)
        many = RouteTable(tuple(DeploymentRoute(f"d{n}", (share("r1", a), share("r2", b))) for n in range(20)))
        result["40 revisions at once_ms"] = round(await timed(gateway.apply(many)), 1)
        result["rss_40_revisions_mb"] = rss_mb(gateway.pid)
        result["stop_ms"] = round(await timed(gateway.stop()), 1)
    finally:
        await gateway.stop()
        for process in (p, q, bare):
            process.kill()
            process.wait()
        shutil.rmtree(folder)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    print(json.dumps(run(measure(chosen.seconds, chosen.rounds)), indent=1))


if __name__ == "__main__":
    main()
