"""What the stories of tests/e2e are told with: the console script in a home of its own, requests, and what is left behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from steady_load import SteadyLoad

ROOT = Path(__file__).parents[2]
CORTEN = Path(sys.executable).with_name("corten")
DEADLINE_S = 240
RATE_PER_S = 100


@dataclass
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@dataclass
class Corten:
    """The `corten` command with a home of its own."""

    home: Path
    env: dict = field(default_factory=dict)

    def run(self, *words, code=0, cwd=None, env=None, timeout_s=DEADLINE_S):
        done = subprocess.run(
            [str(CORTEN), *(str(word) for word in words)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, **self.env, **(env or {}), "CORTEN_HOME": str(self.home), "NO_COLOR": "1"},
            timeout=timeout_s,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"corten {words} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Done(done.returncode, done.stdout, done.stderr)

    def up(self, source, *words, **options):
        return self.run("up", source, *words, "--json", **options).json

    def deployment(self, name):
        return next(one for one in self.run("status", "--json").json["deployments"] if one["name"] == name)

    def daemon_pid(self):
        return self.run("status", "--json").json["daemon"]["pid"]


class Load(SteadyLoad):
    """Requests for what is at a URL, from half a second before the block until a second after, and for `least_s` at least."""

    def __init__(self, url, body, least_s=0, *, rate_per_s=RATE_PER_S):
        port, _, path = url.removeprefix("http://127.0.0.1:").partition("/")
        super().__init__(port, f"/{path}predict", json.dumps(body), rate_per_s=rate_per_s)
        self._least_s = least_s

    def __enter__(self):
        super().__enter__()
        self._until_s = time.monotonic() + self._least_s
        time.sleep(0.5)
        return self

    def __exit__(self, *what):
        time.sleep(max(1.0, self._until_s - time.monotonic()))
        super().__exit__(*what)


def ask(url, body, *, path="predict", timeout_s=30):
    """POST a JSON body (or bytes as they are); gives (status, document)."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:  # left open, its socket would be collected in some later test, and be that one's failure
            return refused.code, json.load(refused)


def predict_at(address, body, *, timeout_s=60):
    """The whole answer of a replica at its unix socket."""
    data = json.dumps(body).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(address))
        connection.sendall(head.encode() + data)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    return answer


def ask_whole(method, url, body=None, headers=None):
    request = urllib.request.Request(url, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, dict(refused.headers), refused.read()


def get(url, path="", timeout_s=10):
    with urllib.request.urlopen(url + path, timeout=timeout_s) as answer:
        return answer.status, answer.read().decode()


def until(condition, what, deadline_s=60):
    """Wait until the condition gives something true, and give that."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {deadline_s} s: {what}")


def processes_of(home: Path):
    """Pids of every process that has the home in its command line or environment, ours excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(home).encode() in text:
            found.append((int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]))
    return found


def make_home():
    # Not below pytest's own folder: that is closed (0700), and replicas run as another user.
    # Nor with tempfile's underscores: podman takes the path of a layout for a repository's name.
    folder = Path("/tmp") / f"corten-e2e-{secrets.token_hex(6)}"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


def diagnosis_in(folder: Path) -> Path:
    """The diagnosis example, trained by its own script, as a project below this folder."""
    source = folder / "diagnosis"
    source.mkdir(mode=0o755)
    for name in ("corten.toml", "train.py"):
        shutil.copyfile(ROOT / "examples" / "diagnosis" / name, source / name)
    subprocess.run([sys.executable, source / "train.py"], check=True, capture_output=True, timeout=120)
    (source / "train.py").unlink()
    return source


def end(corten):
    """Stop everything, then show that nothing is left."""
    corten.run("stop", "--all", code=None)
    try:
        until(lambda: not processes_of(corten.home), "no process left", deadline_s=60)
    finally:
        for pid, _ in processes_of(corten.home):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(corten.home, ignore_errors=True)
