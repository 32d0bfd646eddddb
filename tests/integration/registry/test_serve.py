"""The local store as a registry: real clients pull from it, and it stays small."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from registries import layout_in, put_image, put_index, put_referrer, put_sparse_image

from corten.core.digest import Digest
from corten.core.image import MANIFEST
from corten.ops.pull import pull
from corten.store import signature_tag

MB = 1 << 20


@pytest.fixture
def served(here):
    """`corten registry serve` over the store of `here`; its host:port and its process."""
    code = "import sys; from corten.core.home import Home; from corten.ops.registry import serve_registry; from pathlib import Path; serve_registry(home=Home(Path(sys.argv[1])), port=0, ready=lambda url: print(url, flush=True))"
    process = subprocess.Popen([sys.executable, "-c", code, str(here.root)], stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        yield process.stdout.readline().strip().removeprefix("http://"), process
    finally:
        watchdog.cancel()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()


def get(address, path, method="GET", **headers):
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


@pytest.mark.skopeo
def test_skopeo_copies_an_image_and_the_digest_stays(here, served, tmp_path):
    image = put_image(layout_in(here.root), os.urandom(3 * MB), b"second", name="iris")
    words = ["--preserve-digests", "--src-tls-verify=false", f"docker://{served[0]}/iris", f"oci:{tmp_path}/out:iris"]
    subprocess.run(["skopeo", "copy", *words], check=True, capture_output=True, timeout=60)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["manifests"][0]["digest"] == str(image.digest)


@pytest.mark.podman
def test_podman_pulls_an_image(here, served):
    from corten.core.image import Descriptor
    from corten.testing.tiny_image import TinyImage

    layout = layout_in(here.root)
    tiny = TinyImage(layout)
    layers = [tiny.layer({"app/hello": b"hello"}, None)]
    digest = tiny.image(layers, ["/app/hello"])
    layout.tag("ghcr.io/team/tiny:7", Descriptor(MANIFEST, digest, layout.path(digest).stat().st_size))
    name = f"{served[0]}/team/tiny:7"
    # Podman takes no run root of more than 50 characters.
    with tempfile.TemporaryDirectory(prefix="corten-", dir="/tmp") as folder:
        podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        pulled = subprocess.run([*podman, "pull", "--tls-verify=false", name], capture_output=True, timeout=90)
        assert pulled.returncode == 0, pulled.stderr
        shown = subprocess.run([*podman, "image", "inspect", name], capture_output=True, timeout=30)
        assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)[0]["Digest"] == str(digest)


def test_corten_pulls_an_index_with_its_referrers_from_another_corten(here, there, served, env):
    layout = layout_in(here.root)
    index = put_index(layout, "iris", put_image(layout, b"a"), put_image(layout, b"b", architecture="arm64"))
    sbom = put_referrer(layout, index)
    done = pull(f"{served[0]}/iris", home=there, env=env)
    assert (done.moved.digest, done.moved.referrers) == (index.digest, 1)
    assert layout_in(there.root).referrers(index.digest)[0].digest == sbom.digest


def test_signatures_under_their_tag_are_served_too(here, there, served, env):
    layout = layout_in(here.root)
    image = put_image(layout, b"layer", name="iris")
    payload = layout.put(b"signed", signature_tag.PAYLOAD_TYPE)
    signature_tag.keep(
        layout, image.digest, [replace(payload, annotations={signature_tag.SIGNATURE_ANNOTATION: "by somebody"})]
    )
    answer, body = get(served[0], f"/v2/iris/manifests/{signature_tag.signature_tag(image.digest)}")
    assert (answer.status, json.loads(body)["layers"][0]["digest"]) == (200, str(payload.digest))
    pull(f"{served[0]}/iris:latest", home=there, env=env)
    assert signature_tag.payloads_of(layout_in(there.root), image.digest) == signature_tag.payloads_of(
        layout, image.digest
    )


def test_the_pull_half_of_the_specification(here, served):
    address, _ = served
    layout = layout_in(here.root)
    data = os.urandom(2 * MB)
    image = put_image(layout, data, name="iris")
    sbom = put_referrer(layout, image)
    blob = f"/v2/iris/blobs/{Digest.of(data)}"
    assert get(address, "/v2/")[0].status == 200
    manifest, body = get(address, "/v2/iris/manifests/latest")
    assert (manifest.headers["Docker-Content-Digest"], Digest.of(body)) == (str(image.digest), image.digest)
    assert manifest.headers["Content-Type"] == MANIFEST
    head, nothing = get(address, f"/v2/iris/manifests/{image.digest}", "HEAD")
    assert (head.status, head.headers["Content-Length"], nothing) == (200, str(len(body)), b"")
    whole, body = get(address, blob)
    assert (whole.status, body, whole.headers["Content-Length"]) == (200, data, str(len(data)))
    head, nothing = get(address, blob, "HEAD")
    assert (head.status, head.headers["Content-Length"], nothing) == (200, str(len(data)), b"")
    part, body = get(address, blob, Range="bytes=1000-1999")
    assert (part.status, body, part.headers["Content-Range"]) == (206, data[1000:2000], f"bytes 1000-1999/{len(data)}")
    assert get(address, blob, Range=f"bytes={len(data)}-")[0].status == 416
    _, body = get(address, f"/v2/iris/referrers/{image.digest}")
    assert [entry["digest"] for entry in json.loads(body)["manifests"]] == [str(sbom.digest)]
    _, none = get(address, f"/v2/iris/referrers/{image.digest}?artifactType=other/type")
    assert json.loads(none)["manifests"] == []
    assert json.loads(get(address, "/v2/iris/tags/list")[1]) == {"name": "iris", "tags": ["latest"]}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing/tags/list", 404),
        ("GET", "/v2/iris/manifests/nope", 404),
        ("GET", "/v2/iris/blobs/sha256:00", 404),
        ("GET", f"/v2/iris/blobs/sha256:{'0' * 64}", 404),
        ("GET", "/v2/iris/blobs/..%2f..%2findex.json", 404),
        ("GET", "/v2/../../etc/passwd", 404),
        ("GET", "/v2/iris%00/tags/list", 404),
        ("PUT", "/v2/iris/manifests/latest", 405),
        ("POST", "/v2/iris/blobs/uploads/", 405),
        ("DELETE", "/v2/iris/manifests/latest", 405),
    ],
)
def test_what_is_not_there_or_not_allowed_is_told_in_the_form_of_the_specification(here, served, method, path, status):
    put_image(layout_in(here.root), b"layer", name="iris")
    answer, body = get(served[0], path, method)
    assert answer.status == status
    assert re.fullmatch("[A-Z_]+", json.loads(body)["errors"][0]["code"])


def test_a_client_that_leaves_in_the_middle_and_a_slow_one_cost_no_memory(here, served):
    address, process = served
    layer = put_sparse_image(layout_in(here.root), "big", 1 << 30)
    before = rss_mb(process.pid)
    clients = []
    for _ in range(8):
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request("GET", f"/v2/big/blobs/{layer.digest}")
        answer = connection.getresponse()
        assert answer.read(1000) == bytes(1000)
        clients.append(connection)
    time.sleep(0.3)
    assert rss_mb(process.pid) < before + 30
    for connection in clients:
        connection.close()
    assert get(address, "/v2/")[0].status == 200


def rss_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024
