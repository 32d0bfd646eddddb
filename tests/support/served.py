"""A real server in a process of its own, with a toy adapter it finds as it would find anybody's: by entry point."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from ports import free_port

ADAPTER = """
import json, os, sys, time
from corten.adapters.base import InputError
from corten.core.schema import DType, Parameter, Schema, Style, Tensor


class Rows:
    def __init__(self, function, dtype=DType.FLOAT32, shape=(None, 3), columns=()):
        self.schema = Schema(Style.ROWS, (Tensor("x", dtype, shape, columns),), (Tensor("y", dtype, shape),))
        self.function = function

    def run(self, inputs):
        return {"y": self.function(inputs["x"])}


class Calls:
    def __init__(self, function, *names):
        self.schema = Schema(Style.CALL, parameters=tuple(Parameter(n, {}, False) for n in names))
        self.function = function

    def call(self, calls):
        return [self.one(arguments) for arguments in calls]

    def one(self, arguments):
        try:
            return self.function(**arguments)
        except Exception as error:
            return error


def sleepy(seconds=0.0, text=""):
    time.sleep(seconds)
    return text


def secretive(seconds=0.0):
    with open(os.environ["KEY_FILE"]) as file:
        return len(file.read())


def touchy(x=None, text=""):
    if x == "input":
        raise InputError("x is not that", path="x")
    if x == "raise":
        raise LookupError("secret path\\nsecond line " + text)
    if x == "exit":
        sys.exit(9)
    if x == "object":
        return object()
    return x


def identity(seconds=0.0):
    import random
    time.sleep(seconds)
    return [os.getpid(), random.random()]


KEPT = []
LOADED_S = time.monotonic()


def collector():
    import gc
    return [gc.get_threshold()[0], time.monotonic() - LOADED_S]


def where():
    import threading
    return threading.current_thread().name


class Toy:
    name = "toy"

    def load(self, spec, models, app):
        what, _, argument = spec.entry.partition(":")
        if what == "double":
            return Rows(lambda x: x * 2)
        if what == "columns":
            return Rows(lambda x: x, shape=(None, len(argument.split(","))), columns=tuple(argument.split(",")))
        if what == "unlucky":
            def unlucky(x):
                if (x == 13).any():
                    raise RuntimeError("thirteen")
                return x
            return Rows(unlucky)
        if what == "load-slowly":
            time.sleep(float(argument))
            return Rows(lambda x: x)
        if what == "load-never":
            raise OSError("no weights in " + str(models))
        if what == "load-exit":
            sys.exit(5)
        if what == "mlp":
            import numpy as np
            r = np.random.default_rng(0)
            w = [r.standard_normal(s).astype(np.float32) * 0.1 for s in ((64, 256), (256, 256), (256, 10))]
            return Rows(lambda x: np.maximum(np.maximum(x @ w[0], 0) @ w[1], 0) @ w[2], shape=(None, 64))
        if what == "any":
            return Rows(lambda x: x, DType(argument), (None, 2))
        if what == "sleepy":
            return Calls(sleepy, "seconds", "text")
        if what == "secretive":
            return Calls(secretive, "seconds")
        if what == "touchy":
            return Calls(touchy, "x", "text")
        if what == "threads":  # as an OpenMP pool has them
            import threading
            threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()
            return Calls(identity, "seconds")
        if what == "identity":
            return Calls(identity, "seconds")
        if what == "large":
            import numpy as np
            held = np.ones(int(argument) << 17)
            return Rows(lambda x: x * held[: x.shape[1]].astype("float32"))
        if what == "collector":  # tells how often the collector looks; keeps so many lists
            KEPT.extend([] for _ in range(int(argument)))
            return Calls(collector)
        if what == "where":
            return Calls(where)
        if what == "print":
            print("from the model")
            return Rows(lambda x: x)
        raise LookupError(what)
