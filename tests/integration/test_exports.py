"""What people without Corten get: archives, Compose files and units, each started by the program it is for."""

import os
import re
import shlex
import shutil
import subprocess
import time
import urllib.request
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ports import free_port
from quadlets import generated, generated_run, podman_run

from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import MANIFEST, Descriptor
from corten.core.reference import Reference
from corten.core.resources import Resources
from corten.exporters.base import SecretVariable, Workload
from corten.exporters.compose import Compose
from corten.exporters.units import Quadlet, Systemd
from corten.ops.export import export_docker
from corten.store.layout import Layout
from corten.testing.tiny_image import TinyImage

SERVER = """
import http.server, json, os
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = open("/proc/self/status").read()
        told = {"uid": os.getuid(), "env": dict(os.environ), "caps": status.split("CapEff:")[1].split()[0]}
        try:
            open("/app/x", "w")
        except OSError as error:
            told["write"] = error.strerror
        told["open"] = [folder for folder in ("/tmp", "/dev/shm", "/run", "/var/tmp") if os.access(folder, os.W_OK)]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())
http.server.HTTPServer(("0.0.0.0", 8080), Answer).serve_forever()
"""
WORKLOAD = Workload(
    "fraud",
    Reference.parse(f"ghcr.io/team/fraud@{Digest.of(b'image')}"),
    Settings(env={"ODD": "x \"y\" $z %h 'q'"}, resources=Resources(memory_bytes=128 << 20, cpus=1.0)),
)


@pytest.fixture(scope="module")
def archive(home: Home):
    """The archive of a small server, by the name `fraud`."""
    if not TinyImage.possible():
        pytest.skip("needs /usr/bin/python3 and ldd to make an image from")
    layout = Layout(home.store)
    digest = TinyImage(layout).build(["/usr/bin/python3", "-c", SERVER], code={"corten.json": "{}"})
    layout.tag("fraud", Descriptor(MANIFEST, digest, len(layout.read(digest))))
    path = home.root / "fraud.tar"
    done = export_docker("fraud", path, home=home)
    assert (done.name, done.size_bytes) == ("fraud", path.stat().st_size)
    assert export_docker("fraud", home.root / "again.tar", home=home).sha256 == done.sha256
    return path


@pytest.fixture(scope="module")
def in_podman(archive, podman):
    """The environment of a podman that has loaded it as localhost/fraud:latest."""
    env = {**os.environ, **podman}
    done = subprocess.run(["podman", "load", "-i", archive], env=env, capture_output=True, text=True, check=True)
    assert "localhost/fraud:latest" in done.stdout
    return env


def here(text, port):
    """A rendered text for the image and a port that are here."""
    return text.replace(str(WORKLOAD.image), "localhost/fraud:latest").replace("127.0.0.1:8080:", f"127.0.0.1:{port}:")


def asked(port):
    import json

    deadline_s = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)


def is_kept_to(told):
    assert (told["uid"], told["caps"]) == (65532, "0000000000000000")
    assert (told["write"], told["open"]) == ("Read-only file system", ["/tmp", "/dev/shm"])
    assert told["env"]["ODD"] == WORKLOAD.settings.env["ODD"]
    assert told["env"]["CORTEN_DEPLOYMENT"] == "fraud"


