"""Who is let in, over TLS as clusters have it: authorities, tokens that end, certificates, programs, a pod's own account."""

import base64
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from clusters import fails

from corten.cluster.kinds import POD
from corten.cluster.lightkube_api import connect
from corten.testing import FakeApiServer

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def as_user(cluster, tmp_path, monkeypatch):
    def use(**user):
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig", **user)))
        return connect(sleep=lambda _: None)

    return use


def asks(api):
    with api:
        return api.list(POD, "default").items == ()


def text(pem):
    return base64.b64encode(pem).decode()


def test_a_server_that_shows_the_certificate_of_somebody_else_is_told_nothing(cluster, tmp_path, monkeypatch):
    with FakeApiServer() as other:
        path = cluster.kubeconfig(tmp_path / "kubeconfig")
        path.write_text(path.read_text().replace(cluster.url, other.url))
        monkeypatch.setenv("KUBECONFIG", str(path))
        error = fails("kubernetes.untrusted", lambda: asks(connect()))
        assert other.url in error.where
        assert other.seen == []


def test_a_certificate_lets_in_and_one_that_is_over_does_not(cluster, as_user):
    certificate, key = cluster.authority.client("ann")
    user = {"client-certificate-data": text(certificate), "client-key-data": text(key)}
    assert asks(as_user(**user))
    assert cluster.seen[-1].user == "ann"
    certificate, key = cluster.authority.client("ann", valid_s=-60)
    user = {"client-certificate-data": text(certificate), "client-key-data": text(key)}
    assert "Unauthorized" in fails("kubernetes.unauthorized", lambda: asks(as_user(**user))).why


def test_a_token_in_a_file_is_read_again_when_it_is_over(cluster, as_user, tmp_path):
    (tmp_path / "token").write_text("first")
    cluster.rules.tokens = {"first": "dev"}
    with as_user(tokenFile="token") as api:  # beside the kubeconfig
        assert api.list(POD, "default").items == ()
        cluster.rules.tokens = {"second": "dev"}
        fails("kubernetes.unauthorized", lambda: api.list(POD, "default"))
        (tmp_path / "token").write_text("second")
        assert api.list(POD, "default").items == ()
        (tmp_path / "token").unlink()
        cluster.rules.tokens = {}
        assert "token" in fails("kubernetes.unauthorized", lambda: api.list(POD, "default")).why


def program(folder, *, version="v1", **status):
    """A program that gives that, and notes that and how it was asked."""
    script = (
        "import json, os, pathlib\n"
        f"with open({str(folder / 'asked')!r}, 'a') as file: print(os.environ['KUBERNETES_EXEC_INFO'], file=file)\n"
        f"status = json.loads(pathlib.Path({str(folder / 'status')!r}).read_text())\n"
        f"print(json.dumps({{'apiVersion': 'client.authentication.k8s.io/{version}', 'kind': 'ExecCredential', "
        "'status': status}))\n"
    )
    give(folder, **status)
    return {
        "apiVersion": f"client.authentication.k8s.io/{version}",
        "command": sys.executable,
        "args": ["-c", script],
        "interactiveMode": "Never",
    }


def give(folder, **status):
    (folder / "status").write_text(json.dumps(status))


def asked(folder):
    return [json.loads(line) for line in (folder / "asked").read_text().splitlines()]


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_program_gets_the_token_and_is_told_for_which_cluster(cluster, as_user, tmp_path, version):
    assert asks(as_user(exec=program(tmp_path, version=version, token="good")))
    (told,) = asked(tmp_path)
    assert told["apiVersion"] == f"client.authentication.k8s.io/{version}"
    assert told["spec"]["cluster"]["server"] == cluster.url
    assert base64.b64decode(told["spec"]["cluster"]["certificate-authority-data"]) == cluster.authority.pem


def test_it_is_asked_again_when_its_token_is_refused_once_for_all_threads(cluster, as_user, tmp_path):
    with as_user(exec=program(tmp_path, token="good")) as api:
        cluster.rules.tokens = {"newer": "dev"}
        give(tmp_path, token="newer")
        threads = [threading.Thread(target=api.list, args=(POD, "default")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert api.list(POD, "default").items == ()
    assert len(asked(tmp_path)) == 2


def test_it_is_asked_again_before_its_token_is_over(cluster, as_user, tmp_path):
    over = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 5))
    with as_user(exec=program(tmp_path, token="good", expirationTimestamp=over)) as api:
        give(tmp_path, token="newer", expirationTimestamp="2999-01-01T00:00:00Z")
        cluster.rules.tokens["newer"] = "later"
        api.list(POD, "default")
        api.list(POD, "default")
    assert [call.user for call in cluster.seen] == ["later", "later"]
    assert len(asked(tmp_path)) == 2


def test_it_may_give_a_certificate(cluster, as_user, tmp_path):
    certificate, key = cluster.authority.client("eve")
    given = {"clientCertificateData": certificate.decode(), "clientKeyData": key.decode()}
    assert asks(as_user(exec=program(tmp_path, **given)))
    assert cluster.seen[-1].user == "eve"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("no-such-program",), "no-such-program"),
        ((sys.executable, "-c", "raise SystemExit('session expired')"), "session expired"),
        ((sys.executable, "-c", "print('{}')"), "ExecCredential"),
        ((sys.executable, "-c", "print('no json')"), "no json"),
    ],
    ids=["missing", "fails", "no status", "no json"],
)
def test_a_program_that_gets_none_is_told(as_user, command, why):
    said = {"apiVersion": "client.authentication.k8s.io/v1", "command": command[0], "args": command[1:]}
    error = fails("kubernetes.unauthorized", lambda: asks(as_user(exec=said)))
    assert why in error.why
    assert command[0] in error.what


def test_a_program_that_speaks_another_version_or_gives_nothing_is_told(as_user, tmp_path):
    other = {**program(tmp_path, token="good"), "apiVersion": "client.authentication.k8s.io/v1beta1"}
    assert "it speaks" in fails("kubernetes.unauthorized", lambda: asks(as_user(exec=other))).why
    assert "neither" in fails("kubernetes.unauthorized", lambda: asks(as_user(exec=program(tmp_path)))).why


@pytest.mark.bwrap
def test_a_pod_finds_its_cluster_by_its_account(cluster, tmp_path):
    """Where the kubelet puts the files, in a sandbox that has nothing else of a cluster."""
    cluster.namespace("jobs")
    account = cluster.service_account(tmp_path / "account", namespace="jobs")
    host, port = cluster.url.removeprefix("https://").split(":")
    env = {key: value for key, value in os.environ.items() if not key.startswith(("KUBE", "CORTEN_"))}
    env |= {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "HOME": str(tmp_path)}
    mounted = "/run/secrets/kubernetes.io/serviceaccount"
    sandbox = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", "/run", "--ro-bind", account, mounted]
    done = subprocess.run(
        [*sandbox, sys.executable, "-m", "corten", "status", "--engine", "kubernetes", "--json"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, {"deployments": []}), done.stderr
    assert {call.path.split("/")[-2] for call in cluster.seen} == {"jobs"}
