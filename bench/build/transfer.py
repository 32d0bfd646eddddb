"""Push and pull beside the least that has to be done for them: a socket, a file and sha256, against one docker-registry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from builders import BIN, FailedError
from loopback import Registry

MIB = 1 << 20
SPEED_BYTES = 512 * MIB
LARGE_BYTES = 3 << 30
REPEATS = 3
RESUMED = 8, 64 * MIB
_PIECE_BYTES = MIB


def measure(folder: Path) -> dict:
    if not shutil.which("docker-registry"):
        raise FailedError("docker-registry is not installed")
    speed = speeds(folder / "speed")
    large = large_blob(folder / "large")
    resumed = resumption(folder / "resumed")
    figures = {**speed, **large, **resumed}
    bars = [
        {"name": f"{way}: of a bare socket with sha256", "value": speed[f"{way}_ratio"], "least": 0.9}
        for way in ("push", "pull")
    ]
    bars += [
        {"name": f"{way} of a 3 GiB blob: peak RSS, MB", "value": large[f"{way}_3gib_rss_mb"], "most": 150}
        for way in ("push", "pull")
    ]
    bars.append(
        {"name": "sent again after kill -9 at half, share", "value": resumed["resumed_push_share"], "most": 0.75}
    )
    for bar in bars:
        bar["met"] = bar["value"] >= bar["least"] if "least" in bar else bar["value"] <= bar["most"]
    return {"figures": figures, "bars": bars}


class Home:
    """A Corten home with an image of random layers."""

    def __init__(self, root: Path, *sizes: int) -> None:
        self.root = root
        root.mkdir(parents=True)
        if sizes:
            self.layers = make_image(root / "store", sizes)

    def start(self, *words: str) -> subprocess.Popen:
        env = {**os.environ, "CORTEN_HOME": str(self.root)}
        command = [str(BIN / "corten"), *words, "--plain-http", "--json"]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def run(self, *words: str) -> tuple[dict, float]:
        """Its document, and the most memory it had, in MB."""
        process = self.start(*words)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise FailedError(f"corten {' '.join(words)}: {out[-1500:]}")
        return json.loads(out), round(usage.ru_maxrss * 1024 / 1e6, 1)


def make_image(store: Path, sizes: tuple[int, ...]) -> list[Path]:
    from corten.core.image import CONFIG, LAYER, MANIFEST
    from corten.store.documents import descriptor_to
    from corten.store.layout import Layout

    layout = Layout(store)
    block = os.urandom(MIB)
    blobs = []
    for number, size in enumerate(sizes):
        with layout.writer() as out:
            for at in range(size // MIB):
                out.write(b"%16d" % (number << 32 | at) + block[16:])
        blobs.append((out.digest, size))
    diff_ids = [str(digest) for digest, _ in blobs]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {}}
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor_to(layout.put(json.dumps(config).encode(), CONFIG)),
        "layers": [{"mediaType": LAYER, "digest": str(digest), "size": size} for digest, size in blobs],
    }
    layout.tag("random", layout.put(json.dumps(document).encode(), MANIFEST))
    return [layout.path(digest) for digest, _ in blobs]


def speeds(folder: Path) -> dict:
    """In turn, so that whatever else the machine does meets both; of the best of each."""
    home = Home(folder / "home", SPEED_BYTES)
    taken: dict[str, list[float]] = {"raw_push": [], "push": [], "raw_pull": [], "pull": []}
    for number in range(REPEATS):
        with Registry(folder / f"raw{number}") as registry:
            taken["raw_push"].append(timed(lambda registry=registry: raw_push(registry.host, home.layers[0])))
            taken["raw_pull"].append(
                timed(lambda registry=registry: raw_pull(registry.host, home.layers[0].name, folder / "pulled"))
            )
            (folder / "pulled").unlink()
        shutil.rmtree(folder / f"raw{number}")
        with Registry(folder / f"own{number}") as registry:
            os.sync()
            taken["push"].append(home.run("push", "random", f"{registry.host}/random:1")[0]["seconds"])
            other = Home(folder / "other")
            os.sync()
            taken["pull"].append(other.run("pull", f"{registry.host}/random:1")[0]["seconds"])
            shutil.rmtree(other.root)
        shutil.rmtree(folder / f"own{number}")
    rates = {name: round(SPEED_BYTES / 1e6 / min(seconds), 1) for name, seconds in taken.items()}
    shutil.rmtree(folder)
    return {
        **{f"{name}_mb_per_s": rate for name, rate in rates.items()},
        "push_ratio": round(rates["push"] / rates["raw_push"], 2),
        "pull_ratio": round(rates["pull"] / rates["raw_pull"], 2),
    }


def timed(work: Callable[[], None]) -> float:
    os.sync()
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def large_blob(folder: Path) -> dict:
    home = Home(folder / "home", LARGE_BYTES)
    with Registry(folder / "registry") as registry:
        pushed, push_mb = home.run("push", "random", f"{registry.host}/random:1")
        shutil.rmtree(home.root)
        pulled, pull_mb = Home(folder / "other").run("pull", f"{registry.host}/random:1")
    shutil.rmtree(folder)
    return {
        "push_3gib_s": pushed["seconds"], "push_3gib_rss_mb": push_mb,
        "pull_3gib_s": pulled["seconds"], "pull_3gib_rss_mb": pull_mb,
    }  # fmt: skip


def resumption(folder: Path) -> dict:
    """kill -9 once half has arrived; how much of the image the next push sends."""
    count, size = RESUMED
    home = Home(folder / "home", *[size] * count)
    with Registry(folder / "registry") as registry:
        process = home.start("push", "random", f"{registry.host}/random:1")
        until_s = time.monotonic() + 60
        while registry.size_bytes() < count * size / 2 and process.poll() is None and time.monotonic() < until_s:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        kept = registry.size_bytes()
        again, _ = home.run("push", "random", f"{registry.host}/random:1")
    shutil.rmtree(folder)
    return {
        "resumed_push_kept_mb": round(kept / 1e6, 1),
        "resumed_push_sent_mb": round(again["sent_bytes"] / 1e6, 1),
        "resumed_push_share": round(again["sent_bytes"] / again["size_bytes"], 2),
    }


# The least that has to be done


def raw_push(host: str, path: Path) -> None:
    with connected(host) as connection:
        location = asked(connection, host, "POST", "/v2/raw/blobs/uploads/")["location"]
        size = path.stat().st_size
        state = hashlib.sha256()
        head = f"PATCH {local(location)} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n"
        connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode())
        buffer = memoryview(bytearray(_PIECE_BYTES))
        with path.open("rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                state.update(buffer[:count])
                connection.sendall(buffer[:count])
        location = answered(connection)["location"]
        asked(connection, host, "PUT", f"{local(location)}&digest=sha256:{state.hexdigest()}")


def raw_pull(host: str, digest: str, path: Path) -> None:
    with connected(host) as connection, path.open("xb", buffering=0) as file:
        connection.sendall(f"GET /v2/raw/blobs/sha256:{digest} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        headers, data = head_of(connection)
        left = int(headers["content-length"]) - len(data)
        state = hashlib.sha256(data)
        file.write(data)
        buffer = memoryview(bytearray(_PIECE_BYTES))
        while left and (count := connection.recv_into(buffer)):
            state.update(buffer[:count])
            file.write(buffer[:count])
            left -= count
        os.fsync(file.fileno())
        assert state.hexdigest() == digest


def connected(host: str) -> socket.socket:
    name, _, port = host.partition(":")
    return socket.create_connection((name, int(port)), timeout=60)


def local(location: str) -> str:
    return "/" + location.split("/", 3)[3] if location.startswith("http") else location


def asked(connection: socket.socket, host: str, method: str, path: str) -> dict[str, str]:
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
    return answered(connection)


def answered(connection: socket.socket) -> dict[str, str]:
    return head_of(connection)[0]


def head_of(connection: socket.socket) -> tuple[dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(_PIECE_BYTES)
        if not piece:
            raise FailedError("the registry closed the connection")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    if status.split()[1] not in ("200", "201", "202"):
        raise FailedError(f"the registry answered {status}")
    return {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}, rest
