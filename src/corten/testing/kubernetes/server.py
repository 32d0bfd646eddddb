"""A small Kubernetes API server on loopback."""

from __future__ import annotations

import base64
import copy
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from corten.testing.kubernetes import disruption, keda, knative, owners, simulation
from corten.testing.kubernetes.authority import Authority
from corten.testing.kubernetes.handler import Handler
from corten.testing.kubernetes.objects import Object, Objects
from corten.testing.kubernetes.rest import Call, Rest
from corten.testing.kubernetes.simulation import Fault, Pods

TOKEN = "good"  # noqa: S105 -- of this server


@dataclass
class Rules:
    """Who is let in, and how often what goes wrong. Counts go down."""

    tokens: dict[str, str] = field(default_factory=lambda: {TOKEN: "dev"})  # token -> user
    busy: int = 0  # so many requests get a 429
    broken: int = 0  # so many get no answer
    drop_watches: int = 0  # so many watches end at once
    compacted: bool = False  # watches from the past get a 410
    down: bool = False  # nobody gets an answer, and no controller works


class FakeApiServer:
    """A cluster of two nodes that is all made up, but for the API: that is as strict as the real one where it matters.

    Use as a context manager. It speaks TLS, with a certificate of its own `authority`. `rest` says what is refused,
    `rules` who is let in and what breaks, `fault` what becomes of pods, `seen` what was asked. `groups` were added to
    it: `keda.sh`, or one version of them, `keda.sh/v1alpha1`.
    """

    def __init__(self, *, version: str = "1.36", groups: tuple[str, ...] = (), tick_s: float = 0.005) -> None:
        self.version = version
        self.groups = groups
        self.rules = Rules()
        self.objects = Objects()
        self.pods = Pods()
        self.seen: list[Call] = []
        self.authority = Authority()
        self.tls = self.authority.server()
        self.rest = Rest(self.objects, self.pods, version, groups)
        self._keda = keda.Keda()
        self._tick_s = tick_s
        self._over = threading.Event()
        self._handler = type("_Bound", (Handler,), {"site": self})
        self._server = _Server(("127.0.0.1", 0), self._handler)
        self._listening = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._living = threading.Thread(target=self._live)
        for name in ("default", "kube-system"):
            self.namespace(name)
        for name in simulation.NODES:
            node = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"labels": {"kubernetes.io/hostname": name}},
                "spec": {},
            }
            with self.objects.changed:
                self.objects.put(("nodes", "", name), node)

    def __enter__(self) -> Self:
        self._listening.start()
        self._living.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with self.objects.changed:
            self.objects.changed.notify_all()
        self._stop_listening()
        self._living.join()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    @property
    def over(self) -> bool:
        """Whether it is being closed."""
        return self._over.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        self._over.wait(seconds)

    def note(self, call: Call) -> None:
        """Remember what was asked."""
        self.seen.append(call)

    def kubeconfig(self, path: Path, *, namespace: str = "default", **user: Any) -> Path:
        """Write a kubeconfig that leads here, for who has the token, or `user` says (`token=`, `exec=`)."""
        trusted = {"server": self.url, "certificate-authority-data": base64.b64encode(self.authority.pem).decode()}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": trusted}],
            "users": [{"name": "dev", "user": user or {"token": TOKEN}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "dev", "namespace": namespace}}],
        }
        path.write_text(json.dumps(document))
        return path

    def service_account(self, folder: Path, *, namespace: str = "default", token: str = TOKEN) -> Path:
        """Write the files that a pod finds of its account at /var/run/secrets/kubernetes.io/serviceaccount."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ca.crt").write_bytes(self.authority.pem)
        (folder / "namespace").write_text(namespace)
        (folder / "token").write_text(token)
        return folder

    def namespace(self, name: str) -> None:
        """Make one."""
        with self.objects.changed:
            self.objects.put(("namespaces", "", name), {"apiVersion": "v1", "kind": "Namespace", "metadata": {}})

    def fault(self, image: str, fault: Fault) -> None:
        """From now on pods of an image (any part of its reference) do that."""
        with self.objects.changed:
            self.pods.faults[image] = fault

    def find(self, plural: str, name: str, namespace: str = "default") -> Object | None:
        """A copy of an object as it is now."""
        with self.objects.changed:
            return copy.deepcopy(self.objects.items.get((plural, namespace, name)))

    def names(self, plural: str, namespace: str = "default") -> list[str]:
        """The names of all objects of a kind."""
        with self.objects.changed:
            return sorted(key[2] for key in self.objects.items if key[:2] == (plural, namespace))

    def apply_as(
        self, manager: str, plural: str, manifest: Object, namespace: str = "default", *, force: bool = False
    ) -> None:
        """Somebody else applies something."""
        with self.objects.changed:
            key = (plural, namespace, manifest["metadata"]["name"])
            self.objects.apply(key, manifest, manager, force=force, check=lambda *_: None)

    def scale_as(self, manager: str, name: str, replicas: int, namespace: str = "default") -> None:
        """Somebody else (a HorizontalPodAutoscaler, `kubectl scale`) sets the number of replicas."""
        with self.objects.changed:
            key = ("deployments", namespace, name)
            made = copy.deepcopy(self.objects.items[key])
            made["spec"]["replicas"] = replicas
            self.objects.update(key, made, manager, "scale")

    def traffic(self, requests: int, name: str, namespace: str = "default") -> None:
        """Clients ask `/predict` so often, through a route's shares where there is one, else through the service."""
        with self.objects.changed:
            if (key := ("routes", namespace, name)) in self.objects.items:
                knative.send(self.objects, self.pods, self.rest.knative, key, requests)
                return
            route = self.objects.items.get(("httproutes", namespace, name))
            alone: list[Object] = [{"name": name, "weight": 1}]
            backends: list[Object] = route["spec"]["rules"][-1]["backendRefs"] if route else alone
            total = sum(backend["weight"] for backend in backends)
            sent = 0
            for place, backend in enumerate(backends):
                last = place == len(backends) - 1
                share = requests - sent if last else requests * backend["weight"] // total
                sent += share
                found = simulation.ready(
                    self.objects, self.pods, self.objects.items["services", namespace, backend["name"]]
                )
                for number in range(share if backend["weight"] else 0):
                    simulation.answer(self.pods, found[number % len(found)], "POST", "/predict")

    @contextmanager
    def down(self) -> Iterator[None]:
        """It is away meanwhile, as for an upgrade: connections end, new ones are refused. Its address stays."""
        place = self._server.server_address
        self.rules.down = True
        self._stop_listening()
        try:
            yield
        finally:
            self.rules.down = False
            self._server = _Server((str(place[0]), int(place[1])), self._handler)
            self._listening = threading.Thread(target=self._server.serve_forever, args=(0.01,))
            self._listening.start()

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing goes on meanwhile."""
        with self.objects.changed:
            yield

    def _stop_listening(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._listening.join()

    def _live(self) -> None:
        while not self._over.wait(self._tick_s):
            if self.rules.down:
                continue
            with self.objects.changed:
                owners.collect(self.objects)
                knative.tick(self.objects, self.pods, self.rest.knative)
                keda.tick(self.objects, self.pods, self._keda)
                simulation.tick(self.objects, self.pods)
                disruption.tick(self.objects)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A fleet opens many connections at the same moment.
    request_queue_size = socket.SOMAXCONN

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nobody's news."""