"""


class Served:
    """A server process. `spec` are keys of `corten.json`; `folder` is removed at the end; `modules` come before all others."""

    def __init__(self, spec, *, env=None, unix=False, files=None, argv=(), modules=None):
        self._folder = tempfile.TemporaryDirectory(prefix="served-")
        root = Path(self._folder.name)
        root.chmod(0o755)
        plugin = root / "plugins" / "toy-1.0.dist-info"
        plugin.mkdir(parents=True)
        (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        (plugin / "entry_points.txt").write_text("[corten.adapters]\ntoy = toy_adapter:Toy\n")
        (root / "plugins" / "toy_adapter.py").write_text(ADAPTER)
        self.app = root / "app"
        self.app.mkdir()
        (root / "models").mkdir()
        if spec is not None:
            (self.app / "corten.json").write_text(json.dumps({"name": "toy", "adapter": "toy", **spec}))
        for name, text in (files or {}).items():
            (self.app / name).write_text(text)
        self.socket = root / "replica.sock"
        self.port = 0 if unix else free_port()
        self.log_path = root / "log"
        self.out_path = root / "out"
        listen = f"unix:{self.socket}" if unix else f"127.0.0.1:{self.port}"
        self.env = {
            **{key: text for key, text in os.environ.items() if not key.startswith("CORTEN_")},
            "PYTHONPATH": f"{modules or root}:{root / 'plugins'}:{Path(__file__).parents[2] / 'src'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "CORTEN_LISTEN": listen,
            "CORTEN_APP_DIR": str(self.app),
            "CORTEN_MODELS_DIR": str(root / "models"),
            **(env or {}),
        }
        self.started_s = time.monotonic()
        with self.log_path.open("wb") as log, self.out_path.open("wb") as out:
            self.process = subprocess.Popen(
                [*argv, sys.executable, "-m", "corten.serve"], cwd=self.app, env=self.env, stdout=out, stderr=log
            )

    def __enter__(self):
        return self

    def __exit__(self, *what):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._folder.cleanup()

    def connect(self, timeout_s=10):
        connection = http.client.HTTPConnection("127.0.0.1", self.port or 1, timeout=timeout_s)
        if not self.port:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout_s)
            try:
                sock.connect(str(self.socket))
            except OSError:
                sock.close()
                raise
            connection.sock = sock
        return connection

    def ask(self, method, path, body=None, headers=None, timeout_s=30):
        """One request over a connection of its own: status, headers by lower-case name, body."""
        connection = self.connect(timeout_s)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def predict(self, value, **options):
        """Status and decoded answer of a prediction."""
        status, _, body = self.ask("POST", "/predict", json.dumps(value), **options)
        return status, json.loads(body)

    def until(self, path="/readyz", status=200, timeout_s=20):
        """Wait until a probe says so."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", path)[0] == status:
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"{path} never said {status}: {self.log_path.read_text()}")

    def cpu_s(self):
        """The processor time it has had so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, of proc(5)

    def peak_mb(self):
        """The most memory it has had in RAM so far."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def end(self, timeout_s=20):
        """Its exit code, when it ends by itself."""
        return self.process.wait(timeout_s)

    @property
    def log(self):
        """Its log lines, each of which must be an object."""
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines()]
        assert all(isinstance(line, dict) for line in lines)
        return lines

    def logged(self, message, count=1, timeout_s=5):
        """The lines with that message, once there are so many: an answer may be read before its line is written."""
        end_s = time.monotonic() + timeout_s
        while True:
            lines = [line for line in self.log if line["message"] == message]
            if len(lines) >= count or time.monotonic() > end_s:
                return lines
            time.sleep(0.01)


ROWS = {"inputs": [[1, 2, 3]]}


def double(**options):
    """A server that doubles rows of three numbers, as ROWS are."""
    return Served({"entry": "double"}, **options)


class Client(threading.Thread):
    """Asks over one connection until told to close, or until `stop`; remembers what went wrong."""

    def __init__(self, server, body, check):
        super().__init__(daemon=True)
        self.server, self.body, self.check = server, body, check
        self.answered = 0
        self.told_to_close = False
        self.failure = None
        self.stop = threading.Event()

    def run(self):
        connection = self.server.connect()
        try:
            while not self.told_to_close and not self.stop.is_set():
                connection.request("POST", "/predict", self.body)
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == 200, body
                assert self.check(json.loads(body))
                self.answered += 1
                self.told_to_close = answer.getheader("Connection") == "close"
        except (OSError, http.client.HTTPException, AssertionError) as error:
            self.failure = error
        finally:
            connection.close()
