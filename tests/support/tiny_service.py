"""A daemon with the embedded engine, Envoy and a small real image: everything but the model server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ports import free_port
from steady_load import SteadyLoad

from corten.core.deployment import Settings
from corten.core.home import Home
from corten.ops.deploy import deploy
from corten.ops.predict import predict
from corten.ops.status import status
from corten.ops.stop import stop
from corten.store.layout import Layout
from corten.testing.tiny_image import TinyImage

SERVER = """
import http.server, json, os, signal, socketserver, sys, threading, time

env = os.environ
time.sleep(float(env.get("LOAD_S", "0.1")))
if env.get("BROKEN"):
    print("no weights here", file=sys.stderr)
    sys.exit(3)
if env.get("DIES_AFTER_S"):
    threading.Timer(float(env["DIES_AFTER_S"]), os._exit, (4,)).start()
draining = False


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def address_string(self):
        return "-"

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "application/json")
        if draining:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        never = env.get("NEVER_READY") and self.path == "/readyz"
        self.answer(503 if never or (draining and self.path == "/readyz") else 200, b"{}")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        time.sleep(float(body.get("work_s", 0)))
        if body.get("deadly"):
            os._exit(9)
        self.answer(200, json.dumps({"outputs": env.get("ANSWER", "one")}).encode())


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("-", 0)


server = Server(env["CORTEN_LISTEN"].removeprefix("unix:"), Handler)


def drain(*_):
    global draining
    draining = True
    threading.Timer(0.3, server.shutdown).start()


signal.signal(signal.SIGTERM, drain)
print("serving", env["CORTEN_REPLICA"], flush=True)
server.serve_forever()
"""


class Place:
    """A home with an image in its store and a port of its own."""

    def __init__(self, home, image, port):
        self.home, self.image, self.port = home, image, port

    def deploy(self, name="tiny", replicas=1, timeouts=None, **env):
        settings = Settings(replicas=replicas, env={k: str(v) for k, v in env.items()}, **(timeouts or {}))
        return deploy(self.image, name, settings, home=self.home, port=self.port)

    def ask(self, name="tiny", **body):
        return predict(name, body, home=self.home)["outputs"]

    def one(self, name="tiny"):
        return status(name, home=self.home).deployments[0]

    def pids(self):
        return sorted(each.pid for each in self.awake())

    def awake(self, name="tiny"):
        """The replicas but for those that are kept frozen."""
        return [each for each in self.one(name).replicas if each.state != "frozen"]

    def daemon_pid(self):
        return status(home=self.home).as_dict()["daemon"]["pid"]

    def processes(self):
        """Every process that has the home in its command line or environment, ours excepted."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                    if str(self.home.root).encode() in text:
                        found.append(int(entry.name))
        return found


def until(holds, what, deadline_s=30):
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if value := holds():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline_s} s: {what}")


@contextlib.contextmanager
def a_seed() -> Iterator[tuple[Path, object]]:
    """A store with the image, to be made once."""
    folder = Path(tempfile.mkdtemp(prefix="corten-seed-", dir="/tmp"))
    layout = Layout(folder / "store")
    image = TinyImage(layout).build(["/usr/bin/python3", "/app/server.py"], code={"server.py": SERVER})
    yield folder, image
    shutil.rmtree(folder)


@contextlib.contextmanager
def a_place(seed) -> Iterator[Place]:
    """A home with a copy of the seed; all of it is gone afterwards, and no process is left."""
    folder, image = seed
    # Not below pytest's own folder: that is closed (0700), and replicas run as another user.
    root = Path(tempfile.mkdtemp(prefix="corten-it-", dir="/tmp"))
    root.chmod(0o755)
    shutil.copytree(folder / "store", root / "store")
    place = Place(Home(root), image, free_port())
    yield place
    try:
        stop(home=place.home)
        until(lambda: not place.processes(), "no process left", deadline_s=60)
    finally:
        for pid in place.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(root, ignore_errors=True)


class Load(SteadyLoad):
    """Requests for a place's `tiny`."""

    def __init__(self, place, rate=100):
        super().__init__(place.port, "/tiny/predict", rate_per_s=rate)

    def __exit__(self, *what):
        super().__exit__(*what)
        assert self.report["ok"] > 0
