"""The gateway's front as a user sets it up: TLS and who may ask."""

import json
import urllib.error
import urllib.request

import pytest
from certificates import write_certificate
from stories import free_port

pytestmark = [pytest.mark.envoy, pytest.mark.network, pytest.mark.timeout(200)]

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
