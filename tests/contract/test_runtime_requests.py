"""docs/runtime-contract.md, clause by clause: how requests are answered, on the real server in its own process."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import socket
import struct
import time

import pytest
from served import Served, double


def test_5_1_predictions_and_their_description():
    with double() as server:
        document = json.loads(server.until().ask("GET", "/openapi.json")[2])
        assert document["openapi"] == "3.1.0"
        assert "/predict" in document["paths"]
        assert server.ask("HEAD", "/readyz")[2] == b""


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "where"),
    [
        ("POST", "/predict", b"{", {}, 400, ""),
        ("POST", "/predict", b'{"inputs":[[1,2,NaN]]}', {}, 400, ""),
        ("GET", "/nowhere", None, {}, 404, ""),
        ("GET", "/predict", None, {}, 405, ""),
        ("POST", "/livez", b"", {}, 405, ""),
        ("POST", "/predict", b'{"inputs":[[' + b"1," * 600 + b"1]]}", {}, 413, ""),
        ("POST", "/predict", b"x", {"Content-Type": "application/octet-stream"}, 415, ""),
        ("POST", "/predict", b"{}", {"Content-Encoding": "gzip"}, 415, ""),
        ("POST", "/predict", b'{"inputs":[[1,2,3],[1,2,"3"]]}', {}, 422, "inputs[1][2]"),
        ("POST", "/predict", b'{"inputs":[[13,2,3]]}', {}, 500, ""),
    ],
    ids=lambda value: value.decode()[:20] if isinstance(value, bytes) else str(value),
)
def test_5_2_errors_are_json_and_have_their_status(unlucky, method, path, body, headers, status, where):  # noqa: PLR0917
    got, answer_headers, answer = unlucky.ask(method, path, body, headers)
    error = json.loads(answer)["error"]
    assert (got, error["path"]) == (status, where)
    assert error["code"]
    assert error["message"]
    assert answer_headers["content-type"] == "application/json"
    if status == 500:
        assert error["message"] == "thirteen"
        logged = next(line for line in unlucky.log if line.get("request_id") == answer_headers["x-request-id"])
        assert logged["error"]["type"] == "RuntimeError"
        assert "Traceback" not in answer.decode()


@pytest.fixture(scope="module")
def unlucky():
    with Served({"entry": "unlucky", "limits": {"max_body_bytes": 1000}}) as server:
        yield server.until()


def test_5_3_answers_are_strict_json_and_exact():
    with Served({"entry": "any:float64"}) as server:
        numbers = [0.1, 1e308, -0.0, 5e-324, 123456789.123456789]
        status, answer = server.until().predict({"inputs": [[number, None] for number in numbers]})
        assert (status, answer["outputs"]) == (200, [[number, None] for number in numbers])
    with Served({"entry": "any:int64"}) as server:
        assert (
            b"[[9223372036854775807,-1]]"
            in server.until().ask("POST", "/predict", b'{"inputs":[[9223372036854775807,-1]]}')[2]
        )


def test_5_4_null_is_a_missing_value():
    with double() as server:
        assert server.until().predict({"inputs": [[None, 1, 2]]}) == (200, {"outputs": [[None, 2, 4]]})


def test_5_5_request_ids_come_back_and_are_logged():
    with Served({"entry": "touchy"}, env={"CORTEN_ACCESS_LOG": "1"}) as server:
        headers = {
            "X-Request-Id": "abc-1",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        }
        assert server.until().ask("POST", "/predict", b'{"x":1}', headers)[1]["x-request-id"] == "abc-1"
        (line,) = server.logged("answered 200")
        assert line["request_id"] == "abc-1"
        assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
        evil = {"X-Request-Id": "x" * 500}
        assert "x-request-id" not in server.ask("POST", "/predict", b'{"x":1}', evil)[1]


def test_5_6_it_speaks_the_open_inference_protocol():
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
    with double(env={"CORTEN_REVISION": "r7"}) as server:
        server.until("/v2/health/ready")
        assert json.loads(server.ask("GET", "/v2/models/toy")[2])["inputs"] == [{**tensor, "shape": [-1, 3]}]
        assert json.loads(server.ask("GET", "/v2/models/toy/versions/r7/ready")[2]) == {"name": "toy", "ready": True}
        body = json.dumps({"inputs": [{**tensor, "data": [1, 2, 3]}]})
        status, _, answer = server.ask("POST", "/v2/models/toy/infer", body)
        assert (status, json.loads(answer)["outputs"][0]["data"]) == (200, [2, 4, 6])
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 12}}]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        raw = struct.pack("<3f", 1, 2, 3)
        assert server.ask("POST", "/v2/models/toy/infer", head + raw, headers)[0] == 200
        status, _, answer = server.ask("POST", "/v2/models/toy/infer", head + raw[1:], headers)
        assert (status, json.loads(answer).keys()) == (400, {"error"})
        assert isinstance(json.loads(server.ask("GET", "/v2/models/other")[2])["error"], str)
        assert server.ask("GET", "/v2/models/toy/infer")[0] == 405


@pytest.mark.parametrize(
    "asked",
    [
        {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3]]}},
        {"dataframe_records": [{"a": 1, "b": 2, "c": 3}]},
        {"instances": [[1, 2, 3]]},
        {"inputs": [[1, 2, 3]]},
        {"inputs": {"x": [[1, 2, 3]]}},
    ],
    ids=["split", "records", "instances", "rows", "inputs"],
)
def test_5_6_it_answers_mlflows_requests(asked):
    with double() as server:
        server.until("/ping")
        status, _, answer = server.ask("POST", "/invocations", json.dumps(asked))
        assert (status, json.loads(answer)) == (200, {"predictions": [[2, 4, 6]]})


def test_5_6_it_answers_mlflows_tables_and_tells_errors_its_way():
    csv = {"Content-Type": "text/csv; charset=utf-8"}
    with Served({"entry": "touchy"}) as server:
        server.until()
        status, _, answer = server.ask("POST", "/invocations", "x,text\n1,a\nq,b\n", csv)
        assert (status, json.loads(answer)) == (200, {"predictions": [1, "q"]})
        both = {"instances": [{"x": 1}], "params": {"text": "b"}}
        assert server.ask("POST", "/invocations", json.dumps(both))[0] == 200
        for body, message in {
            '{"instances": [{"x": 1}, {"x": "input"}]}': "instances[1].x: x is not that",
            '{"instances": [{"z": 1}]}': "instances[0].z: unknown parameter; known: text, x",
            "{}": "expected one of dataframe_split, dataframe_records, instances, inputs",
        }.items():
            status, _, answer = server.ask("POST", "/invocations", body)
            assert (status, json.loads(answer)) == (400, {"error_code": "BAD_REQUEST", "message": message})
        assert server.ask("POST", "/invocations", '{"instances": [{"x": "raise"}]}')[0] == 500
        assert server.ask("POST", "/invocations", b"\x93NUMPY", {"Content-Type": "image/png"})[0] == 415


def test_5_6_it_answers_cogs_predictions():
    with double(env={"CORTEN_REVISION": "r7"}) as server:
        server.until()
        assert json.loads(server.ask("GET", "/health-check")[2])["status"] == "READY"
        status, _, answer = server.ask("POST", "/predictions", '{"input": {"x": [[1, 2, 3]]}, "id": "a"}')
        found = json.loads(answer)
        assert (status, found["status"], found["output"]) == (200, "succeeded", [[2, 4, 6]])
        assert (found["id"], found["version"]) == ("a", "r7")
        status, _, answer = server.ask("POST", "/predictions", '{"input": {"x": [[1, 2, "a"]]}}')
        assert (status, json.loads(answer)["detail"][0]["loc"]) == (422, ["body", "input", "x", 0, 2])
    with Served({"entry": "touchy"}) as server:
        server.until()
        status, _, answer = server.ask("POST", "/predictions", '{"input": {"x": "raise"}}')
        assert (status, json.loads(answer)["status"]) == (500, "failed")
        status, _, answer = server.ask("POST", "/predictions", '{"input": {"x": "input"}}')
        assert (status, json.loads(answer)["detail"][0]["loc"]) == (422, ["body", "input", "x"])
        hook = '{"input": {}, "webhook": "http://127.0.0.1:1"}'
        assert server.ask("POST", "/predictions", hook)[0] == 422


def test_5_6_a_prediction_put_twice_is_made_once():
    body = '{"input": {"seconds": 0.3, "text": "a"}}'
    with Served({"entry": "sleepy"}) as server, concurrent.futures.ThreadPoolExecutor(3) as pool:
        server.until()
        asked = [pool.submit(server.ask, "PUT", "/predictions/one", body) for _ in range(2)]
        time.sleep(0.1)
        assert server.ask("PUT", "/predictions/one", '{"input": {"text": "b"}}')[0] == 409
        answers = [one.result()[2] for one in asked]
        assert answers[0] == answers[1]
        assert server.ask("PUT", "/predictions/one", body)[2] == answers[0]
        assert "corten_batch_rows_count 1\n" in server.ask("GET", "/metrics")[2].decode()
        assert json.loads(server.ask("PUT", "/predictions/one", '{"input": {"text": "b"}}')[2])["output"] == "b"
        assert json.loads(server.ask("GET", "/predictions/one")[2])["output"] == "b"
        assert server.ask("GET", "/predictions/two")[0] == 404


def test_5_6_the_first_to_put_a_prediction_may_leave_the_second():
    with Served({"entry": "sleepy"}) as server, concurrent.futures.ThreadPoolExecutor(3) as pool:
        server.until()
        busy = pool.submit(server.predict, {"seconds": 0.5})
        time.sleep(0.1)
        body = '{"input": {"text": "a"}}'
        first = server.connect()
        first.request("PUT", "/predictions/one", body)
        time.sleep(0.1)
        second = pool.submit(server.ask, "PUT", "/predictions/one", body)
        time.sleep(0.1)
        first.close()
        assert second.result()[0] == 200
        assert busy.result()[0] == 200


EMBEDDER = """
class Toy:
    def predict(self, text: str) -> int:
        return len(text)

    def embed(self, texts: list[str]) -> list[list[float]]:
        return [[len(text), 0.5] for text in texts]
