"""The gateway's front as a user sets it up: TLS, tokens, rates, a restart."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from certificates import write_certificate
from ports import free_port
from stories import Load

pytestmark = [pytest.mark.load, pytest.mark.envoy, pytest.mark.network]

ECHO = """
class Echo:
    def predict(self, x: float) -> float:
        return x * 2
"""


@pytest.fixture
def echo(tmp_path):
    path = tmp_path / "echo.py"
    path.write_text(ECHO)
    return f"{path}:Echo"


def test_tls_is_switched_on_and_off_and_predict_goes_on(corten, port, echo, tmp_path):
    corten.up(echo, "--name", "echo", "--port", port)
    chain, key = write_certificate(tmp_path)
    other, _ = write_certificate(tmp_path, "other")
    refused = corten.run("gateway", "set", "--tls-cert", other, "--tls-key", key, code=2)
    assert "gateway.bad_certificate" in refused.err
    assert corten.run("predict", "echo", "-i", '{"x": 2}', "--json").json == {"outputs": 4.0}
    secure = free_port()
    done = corten.run("gateway", "set", "--tls-cert", chain, "--tls-key", key, "--port", secure, "--http-port", port)
    assert done.out.strip() == f"https://127.0.0.1:{secure}"
    assert corten.deployment("echo")["url"] == f"https://127.0.0.1:{secure}/echo/"
    assert corten.run("predict", "echo", "-i", '{"x": 3}', "--json").json == {"outputs": 6.0}
    shown = corten.run("status", "--json").json["gateway"]
    assert (shown["names"], shown["certificate"]) == (["localhost", "127.0.0.1"], str(chain))
    assert corten.run("gateway", "set", "--no-tls").out.strip() == f"http://127.0.0.1:{secure}"
    request = urllib.request.Request(f"http://127.0.0.1:{secure}/echo/predict", b'{"x": 5}')
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer) == {"outputs": 10.0}
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/echo/readyz", timeout=5)


def test_the_gateway_is_restarted_under_load_without_a_failed_request(corten, port, echo):
    url = corten.up(echo, "--name", "echo", "--port", port)["url"]
    with Load(url, {"x": 1.0}) as load:
        done = corten.run("gateway", "restart", "--json").json
    assert load.report["failed"] == 0, load.report
    assert done["was"] != done["pid"] == corten.run("status", "--json").json["gateway"]["pid"]
    assert "gateway.restarting" in corten.run("gateway", "restart", code=5).err
    corten.run("gateway", "restart", "--cold")
    assert corten.run("predict", "echo", "-i", '{"x": 3}', "--json").json == {"outputs": 6.0}


def post(url, **headers):
    """Status, headers and document of one request."""
    request = urllib.request.Request(f"{url}predict", b'{"x": 1}', headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.headers, json.load(refused)


def test_a_deployment_that_asks_for_a_token_gets_it_and_its_end_is_at_once(corten, port, echo):
    done = corten.up(echo, "--name", "echo", "--port", port, "--auth", "token")
    assert '-H "authorization: Bearer $CORTEN_TOKEN"' in done["curl"]
    url = done["url"]
    assert post(url)[2]["error"]["code"] == "gateway.unauthenticated"
    assert "predict.denied" in corten.run("predict", "echo", "-i", '{"x": 1}', code=4).err
    token = corten.run("token", "create", "alice", "--for", "echo", "--days", "1").out.strip()
    other = corten.run("token", "create", "bob", "--for", "other").out.strip()
    assert post(url, authorization=f"Bearer {token}")[0] == 200
    assert post(url, authorization=f"Bearer {other}")[0] == 403
    shown = corten.run("predict", "echo", "-i", '{"x": 4}', "--json", env={"CORTEN_TOKEN": token}).json
    assert shown == {"outputs": 8.0}
    # Another revision, without a word of tokens: the door stays shut. And the daemon's end changes nothing.
    Path(echo.partition(":")[0]).write_text(ECHO.replace("x * 2", "x * 3"))
    assert corten.up(echo, "--name", "echo")["revision"] == "r2"
    os.kill(corten.daemon_pid(), signal.SIGKILL)
    assert post(url)[0] == 401
    assert post(url, authorization=f"Bearer {token}")[2] == {"outputs": 3.0}
    assert len(corten.run("token", "revoke", "alice", "--json").json["revoked"]) == 1
    assert post(url, authorization=f"Bearer {token}")[0] == 401
    states = {one["name"]: one["state"] for one in corten.run("token", "list", "--json").json["tokens"]}
    assert states == {"alice": "revoked", "bob": "valid"}
    new = corten.run("token", "create", "carol").out.strip()
    corten.run("token", "rotate", "--now")
    assert post(url, authorization=f"Bearer {new}")[0] == 401
    everything = [path for path in (corten.home / "state").rglob("*") if path.is_file()]
    assert not [path for path in everything for text in (token, new) if text.encode() in path.read_bytes()]
    # Opened and limited: no new revision, no restart.
    done = corten.up(echo, "--name", "echo", "--auth", "none", "--rate", "1", "--burst", "4")
    assert (done["revision"], done["changed"]) == ("r2", True)
    answers = [post(url) for _ in range(12)]
    refused = [answer for answer in answers if answer[0] == 429]
    assert {answer[0] for answer in answers} == {200, 429}
    assert refused[0][1]["retry-after"] == "1"
    assert refused[0][2]["error"]["code"] == "gateway.rate_limited"
    assert "access" in {one["step"] for one in corten.run("why", "echo", "--json").json["decisions"]}


GRPC = """
import json, sys
import numpy as np
import tritonclient.grpc as triton

address, authority, token = sys.argv[1:]
client = triton.InferenceServerClient(address, ssl=True, root_certificates=authority)
tensor = triton.InferInput("x", [1], "FP64")
tensor.set_data_from_numpy(np.array([3.0]))
seen = []
for bearer in (token, token[:-4] + "AAAA", ""):
    headers = {"x-corten-deployment": "echo", **({"authorization": "Bearer " + bearer} if bearer else {})}
    try:
        found = client.infer("echo", [tensor], headers=headers, client_timeout=20)
        seen.append(found.as_numpy(found.get_response().outputs[0].name).tolist())
    except triton.InferenceServerException as error:
        seen.append(error.status())
print(json.dumps(seen))
"""


@pytest.mark.clients
def test_grpc_by_tls_asks_for_a_token_as_the_rest_does(corten, port, tmp_path):
    (tmp_path / "corten.toml").write_text('name = "echo"\nsource = "echo.py:Echo"\ngrpc = true\nauth = "token"\n')
    (tmp_path / "echo.py").write_text(ECHO)
    corten.up(tmp_path, "--port", port)
    chain, key = write_certificate(tmp_path)
    corten.run("gateway", "set", "--tls-cert", chain, "--tls-key", key)
    try:
        token = corten.run("token", "create", "me", "--for", "echo").out.strip()
        words = [sys.executable, "-c", GRPC, f"localhost:{port}", chain, token]
        done = subprocess.run(words, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [[6.0], "StatusCode.UNAUTHENTICATED", "StatusCode.UNAUTHENTICATED"]
    finally:
        corten.run("gateway", "set", "--no-tls")
