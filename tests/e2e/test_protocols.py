"""The clients people have already, as they are, against a running image, through the gateway."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from ports import free_port
from stories import ask, ask_whole

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.envoy, pytest.mark.network, pytest.mark.clients]

CHAT = """
import json, sys, time
import openai

client = openai.OpenAI(base_url=sys.argv[1] + "v1", api_key="none", timeout=20, max_retries=0)
assert [model.id for model in client.models.list()] == ["parrot"]
asked = {"model": "parrot", "messages": [{"role": "user", "content": "What is a class?"}], "seed": 5, "max_tokens": 12}
whole = client.chat.completions.create(**asked)
choice = whole.choices[0]
assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (4, 12, 16)
pieces = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
said = [piece.choices[0].delta.content or "" for piece in pieces if piece.choices]
assert "".join(said) == choice.message.content
assert pieces[0].choices[0].delta.role == "assistant"
assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == "length"
assert pieces[-1].usage.total_tokens == 16 and not pieces[-1].choices
assert len({piece.id for piece in pieces}) == 1
stopped = client.chat.completions.create(**{**asked, "stop": choice.message.content.split()[3]})
assert stopped.choices[0].finish_reason == "stop"
text = client.completions.create(model="parrot", prompt="The class", seed=5, max_tokens=7)
assert len(text.choices[0].text.split()) == 7
parts = client.completions.create(model="parrot", prompt="The class", seed=5, max_tokens=7, stream=True)
assert "".join(part.choices[0].text for part in parts) == text.choices[0].text
refused = {}
for name, change in {
    "name": {"model": "gpt-5"}, "range": {"temperature": 9}, "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "typo": {"extra_body": {"tempratur": 1}}, "none": {"messages": []}, "range, in pieces": {"temperature": 9, "stream": True},
}.items():
    try:
        client.chat.completions.create(**{**asked, **change})
    except openai.APIStatusError as error:
        refused[name] = [error.status_code, error.body["code"], error.body["param"]]
print(json.dumps(refused))
"""


def run(script, *argv):
    python = os.environ.get("CORTEN_CLIENTS_PYTHON") or sys.executable
    done = subprocess.run([python, "-c", script, *argv], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def parrot(warm_home):
    """The parrot with two replicas behind the gateway."""

    made = subprocess.run([sys.executable, EXAMPLES / "parrot" / "make.py"], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    port = free_port()
    yield warm_home.up(EXAMPLES / "parrot", "--port", port, "--replicas", "2")["url"]
    warm_home.run("stop", "--all", code=None)


GRPC = """
import json, sys
import grpc, numpy as np
import tritonclient.grpc as triton

gateway, name, scans, socket = sys.argv[1], sys.argv[2], np.array(json.loads(sys.argv[3]), np.float32), sys.argv[4]
ways = (
    (gateway, {"channel_args": [("grpc.default_authority", f"{name}.localhost")]}, None),
    (gateway, {}, {"x-corten-deployment": name}),
    (f"unix:{socket}", {}, None),  # the image itself
)
answers = []
for address, options, headers in ways:
    client = triton.InferenceServerClient(address, **options)
    asked = {"headers": headers, "client_timeout": 20}
    assert client.is_server_ready(**asked) and client.is_model_ready(name, **asked)
    (described,) = client.get_model_metadata(name, **asked).inputs
    tensor = triton.InferInput(described.name, scans.shape, "FP32")
    tensor.set_data_from_numpy(scans)
    found = client.infer(name, [tensor], **asked)
    answers.append({one.name: found.as_numpy(one.name).tolist() for one in found.get_response().outputs})
assert all(answer == answers[0] for answer in answers)
try:
    triton.InferenceServerClient(gateway).is_server_live(client_timeout=20)
except triton.InferenceServerException as error:
    lost = error.status()
print(json.dumps({"answer": answers[0], "lost": lost}))
"""


def grpc_socket(corten):
    """A replica's own, of one that serves now: those that drain are about to take theirs along."""
    ready = next(one for one in corten.deployment("digits")["replicas"] if one["state"] == "ready")
    return Path(ready["address"]).with_name("g")


