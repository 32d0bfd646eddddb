"""What the tests of registries share: images to move, and a real docker-registry with what it is asked to have."""

import json
import os
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ports import free_port

from corten.core.digest import Digest
from corten.core.image import CONFIG, INDEX, LAYER, MANIFEST, Descriptor
from corten.core.platform import Platform
from corten.store.documents import descriptor_to
from corten.store.layout import Layout

SBOM = "application/vnd.cyclonedx+json"


def put_image(layout, *layers, name="", architecture="amd64"):
    """An image of these layers' bytes; gives its manifest's descriptor."""
    config = {
        "architecture": architecture,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(data)) for data in layers]},
        "config": {},
    }
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor_to(layout.put(json.dumps(config).encode(), CONFIG)),
        "layers": [descriptor_to(layout.put(data, LAYER)) for data in layers],
    }
    descriptor = layout.put(json.dumps(document).encode(), MANIFEST)
    if name:
        layout.tag(name, descriptor)
    return descriptor


def put_index(layout, name, *images):
    """An index over images of amd64, arm64."""
    entries = [
        descriptor_to(Descriptor(one.media_type, one.digest, one.size_bytes, platform=Platform(architecture)))
        for one, architecture in zip(images, ("amd64", "arm64"), strict=False)
    ]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    descriptor = layout.put(json.dumps(document).encode(), INDEX)
    layout.tag(name, descriptor)
    return descriptor


def put_referrer(layout, subject, data=b'{"bomFormat": "CycloneDX"}', kind=SBOM):
    """An artifact attached to a manifest."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": descriptor_to(layout.put(b"{}", "application/vnd.oci.empty.v1+json")),
        "layers": [descriptor_to(layout.put(data, kind))],
        "subject": descriptor_to(Descriptor(subject.media_type, subject.digest, subject.size_bytes)),
    }
    put = layout.put(json.dumps(document).encode(), MANIFEST)
    descriptor = Descriptor(put.media_type, put.digest, put.size_bytes, artifact_type=kind)
    layout.attach(subject.digest, [descriptor])
    return descriptor


def put_sparse_image(layout, name, size_bytes):
    """An image of one layer of zeros, which takes no place on the disk; gives the layer's descriptor."""
    config = b'{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}'
    configured = layout.put(config, CONFIG)
    place = layout.root / "sparse"
    with place.open("wb") as stream:
        stream.truncate(size_bytes)
    digest = Digest.of_file(place)
    place.rename(layout.path(digest))
    layer = Descriptor(LAYER, digest, size_bytes)
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor_to(configured),
        "layers": [descriptor_to(layer)],
    }
    layout.tag(name, layout.put(json.dumps(document).encode(), MANIFEST))
    return layer


@dataclass
class DockerRegistry:
    """Debian's docker-registry 2.8 on loopback; it can be killed and started again with what it kept."""

    folder: Path
    port: int = field(default_factory=free_port)
    tls: tuple = ()
    htpasswd: Path | None = None
    process: subprocess.Popen | None = None

    @property
    def name(self):
        return f"localhost:{self.port}"

    def start(self):
        config = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{self.port}", "secret": "kept over restarts"},
        }
        if self.tls:
            config["http"]["tls"] = {"certificate": str(self.tls[0]), "key": str(self.tls[1])}
        if self.htpasswd:
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self.htpasswd)}}
        place = self.folder / "config.yml"
        place.write_text(json.dumps(config))  # JSON is YAML
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(place)],
                stdout=log,
                stderr=log,
                env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            time.sleep(0.02)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait(10)
            self.process = None


def certificates_in(folder):
    """An authority of our own and a certificate for localhost: (ca, certificate, key)."""

    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, cwd=folder, capture_output=True, timeout=30)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    openssl("req", *key, "-keyout", "key.pem", "-out", "req.pem", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:registry.test")
    openssl(
        "x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem",
        "-days", "2", "-extfile", "names",
    )  # fmt: skip
    return folder / "ca.pem", folder / "cert.pem", folder / "key.pem"


def layout_in(home):
    return Layout(home / "store")
