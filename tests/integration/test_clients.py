"""The clients people have already, as they are, against the real server. They run in a Python of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from served import Served

pytestmark = pytest.mark.clients

TRITON = """
import json, sys
import numpy as np
import tritonclient.http as triton

url, binary = sys.argv[1], sys.argv[2] == "binary"
client = triton.InferenceServerClient(url, network_timeout=20)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("toy")
metadata = client.get_model_metadata("toy")
sent = np.array([[1, 2, 3], [4, 5, LAST]], np.float32)
tensor = triton.InferInput("x", sent.shape, "FP32")
tensor.set_data_from_numpy(sent, binary_data=binary)
wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
found = client.infer("toy", [tensor], outputs=wanted, request_id="q1")
assert found.get_response()["id"] == "q1"
array = found.as_numpy("y")
assert array.dtype == np.float32
many = [client.async_infer("toy", [tensor], outputs=wanted) for _ in range(20)]
assert all(np.array_equal(one.get_result().as_numpy("y"), array, equal_nan=True) for one in many)
try:
    wrong = triton.InferInput("x", [1, 2], "FP32")
    wrong.set_data_from_numpy(np.zeros((1, 2), np.float32), binary_data=binary)
    client.infer("toy", [wrong])
except triton.InferenceServerException as error:
    refused = [error.status(), error.message()]
print(json.dumps({"metadata": metadata, "sum": float(np.nansum(array)), "refused": refused}))
"""

TEXTS = """
import json, sys
import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient(sys.argv[1], network_timeout=20)
text = triton.InferInput("text", [2], "BYTES")
text.set_data_from_numpy(np.array(["né", "b"], dtype=object))
times = triton.InferInput("times", [2], "INT64")
times.set_data_from_numpy(np.array([1, 3]))
found = client.infer("toy", [text, times])
print(json.dumps([element.decode() for element in found.as_numpy("outputs")]))
"""


def run(script, *argv):
    python = os.environ.get("CORTEN_CLIENTS_PYTHON") or sys.executable
    done = subprocess.run([python, "-c", script, *argv], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", ["binary", "json"])
def test_nvidias_client_asks_a_model_of_rows(form):
    with Served({"entry": "double"}) as server:
        server.until()
        seen = run(TRITON.replace("LAST", "6" if form == "json" else "np.nan"), f"127.0.0.1:{server.port}", form)
    assert seen["sum"] == (30 if form == "binary" else 42)
    assert seen["metadata"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert seen["refused"] == ["400", "inputs[0].shape: shape [1, 2], expected [-1, 3]"]


def test_nvidias_client_asks_a_class():
    source = "class Toy:\n    def predict(self, text: str, times: int = 1) -> str:\n        return text * times\n"
    spec = {"adapter": "pyclass", "entry": "toy_class:Toy"}
    with Served(spec, files={"toy_class.py": source}) as server:
        server.until()
        assert run(TEXTS, f"127.0.0.1:{server.port}") == ["né", "bbb"]


OPENAI = """
import json, sys
import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", timeout=20, max_retries=0)
assert [model.id for model in client.models.list()] == ["toy"]
floats = client.embeddings.create(model="toy", input=["a", "bc"], encoding_format="float")
packed = client.embeddings.create(model="toy", input=["a", "bc"])  # asks for base64 and decodes it
assert [list(one.embedding) for one in floats.data] == [list(one.embedding) for one in packed.data]
try:
    client.embeddings.create(model="other", input="a")
except openai.NotFoundError as error:
    refused = error.code
try:
    client.embeddings.create(model="toy", input=[[1, 2]])
except openai.BadRequestError as error:
    ids = error.status_code
print(json.dumps([[list(one.embedding) for one in floats.data], refused, ids]))
"""


def test_openais_client_asks_for_embeddings():
    source = """class Toy:
    def predict(self, text: str) -> str:
        return text

    def embed(self, texts: list[str]) -> list[list[float]]:
        return [[len(text), 0.5] for text in texts]
"""
    with Served({"adapter": "pyclass", "entry": "toy_class:Toy"}, files={"toy_class.py": source}) as server:
        server.until()
        found, refused, ids = run(OPENAI, f"http://127.0.0.1:{server.port}/v1")
    assert (found, refused, ids) == ([[1, 0.5], [2, 0.5]], "model_not_found", 400)