@pytest.mark.docker
def test_docker_loads_the_archive_and_runs_it(archive, docker):
    env = {**os.environ, **docker}
    subprocess.run(["docker", "load", "-i", archive], env=env, capture_output=True, check=True)
    command = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--entrypoint",
        "/usr/bin/python3",
        "localhost/fraud:latest",
    ]
    done = subprocess.run([*command, "-c", "print('runs')"], env=env, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("runs\n", 0), done.stderr


@pytest.mark.podman
def test_the_service_runs_what_it_says(in_podman):
    port = free_port()
    text = Systemd().render(WORKLOAD)["fraud.service"]
    line = next(line for line in here(text, port).splitlines() if line.startswith("ExecStart="))
    words = shlex.split(line.removeprefix("ExecStart=").replace("$$", "$").replace("%%", "%"))
    # systemd is not there to be notified.
    words = [word for word in words if not word.startswith(("--sdnotify", "--cgroups"))]
    runs(words[:2], words[2:], port, in_podman)


@pytest.mark.podman
def test_podman_runs_what_the_quadlet_says(in_podman):
    """As podman-systemd.unit(5) says what becomes of each key: for podmans without a generator, as Debian 12's."""
    port = free_port()
    words = podman_run(here(Quadlet().render(WORKLOAD)["fraud.container"], port))
    runs(["podman", "run"], words, port, in_podman)


def runs(command, words, port, env):
    """It answers, is kept to what was written down, and its health check succeeds without a shell."""
    limits = ["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096"]  # as here
    started = subprocess.Popen([*command, *limits, *words], env=env, stdout=subprocess.DEVNULL)
    try:
        is_kept_to(asked(port))
        done = subprocess.run(["podman", "healthcheck", "run", "fraud"], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        subprocess.run(["podman", "stop", "--time", "0", "fraud"], env=env, capture_output=True)
        started.wait(30)


@pytest.mark.systemd
@pytest.mark.podman
def test_systemd_takes_the_service(tmp_path):
    path = tmp_path / "fraud.service"
    path.write_text(Systemd().render(WORKLOAD)["fraud.service"])
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "fraud.service" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.quadlet
def test_podmans_generator_makes_of_a_quadlet_what_its_manual_says(tmp_path):
    more = replace(WORKLOAD.settings, resources=Resources(128 << 20, 1.5, gpus=2, devices=("amd.com/gpu=0",)))
    workload = replace(WORKLOAD, settings=more, secrets=(SecretVariable("TOKEN", "api", "key"),))
    text = Quadlet().render(workload)["fraud.container"]
    service = generated(text, tmp_path, "fraud")
    assert options(generated_run(service)) == options(podman_run(text))
    assert ["--secret", "api-key,type=env,target=TOKEN"] in options(generated_run(service))
    for line in ("Restart=always", "TimeoutStopSec=40", "Type=notify", "WantedBy=default.target"):
        assert line in service.splitlines()


@pytest.mark.quadlet
@given(text=st.text(st.characters(min_codepoint=32, codec="utf-8"), max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_variable_passes_podmans_generator(tmp_path, text):
    rendered = Quadlet().render(replace(WORKLOAD, settings=Settings(env={"ODD": text})))["fraud.container"]
    assert ["--env", f"ODD={text}"] in options(generated_run(generated(rendered, tmp_path, "fraud")))


@pytest.mark.quadlet
@pytest.mark.podman
def test_podman_runs_what_its_generator_makes(in_podman, tmp_path):
    port = free_port()
    text = here(Quadlet().render(WORKLOAD)["fraud.container"], port)
    runs(["podman", "run"], generated_run(generated(text, tmp_path, "fraud")), port, in_podman)


@pytest.mark.quadlet
@pytest.mark.systemd
@pytest.mark.podman
def test_systemd_takes_what_podmans_generator_makes(tmp_path):
    path = tmp_path / "fraud.service"
    path.write_text(generated(Quadlet().render(WORKLOAD)["fraud.container"], tmp_path, "fraud"))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "fraud.service" in line]
    assert (done.returncode, complaints) == (0, [])


def options(words):
    """In any order, each with its value; without `--rm` and `--replace`, which both have."""
    joined = [word.split("=", 1) if re.match("--[a-z-]+=", word) else [word] for word in words[:-1]]
    found = []
    for each in joined:
        if not each[0].startswith("--") and len(found[-1]) == 1:
            found[-1] += each
        else:
            found.append(each)
    return sorted([*found, ["image", words[-1]]])


@pytest.mark.podman
def test_compose_runs_what_it_says(in_podman, tmp_path):
    compose = shutil.which("podman-compose")
    if compose is None:
        pytest.skip("podman-compose is not installed")
    port = free_port()
    (tmp_path / "compose.yaml").write_text(here(Compose().render(WORKLOAD)["compose.yaml"], port))
    limits = "--podman-run-args=--ulimit nofile=1024:4096 --ulimit nproc=4096:4096"
    command = [compose, limits, "--file", tmp_path / "compose.yaml"]
    up = subprocess.run([*command, "up", "--detach"], env=in_podman, capture_output=True, text=True)
    try:
        assert up.returncode == 0, up.stderr
        is_kept_to(asked(port))
    finally:
        subprocess.run([*command, "down", "--timeout", "0"], env=in_podman, capture_output=True)
        # It leaves its network, which is the machine's: podman keeps all of them in one place.
        for network in (f"{tmp_path.name}_default", "fraud_default"):
            subprocess.run(["podman", "network", "rm", "--force", network], env=in_podman, capture_output=True)
