"""Requests of every protocol, broken in all kinds of ways: never a 5xx, never an answer that is not strict JSON."""

from __future__ import annotations

import json
import random
import struct

import pytest
from served import Served

TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
HEAD = json.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": 12}}]}).encode()
NPY = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }".ljust(117) + b"\n"
RAW = struct.pack("<3f", 1, 2, 3)
JSON, CSV = {"Content-Type": "application/json"}, {"Content-Type": "text/csv", "Accept": "application/x-npy"}
FORM = (
    b"".join(
        b'--b0\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n1,2,3\r\n' % part
        for part in ((b"text", b""), (b"x", b'; filename="t.csv"\r\nContent-Type: text/csv'))
    )
    + b"--b0--"
)
SEEDS = [
    ("POST", "/v2/models/toy/infer", json.dumps({"inputs": [{**TENSOR, "data": [1, 2, 3]}]}).encode(), JSON),
    ("POST", "/v2/models/toy/infer", HEAD + RAW, {"Inference-Header-Content-Length": str(len(HEAD))}),
    ("POST", "/invocations", b'{"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3]]}}', JSON),
    ("POST", "/invocations", b'{"instances": [[1, 2, 3]]}', JSON),
    ("POST", "/invocations", b"a,b,c\n1,2,3\n", CSV),
    ("POST", "/predict", b"a,b,c\n1,2,3\n", CSV),
    ("POST", "/predict", NPY + RAW, {"Content-Type": "application/x-npy"}),
    ("POST", "/predictions", b'{"input": {"x": [[1, 2, 3]]}, "id": "a"}', JSON),
    ("PUT", "/predictions/a", b'{"input": {"x": [[1, 2, 3]]}, "id": "a"}', JSON),
    ("POST", "/predict", FORM, {"Content-Type": "multipart/form-data; boundary=b0"}),
    ("POST", "/predict", b'{"text": "a"}', {"Accept": "text/event-stream", "X-Request-Timeout": "5"}),
    ("POST", "/predict", b'{"inputs": [[1, 2, 3]]}', {"Prefer": "respond-async, wait=5"}),
    ("POST", "/v1/chat/completions", b'{"messages": [{"role": "user", "content": "a"}], "model": "toy"}', JSON),
    ("POST", "/v1/embeddings", b'{"input": ["a"], "model": "toy", "encoding_format": "base64"}', JSON),
]
PIECES = [b"null", b"[]", b"{}", b'"a"', b"1e999", b"-1", b"[[[1]]]", b"\xff", b"9" * 30, b'"\\ud800"', b"true", b"NaN"]
EMBEDDER = """
class Toy:
    def predict(self, text: str = "", x: float = 1.0) -> str:
        return text

    def embed(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, 2.0] for _ in texts]

    def chat(self, messages: list[dict], seed: int = 0) -> str:
        return str(messages[0].get("content"))
"""


def broken(body, chance):
    body = bytearray(body)
    for _ in range(chance.randint(0, 3)):
        at = chance.randrange(len(body) + 1)
        match chance.randrange(3):
            case 0:
                body[at : at + chance.randint(0, 6)] = chance.choice(PIECES)
            case 1:
                body[at : at + 1] = bytes([chance.randrange(256)])
            case _:
                del body[at : at + chance.randint(1, 8)]
    return bytes(body)


@pytest.mark.parametrize(
    ("spec", "files"),
    [
        ({"entry": "double"}, {}),
        ({"entry": "any:string"}, {}),
        ({"entry": "columns:a,b,c"}, {}),
        ({"adapter": "pyclass", "entry": "toy_class:Toy"}, {"toy_class.py": EMBEDDER}),
    ],
    ids=["floats", "texts", "columns", "class"],
)
def test_broken_requests_are_refused_in_json(spec, files):
    chance = random.Random(5)
    with Served(spec, files=files) as server:
        connection = server.until().connect()
        seen = set()
        for _ in range(400):
            method, path, seed, headers = chance.choice(SEEDS)
            body = broken(seed, chance)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 500, (path, body, text)
            if "json" in answer.getheader("Content-Type"):
                json.loads(text, parse_constant=pytest.fail)
            seen.add(answer.status)
        connection.close()
    assert {200, 400} <= seen
