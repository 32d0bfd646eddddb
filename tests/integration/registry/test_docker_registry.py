"""Push, pull and copy with Debian's docker-registry: plain, with TLS, with a password, killed on the way."""

import base64
import json
import os
import socket
import socketserver
import stat
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from registries import DockerRegistry, layout_in, put_image, put_index, put_referrer

from corten.errors import NotFoundError, PolicyError, RemoteError
from corten.ops.copy import copy
from corten.ops.pull import pull
from corten.ops.push import push
from corten.registry.documents import referrers_tag

pytestmark = pytest.mark.registry

MB = 1 << 20
# bcrypt of `secret`, the only form docker-registry takes.
HTPASSWD = "ada:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


def test_an_index_goes_there_and_back_with_its_referrers_under_the_fallback_tag(docker_registry, here, there, env):
    one = layout_in(here.root)
    layer = os.urandom(5 * MB)
    index = put_index(one, "iris", put_image(one, layer, b"a"), put_image(one, layer, b"b", architecture="arm64"))
    sbom = put_referrer(one, index)
    name = f"{docker_registry.name}/team/iris"
    assert push("iris", f"{name}:1", home=here, env=env).moved.digest == index.digest
    assert push("iris", f"{name}:1", home=here, env=env).moved.sent_bytes == 0
    listed = pull(f"{name}:{referrers_tag(index.digest)}", home=there, env=env)
    assert layout_in(there.root).platforms(listed.moved.digest)[0].digest == sbom.digest
    pulled = pull(f"{name}@{index.digest}", name="iris", home=there, env=env)
    assert (pulled.moved.digest, pulled.moved.referrers) == (index.digest, 1)
    assert layout_in(there.root).referrers(index.digest)[0].digest == sbom.digest


@pytest.mark.skopeo
def test_skopeo_finds_what_was_pushed(docker_registry, here, env):
    image = put_image(layout_in(here.root), os.urandom(MB), name="iris")
    push("iris", f"{docker_registry.name}/iris:1", home=here, env=env)
    words = ["skopeo", "inspect", "--tls-verify=false", f"docker://{docker_registry.name}/iris:1"]
    shown = subprocess.run(words, capture_output=True, check=True, timeout=60)
    assert json.loads(shown.stdout)["Digest"] == str(image.digest)


def test_a_copy_between_two_registries_keeps_the_digest_and_carries_referrers(docker_registry, here, env, tmp_path):
    layout = layout_in(here.root)
    image = put_image(layout, os.urandom(3 * MB), name="iris")
    put_referrer(layout, image)
    push("iris", f"{docker_registry.name}/iris:1", home=here, env=env)
    (tmp_path / "second").mkdir()
    second = DockerRegistry(tmp_path / "second").start()
    try:
        copied = copy(f"{docker_registry.name}/iris:1", f"{second.name}/prod/iris:2", env=env)
        assert (copied.moved.digest, copied.moved.referrers) == (image.digest, 1)
        again = copy(f"{second.name}/prod/iris:2", f"{second.name}/other/iris:2", env=env)
        assert again.moved.sent_bytes == 0
    finally:
        second.kill()


def test_docker_registry_takes_a_blob_in_pieces_where_a_whole_one_does_not_get_through(
    docker_registry, here, there, env, monkeypatch
):
    # As if it had broken off twice; the fallback is the same from there on.
    monkeypatch.setattr("corten.registry.remote._BREAKS", 0)
    image = put_image(layout_in(here.root), os.urandom(5 * MB + 1), name="iris")
    assert push("iris", f"{docker_registry.name}/iris:1", home=here, env=env).moved.digest == image.digest
    assert pull(f"{docker_registry.name}/iris:1", home=there, env=env).moved.digest == image.digest


def test_a_push_goes_on_when_the_registry_is_killed_and_comes_back(docker_registry, here, there, env):
    layout = layout_in(here.root)
    layers = [os.urandom(20 * MB) for _ in range(8)]
    image = put_image(layout, *layers, name="iris")
    killed = threading.Event()

    def kill_once(event):
        if event.phase.value == "progress" and event.data["bytes"] > 60 * MB and not killed.is_set():
            killed.set()
            docker_registry.kill()
            timer.start()

    timer = threading.Timer(1.0, docker_registry.start)
    try:
        done = push("iris", f"{docker_registry.name}/iris:1", home=here, env=env, listen=kill_once)
    finally:
        timer.join()
    assert killed.is_set()
    # Blobs that were finished are not sent again; at most the four that were on their way are.
    assert done.moved.sent_bytes <= done.moved.size_bytes + 4 * 20 * MB
    assert pull(f"{docker_registry.name}/iris:1", home=there, env=env).moved.digest == image.digest
    layout_in(there.root).verify(image.digest)