"""


def test_5_6_a_class_with_embed_answers_openais_embeddings():
    with Served({"adapter": "pyclass", "entry": "toy_class:Toy"}, files={"toy_class.py": EMBEDDER}) as server:
        server.until()
        status, _, answer = server.ask("POST", "/v1/embeddings", '{"input": ["a", "bc"], "model": "toy"}')
        assert status == 200
        assert [one["embedding"] for one in json.loads(answer)["data"]] == [[1, 0.5], [2, 0.5]]
        assert json.loads(server.ask("GET", "/v1/models")[2])["data"][0]["id"] == "toy"
        assert "/v1/embeddings" in json.loads(server.ask("GET", "/openapi.json")[2])["paths"]
        for body, code in {'{"input": "a", "model": "gpt"}': 404, '{"input": [], "model": "toy"}': 400}.items():
            status, _, answer = server.ask("POST", "/v1/embeddings", body)
            assert (status, json.loads(answer)["error"]["type"]) == (code, "invalid_request_error")
    with double() as server:
        assert server.until().ask("POST", "/v1/embeddings", '{"input": "a", "model": "toy"}')[0] == 404


def test_5_7_tables_and_arrays_are_taken_and_given():
    array = (
        b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }".ljust(117) + b"\n"
    )
    with double() as server:
        server.until()
        headers = {"Content-Type": "text/csv", "Accept": "text/csv"}
        assert server.ask("POST", "/predict", "1,2,3\n", headers)[2] == b"y_0,y_1,y_2\r\n2.0,4.0,6.0\r\n"
        headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
        status, found, answer = server.ask("POST", "/predict", array + struct.pack("<3f", 1, 2, 3), headers)
        assert (status, found["content-type"]) == (200, "application/x-npy")
        assert answer == array + struct.pack("<3f", 2, 4, 6)
        assert server.ask("POST", "/predict", array, headers)[0] == 400
        assert server.ask("POST", "/predict", "a", {"Content-Type": "image/png"})[0] == 415


def test_5_9_a_model_that_yields_answers_piece_by_piece():
    source = "class Steps:\n    def predict(self, n: int):\n        yield from range(n)\n"
    with Served({"adapter": "pyclass", "entry": "steps:Steps"}, files={"steps.py": source}) as server:
        server.until()
        seen = {
            accept: server.ask("POST", "/predict", b'{"n": 2}', {"Accept": accept})[2]
            for accept in ("*/*", "text/event-stream", "application/json")
        }
    assert seen == {
        "*/*": b"0\n1\n",
        "text/event-stream": b"data: 0\n\ndata: 1\n\nevent: end\ndata: {}\n\n",
        "application/json": b'{"outputs":[0,1]}',
    }


@pytest.mark.clients
def test_5_10_the_same_tensors_are_taken_over_grpc():
    grpc = pytest.importorskip("grpc")
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    with Served({"entry": "double", "grpc": True}, unix=True) as server:
        server.until()
        with grpc.insecure_channel(f"unix:{server.socket.with_name('g')}") as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            message = service_pb2.ModelInferRequest(model_name="toy")
            message.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend([1, 2, 3])
            assert stub.ModelInfer(message, timeout=10).raw_output_contents == [struct.pack("<3f", 2, 4, 6)]


def test_5_11_a_caller_says_how_long_it_waits():
    with Served({"entry": "sleepy"}) as server:
        server.until()
        status, answer = server.predict({"seconds": 0.6}, headers={"X-Request-Timeout": "0.1"})
        assert (status, answer["error"]["code"]) == (504, "model.timeout")
        for wrong in ("soon", "0", "-1", "nan"):
            status, answer = server.predict({}, headers={"X-Request-Timeout": wrong})
            assert (status, answer["error"]["code"]) == (400, "request.bad_timeout"), wrong


def test_5_12_a_job_is_answered_under_its_id():
    with Served({"entry": "sleepy"}) as server:
        server.until()
        status, headers, _ = server.ask("POST", "/predict", b'{"text": "a"}', {"Prefer": "respond-async"})
        assert status == 202
        place = "/" + headers["location"]
        assert json.loads(server.ask("GET", place, headers={"Prefer": "wait=10"})[2])["status"] == "succeeded"
        assert server.ask("GET", f"{place}/result")[2] == b'{"outputs":"a"}'


def test_5_8_browsers_get_pages_and_programs_json():
    with double() as server:
        server.until()
        assert json.loads(server.ask("GET", "/")[2])["name"] == "toy"
        for path, accept in {"/": "text/html,application/xhtml+xml,*/*;q=0.8", "/docs": "*/*"}.items():
            status, headers, page = server.ask("GET", path, headers={"Accept": accept})
            assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            # Below a prefix of the gateway only relative addresses lead back to this server.
            addresses = re.findall(rb'(?:href|src)="([^"]*)"', page)
            assert addresses
            assert not [address for address in addresses if address.startswith(b"/") or b"//" in address]
        assert server.ask("GET", "/assets/corten.js")[1]["content-type"] == "text/javascript; charset=utf-8"
        assert server.ask("GET", "/assets/../app.py")[0] == 404


def test_6_1_concurrent_requests_share_calls_and_fail_alone():
    with Served({"entry": "touchy", "limits": {"queue": 200}}) as server:
        server.until()
        asked = ["ok", "raise", "input", "exit", "object"] * 20
        with concurrent.futures.ThreadPoolExecutor(25) as pool:
            answers = list(pool.map(lambda what: server.predict({"x": what}), asked))
        wanted = {"ok": 200, "raise": 500, "input": 422, "exit": 500, "object": 500}
        assert [status for status, _ in answers] == [wanted[what] for what in asked]
        assert answers[2][1]["error"] == {"code": "request.invalid", "message": "x is not that", "path": "x"}


def test_6_2_a_model_of_calls_stays_in_its_thread():
    with Served({"entry": "where"}) as server:
        server.until()
        assert {server.predict({})[1]["outputs"] for _ in range(50)} == {"corten-model"}


def test_6_3_several_processes_answer_as_one():
    with Served({"entry": "identity", "workers": 2}, env={"CORTEN_THREADS": "1"}) as server:
        server.until()
        assert len({server.predict({})[1]["outputs"][0] for _ in range(8)}) == 2
        assert server.logged("ready")[0]["shared"]
        server.signal()
        assert server.end() == 0


def test_10_1_bodies_and_headers_are_bounded():
    with Served({"entry": "double", "limits": {"max_body_bytes": 1000}}) as server:
        server.until()
        assert server.ask("POST", "/predict", b"x" * 1001)[0] == 413
        assert server.ask("GET", "/livez", headers={"X": "a" * 40_000})[0] == 431
        assert server.ask("GET", "/livez", headers={f"X-{i}": "a" for i in range(101)})[0] == 431


def test_10_2_the_queue_is_bounded_and_says_when_to_come_back():
    with Served({"entry": "sleepy", "limits": {"queue": 2}, "batching": {"max_rows": 1}}) as server:
        server.until()
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            asked = [pool.submit(server.ask, "POST", "/predict", b'{"seconds":0.3}') for _ in range(10)]
            answers = [one.result() for one in asked]
        statuses = [status for status, _, _ in answers]
        assert statuses.count(200) >= 3
        refused = [headers for status, headers, _ in answers if status == 429]
        assert refused
        assert all(int(headers["retry-after"]) >= 1 for headers in refused)
        assert set(statuses) == {200, 429}


def test_10_3_who_leaves_gives_up_what_waits_and_who_only_stops_sending_is_answered():
    ask = b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n{"seconds":0.5}'
    with Served({"entry": "sleepy"}) as server:
        server.until()
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 5)) for _ in range(2)]
            for sock in socks:
                sock.sendall(ask)
                time.sleep(0.1)
                sock.shutdown(socket.SHUT_WR)
            first, second = (b"".join(iter(lambda sock=sock: sock.recv(4096), b"")) for sock in socks)
        assert first.startswith(b"HTTP/1.1 200 ")
        assert second.startswith(b"HTTP/1.1 408 ")
        assert b'corten_requests_total{code="499"} 1\n' in server.ask("GET", "/metrics")[2]


def test_10_4_what_could_be_read_in_two_ways_ends_the_connection():
    with double() as server, socket.create_connection(("127.0.0.1", server.until().port), timeout=5) as sock:
        sock.sendall(
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nGET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := sock.recv(4096):
                received += piece
        assert received.startswith(b"HTTP/1.1 400 ")
        assert received.count(b"HTTP/1.1 ") == 1
