"""How a kubeconfig leads to a cluster: through a proxy, by another name than the certificate's, trusted by a file."""

import base64
import json
import socket
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from clusters import fails

from corten.cluster.kinds import CONFIG_MAP, POD
from corten.cluster.lightkube_api import connect

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def leads(cluster, tmp_path, monkeypatch):
    """A client by a kubeconfig that says that of its cluster."""

    def client(user=None, **said):
        path = cluster.kubeconfig(tmp_path / "kubeconfig", **(user or {}))
        document = json.loads(path.read_text())
        way = document["clusters"][0]["cluster"]
        way |= said
        if "certificate-authority" in said:
            del way["certificate-authority-data"]
        path.write_text(json.dumps(document))
        monkeypatch.setenv("KUBECONFIG", str(path))
        return connect(sleep=lambda _: None)

    return client


class Tunnels(BaseHTTPRequestHandler):
    """A proxy that takes CONNECT and nothing else."""

    def do_CONNECT(self):
        self.server.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        if self.server.closed:
            self.send_error(403, "not there")
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=carry, args=(there, self.connection))
            back.start()
            carry(self.connection, there)
            back.join()

    def log_message(self, *_):
        pass


def carry(source, sink):
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tunnels)
    server.daemon_threads = True
    server.asked, server.closed = [], False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.place = f"127.0.0.1:{server.server_address[1]}"
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_every_request_goes_through_the_proxy_that_is_named_and_watches_too(cluster, leads, proxy):
    with leads(**{"proxy-url": f"http://ann:secret@{proxy.place}"}) as api:
        assert api.list(POD, "default").items == ()
        since = api.list(CONFIG_MAP, "default").version
        assert list(api.watch(CONFIG_MAP, "default", "", since, 1.0)) == []
    there = cluster.url.removeprefix("https://")
    assert set(proxy.asked) == {(there, "Basic " + base64.b64encode(b"ann:secret").decode())}
    assert len(cluster.seen) == 3


def test_a_proxy_that_lets_nobody_through_is_named_without_its_password(cluster, leads, proxy):
    proxy.closed = True
    with leads(**{"proxy-url": f"http://ann:secret@{proxy.place}"}) as api:
        error = fails("kubernetes.unreachable", lambda: api.list(POD, "default"))
    assert f"by the proxy http://{proxy.place}" in error.where
    assert "secret" not in str(error.as_dict())
    assert cluster.seen == []


def test_a_proxy_that_is_not_spoken_to_is_refused_before_anything_is_asked(cluster, leads):
    error = fails("kubernetes.no_context", lambda: leads(**{"proxy-url": "socks5://ann:secret@127.0.0.1:1"}))
    assert "socks5://127.0.0.1:1" in error.why
    assert cluster.seen == []


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxied"])
def test_the_certificate_is_checked_for_the_name_that_is_given(cluster, leads, proxy, proxied):
    # The server's certificate is for 127.0.0.1 and kubernetes.default.svc.
    way = {"server": cluster.url.replace("127.0.0.1", "localhost")}
    way |= {"proxy-url": f"http://{proxy.place}"} if proxied else {}
    with leads(**way) as api:
        fails("kubernetes.untrusted", lambda: api.list(POD, "default"))
    with leads(**way, **{"tls-server-name": "kubernetes.default.svc"}) as api:
        assert api.list(POD, "default").items == ()
        since = api.list(POD, "default").version
        assert list(api.watch(POD, "default", "", since, 1.0)) == []


def test_a_name_that_is_not_the_servers_is_trusted_no_more_than_its_address(cluster, leads):
    with leads(**{"tls-server-name": "other.example.com"}) as api:
        fails("kubernetes.untrusted", lambda: api.list(POD, "default"))
    assert cluster.seen == []


def test_a_program_is_told_the_way_and_the_file_beside_the_kubeconfig_that_says_whom_to_trust(
    cluster, leads, proxy, tmp_path, monkeypatch
):
    (tmp_path / "ca.crt").write_bytes(cluster.authority.pem)
    status = '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "good"}}'
    script = f"import os; open('told', 'w').write(os.environ['KUBERNETES_EXEC_INFO']); print({status!r})"
    program = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", script],
        "interactiveMode": "Never",
    }
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    way = {"proxy-url": f"http://{proxy.place}", "tls-server-name": "kubernetes.default.svc"}
    with leads({"exec": program}, **way, **{"certificate-authority": "ca.crt"}) as api:
        assert api.list(POD, "default").items == ()
    told = json.loads((tmp_path / "elsewhere" / "told").read_text())["spec"]["cluster"]
    assert base64.b64decode(told.pop("certificate-authority-data")) == cluster.authority.pem
    assert told == {"server": cluster.url, **way}