def test_a_registry_that_stays_away_leaves_no_tag_and_the_next_push_only_sends_the_rest(docker_registry, here, env):
    layers = [os.urandom(20 * MB) for _ in range(8)]
    put_image(layout_in(here.root), *layers, name="iris")

    def kill(event):
        if event.phase.value == "progress" and event.data["bytes"] > 100 * MB:
            docker_registry.kill()

    with pytest.raises(RemoteError) as failed:
        push("iris", f"{docker_registry.name}/iris:1", home=here, env=env, listen=kill)
    assert failed.value.code == "registry.unreachable"
    docker_registry.start()
    with pytest.raises(NotFoundError):
        pull(f"{docker_registry.name}/iris:1", home=here, env=env)
    done = push("iris", f"{docker_registry.name}/iris:1", home=here, env=env)
    assert 0 < done.moved.sent_bytes < done.moved.size_bytes
    began_s = time.monotonic()
    assert push("iris", f"{docker_registry.name}/iris:1", home=here, env=env).moved.sent_bytes == 0
    assert time.monotonic() - began_s < 5


@pytest.fixture
def locked_registry(tmp_path, certificates):
    """With TLS by our own authority, and a password."""
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "htpasswd").write_text(HTPASSWD)
    registry = DockerRegistry(folder, tls=certificates[1:], htpasswd=folder / "htpasswd").start()
    yield registry
    registry.kill()


def test_tls_of_an_own_authority_and_a_password_from_the_docker_file(locked_registry, certificates, here, there, env):
    image = put_image(layout_in(here.root), os.urandom(MB), name="iris")
    name = f"{locked_registry.name}/iris:1"
    with pytest.raises(PolicyError) as untrusted:
        push("iris", name, home=here, env=env)
    assert untrusted.value.code == "registry.untrusted"
    with pytest.raises(RemoteError) as unknown:
        push("iris", name, home=here, env=env, ca=certificates[0])
    assert unknown.value.code == "registry.denied"
    log_in(env, locked_registry.name, "ada:wrong")
    with pytest.raises(RemoteError) as wrong:
        push("iris", name, home=here, env=env, ca=certificates[0])
    assert wrong.value.code == "registry.denied"
    log_in(env, locked_registry.name, "ada:secret")
    assert push("iris", name, home=here, env=env, ca=certificates[0]).moved.digest == image.digest
    assert pull(name, home=there, env=env, ca=certificates[0]).moved.digest == image.digest


def test_a_credential_helper_is_asked_with_the_host_on_its_input(locked_registry, certificates, here, env, tmp_path):
    put_image(layout_in(here.root), b"layer", name="iris")
    helper = tmp_path / "bin" / "docker-credential-vault"
    helper.parent.mkdir()
    helper.write_text(
        '#!/bin/sh\nread host\necho "$1 $host" >> "$0.log"\n'
        'echo \'{"ServerURL": "x", "Username": "ada", "Secret": "secret"}\'\n'
    )
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    (tmp_path / ".docker").mkdir()
    config = {"credHelpers": {locked_registry.name: "vault"}}
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
    env = {**env, "PATH": f"{helper.parent}:{env['PATH']}"}
    push("iris", f"{locked_registry.name}/iris:1", home=here, env=env, ca=certificates[0])
    assert set(helper.with_name("docker-credential-vault.log").read_text().splitlines()) == {
        f"get {locked_registry.name}"
    }


def test_a_registry_behind_a_proxy_is_reached_through_a_tunnel(locked_registry, certificates, here, env):
    image = put_image(layout_in(here.root), os.urandom(MB), name="iris")
    log_in(env, "registry.test", "ada:secret")
    with tunnels_to(locked_registry.port) as (proxy, heads):
        env = {**env, "HTTPS_PROXY": f"http://bob:builder@{proxy}"}
        done = push("iris", "registry.test/iris:1", home=here, env=env, ca=certificates[0])
    assert done.moved.digest == image.digest
    assert all(head.startswith(b"CONNECT registry.test:443 ") for head in heads)
    assert all(b"Proxy-Authorization: Basic " + base64.b64encode(b"bob:builder") in head for head in heads)
    # The registry's own password is inside of the tunnel.
    assert not any(base64.b64encode(b"ada:secret") in head for head in heads)


@contextmanager
def tunnels_to(port):
    """A proxy that leads every CONNECT to one port of this machine, whatever name was asked for."""
    heads = []

    class Tunnel(socketserver.BaseRequestHandler):
        def handle(self):
            head = b""
            while b"\r\n\r\n" not in head:
                head += self.request.recv(4096)
            heads.append(head)
            with socket.create_connection(("127.0.0.1", port), timeout=20) as other:
                self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=pump, args=(other, self.request))
                back.start()
                pump(self.request, other)
                back.join(20)

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Proxy(("127.0.0.1", 0), Tunnel) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", heads
        server.shutdown()
        thread.join(10)


def pump(source, target):
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def log_in(env, registry, pair):
    place = Path(env["HOME"], ".docker", "config.json")
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps({"auths": {registry: {"auth": base64.b64encode(pair.encode()).decode()}}}))