@pytest.mark.examples
def test_nvidias_client_asks_over_grpc_through_the_gateway(corten, port, folder):
    from sklearn.datasets import load_digits

    made = subprocess.run(
        [sys.executable, EXAMPLES / "digits" / "train.py"], capture_output=True, text=True, timeout=300
    )
    assert made.returncode == 0, made.stderr
    shutil.copy(EXAMPLES / "digits" / "model.onnx", folder / "model.onnx")
    (folder / "corten.toml").write_text('name = "digits"\nsource = "model.onnx"\ngrpc = true\n')
    url = corten.up(folder, "--port", port, "--replicas", "2")["url"]
    scans = (load_digits().data[-20:] / 16).tolist()
    asked = (f"127.0.0.1:{port}", "digits", json.dumps(scans))
    seen = run(GRPC, *asked, grpc_socket(corten))
    status, answer = ask(url, {"inputs": scans})
    assert status == 200
    assert seen["answer"]["label"] == answer["outputs"]["label"]
    assert seen["lost"] == "StatusCode.UNIMPLEMENTED"
    # A new revision, and back, without a call that fails.
    corten.up(folder, "--port", port, "--replicas", "1")
    assert run(GRPC, *asked, grpc_socket(corten))["answer"] == seen["answer"]


SLOW = """
import time

class Slow:
    def predict(self, seconds: float = 0.0) -> float:
        time.sleep(seconds)
        return seconds
"""


def test_a_job_is_found_whichever_replica_is_asked(corten, port, folder):
    (folder / "slow.py").write_text(SLOW)
    url = corten.up(folder / "slow.py", "--name", "slow", "--port", port, "--replicas", "2")["url"]
    later = {"Prefer": "respond-async", "content-type": "application/json"}
    accepted = [ask_whole("POST", url + "predict", b'{"seconds": 0.5}', later) for _ in range(6)]
    assert {status for status, _, _ in accepted} == {202}
    assert len({json.loads(body)["replica"] for _, _, body in accepted}) == 2
    places = [urljoin(url + "predict", headers["location"]) for _, headers, _ in accepted]
    for _ in range(4):
        assert {ask_whole("GET", place)[0] for place in places} == {200}
    results = [ask_whole("GET", place, headers={"Prefer": "wait=20"}) for place in places]
    assert [json.loads(body)["status"] for _, _, body in results] == ["succeeded"] * 6
    assert [ask_whole("GET", place + "/result")[2] for place in places] == [b'{"outputs":0.5}'] * 6
    # They outlive the replicas that made them.
    corten.run("deploy", "slow", "--replicas", "1")
    assert [ask_whole("GET", place + "/result")[2] for place in places] == [b'{"outputs":0.5}'] * 6
    hook = {**later, "X-Corten-Webhook": "https://example.com/"}
    status, _, body = ask_whole("POST", url + "predict", b"{}", hook)
    assert (status, json.loads(body)["error"]["code"]) == (422, "webhook.no_network")


def test_openais_client_chats_with_a_model_that_declares_it(parrot):
    assert run(CHAT, parrot) == {
        "name": [404, "model_not_found", "model"],
        "range": [400, "request.invalid", "temperature"],
        "tools": [400, "unsupported_parameter", "tools"],
        "typo": [400, "unknown_parameter", "tempratur"],
        "none": [400, "request.invalid", "messages"],
        "range, in pieces": [400, "request.invalid", "temperature"],
    }


def test_pieces_pass_the_gateway_as_they_come(parrot):
    parts = urlsplit(parrot)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    connection.request(
        "POST", parts.path + "predict", '{"prompt": "The class", "seed": 1}', {"Accept": "text/event-stream"}
    )
    answer = connection.getresponse()
    assert answer.getheader("content-type") == "text/event-stream"
    events = answer.read().decode().split("\n\n")
    connection.close()
    assert len(events) == 42  # 40 words, the end, and nothing after it
    assert events[-2].startswith("event: end")
