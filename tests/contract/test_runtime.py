"""docs/runtime-contract.md, clause by clause, on the real server in its own process."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from served import Served

ROOT = Path(__file__).parents[2]
ROWS = {"inputs": [[1, 2, 3]]}


def double(**options):
    return Served({"entry": "double"}, **options)


def test_every_clause_of_the_contract_has_its_test():
    clauses = set(re.findall(r"^- \*\*(\d+\.\d+)\*\*", (ROOT / "docs/runtime-contract.md").read_text(), re.MULTILINE))
    tests = re.findall(r"^def test_(\d+)_(\d+)_", Path(__file__).read_text(), re.MULTILINE)
    assert {f"{chapter}.{clause}" for chapter, clause in tests} == clauses


def test_1_1_it_listens_where_it_is_told():
    with double() as server:
        assert server.until().predict(ROWS) == (200, {"outputs": [[2, 4, 6]]})
    with double(unix=True) as server:
        assert server.until().predict(ROWS) == (200, {"outputs": [[2, 4, 6]]})


def test_1_2_it_is_alive_before_the_model_is_loaded():
    with Served({"entry": "load-slowly:30"}) as server:
        server.until("/livez", timeout_s=5)
        assert server.ask("GET", "/readyz")[0] == 503
        assert server.predict(ROWS)[0] == 503


def test_1_3_a_unix_socket_replaces_a_dead_one_spares_a_living_one_and_goes_at_the_end():
    with double(unix=True) as server:
        server.until()
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o666
        with double(env={"CORTEN_LISTEN": f"unix:{server.socket}"}) as second:
            assert second.end() == 2
            assert "someone listens" in second.log[-1]["message"]
        server.process.kill()
        server.process.wait()
        assert server.socket.exists()
        with double(env={"CORTEN_LISTEN": f"unix:{server.socket}"}) as third:
            third.socket, third.port = server.socket, 0
            third.until()
            third.signal()
            assert third.end() == 0
        assert not server.socket.exists()


def test_2_1_its_folders_are_where_it_is_told():
    with Served({"entry": "load-never"}) as server:
        assert server.end() == 1
        assert str(server.app.parent / "models") in server.log[-1]["error"]["message"]


def test_2_2_it_says_who_it_is():
    env = {"CORTEN_DEPLOYMENT": "iris", "CORTEN_REVISION": "r7", "CORTEN_REPLICA": "iris-r7-abc"}
    with double(env=env) as server:
        status, headers, body = server.until().ask("GET", "/")
        assert status == 200
        assert headers["x-corten-revision"] == "r7"
        info = json.loads(body)
        assert (info["name"], info["deployment"], info["replica"]) == ("toy", "iris", "iris-r7-abc")
        assert server.ask("GET", "/nowhere")[1]["x-corten-revision"] == "r7"
        assert all(line["replica"] == "iris-r7-abc" for line in server.log)


def test_2_3_successful_answers_are_logged_by_share():
    with double(env={"CORTEN_ACCESS_LOG": "0.5"}) as server:
        server.until()
        for _ in range(10):
            server.predict(ROWS)
        assert len(server.logged("answered 200", 5)) == 5
    with double(env={"CORTEN_LOG_LEVEL": "error"}) as server:
        server.until()
        assert server.log == []


@pytest.mark.parametrize("env", [{"CORTEN_DRAIN_S": "soon"}, {"CORTEN_LISTEN": "somewhere"}], ids=str)
def test_2_4_a_wrong_variable_is_told_and_ends_the_process(env):
    with double(env=env) as server:
        assert server.end() == 2
        (name, text) = next(iter(env.items()))
        assert text in json.dumps(server.log[-1])
        assert server.log[-1]["level"] == "critical"
        del name


def test_2_5_it_tells_what_it_loaded():
    with double(unix=True, env={"CORTEN_TRACE_IMPORTS": "loaded"}) as server:
        listed = Path(server.socket).with_name("loaded")
        server.until()
        assert "/numpy/__init__.py" in listed.read_text()
        listed.unlink()
        server.signal()
        assert server.end() == 0
        loaded = listed.read_text().splitlines()
        assert any(name.endswith("/numpy/__init__.py") for name in loaded)
        assert any("/msgspec/_core." in name and ".so" in name for name in loaded)
        assert loaded == sorted(set(loaded))
    with double(unix=True, env={"CORTEN_TRACE_IMPORTS": "../loaded"}) as server:
        assert server.end() == 2


@pytest.mark.clients
def test_2_6_grpc_is_answered_beside_the_unix_socket():
    grpc = pytest.importorskip("grpc")
    with Served({"entry": "double", "grpc": True}, unix=True) as server:
        server.until()
        beside = server.socket.with_name("g")
        assert beside.stat().st_mode & 0o777 == 0o666
        with grpc.insecure_channel(f"unix:{beside}") as channel:
            assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"


def test_2_7_jobs_are_kept_where_it_is_told(tmp_path):
    hosts = {"CORTEN_JOBS_DIR": str(tmp_path), "CORTEN_WEBHOOK_HOSTS": "hooks.invalid, 127.0.0.1:1"}
    with Served({"entry": "sleepy"}, env=hosts) as server:
        server.until()
        for url, status in (("http://127.0.0.1:1/", 202), ("http://127.0.0.1:2/", 422)):
            headers = {"Prefer": "respond-async", "X-Corten-Webhook": url}
            assert server.ask("POST", "/predict", b"{}", headers)[0] == status
        assert len(list(tmp_path.glob("[!.]*.job"))) == 1


def test_2_8_a_secret_is_read_by_the_model_alone(tmp_path):
    (tmp_path / "KEY").write_text("canary-7f3a")
    with Served({"entry": "secretive"}, env={"KEY_FILE": str(tmp_path / "KEY")}) as server:
        server.until()
        status, _, body = server.ask("POST", "/predict", b"{}")
        assert (status, json.loads(body)) == (200, {"outputs": 11})
        assert "canary-7f3a" not in json.dumps(server.log)
        for path in ("/", "/openapi.json", "/metrics"):
            assert b"canary-7f3a" not in server.ask("GET", path)[2]


# The image's folder is there when temporary files are in memory (`dev.py check`).
SEEN = ["--ro-bind-try", "/dev/shm", "/dev/shm"]


@pytest.mark.bwrap
def test_3_1_it_needs_nothing_it_could_write_to():
    bwrap = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", *SEEN, "--proc", "/proc", "--die-with-parent"]
    with double(argv=bwrap, env={"TMPDIR": "/nonexistent-and-not-writable"}) as server:
        assert server.until().predict(ROWS)[0] == 200


@pytest.mark.bwrap
def test_3_2_it_needs_no_privilege():
    bwrap = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", *SEEN, "--proc", "/proc", "--die-with-parent"]
    bwrap += ["--unshare-user", "--uid", "65532", "--gid", "65532", "--cap-drop", "ALL"]
    with double(argv=bwrap) as server:
        assert server.until().predict(ROWS)[0] == 200


def test_3_3_a_file_of_the_user_does_not_replace_the_standard_library():
    bomb = "raise SystemExit('shadowed')"
    with double(files={"json.py": bomb, "asyncio.py": bomb, "msgspec.py": bomb, "numpy.py": bomb}) as server:
        assert server.until().predict(ROWS)[0] == 200


def test_4_1_a_model_that_does_not_come_back_is_told_by_livez():
    with Served({"entry": "sleepy", "limits": {"predict_timeout_s": 0.3}}) as server:
        server.until()
        assert server.predict({"seconds": 20})[0] == 504
        assert server.ask("GET", "/livez")[0] == 200
        server.until("/livez", 503)
        assert json.loads(server.ask("GET", "/livez")[2])["error"]["code"] == "serve.stuck"
        server.signal()
        assert server.end(timeout_s=5) == 0, "a stuck model does not keep the process"


def test_4_2_readiness_says_why_not():
    with Served({"entry": "load-slowly:0.5"}) as server:
        server.until("/livez")
        assert json.loads(server.ask("GET", "/readyz")[2])["error"]["code"] == "serve.loading"
        server.until()
    with Served({"entry": "sleepy"}) as server:
        server.until()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            slow = pool.submit(server.predict, {"seconds": 1.5})
            time.sleep(0.3)
            idle = server.connect()
            idle.connect()
            server.signal()
            time.sleep(0.2)
            idle.request("GET", "/readyz")
            answer = idle.getresponse()
            assert (answer.status, json.loads(answer.read())["error"]["code"]) == (503, "serve.draining")
            idle.close()
            assert slow.result()[0] == 200
        assert server.end() == 0


@pytest.mark.parametrize(
    ("outputs", "tolerance", "ready"),
    [([[2, 4, 6]], 1e-5, True), ([[2, 4, 6.001]], 1e-2, True), ([[2, 4, 6.001]], 1e-5, False), (None, 0, True)],
)
def test_4_3_ready_means_that_it_answers_as_recorded(outputs, tolerance, ready):
    example = {"inputs": ROWS, "outputs": outputs, "tolerance": tolerance}
    with Served({"entry": "double", "example": example}) as server:
        if ready:
            server.until()
        else:
            assert server.end() == 1
            assert server.log[-1]["where"] == "outputs[0][2]"


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_7_1_it_finishes_what_it_has_and_ends_with_0(number):
    with Served({"entry": "sleepy"}) as server:
        server.until()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            slow = [pool.submit(server.ask, "POST", "/predict", b'{"seconds":0.1,"text":"a"}') for _ in range(8)]
            time.sleep(0.15)
            server.signal(number)
            for answer in slow:
                status, headers, body = answer.result()
                assert (status, json.loads(body)) == (200, {"outputs": "a"})
                assert headers.get("connection", "close") == "close"
        assert server.end() == 0
        assert server.log[-1]["message"] == "stopped"


def test_7_1_it_ends_at_once_while_the_model_still_loads():
    with Served({"entry": "load-slowly:30"}) as server:
        server.until("/livez")
        server.signal()
        assert server.end(timeout_s=5) == 0


def test_7_2_a_second_signal_ends_it_at_once():
    with Served({"entry": "sleepy"}) as server:
        server.until()
        connection = server.connect()
        connection.request("POST", "/predict", b'{"seconds":20}')
        time.sleep(0.2)
        server.signal()
        time.sleep(0.2)
        server.signal()
        assert server.end(timeout_s=2) == 143
        connection.close()


def test_7_3_what_takes_longer_than_the_drain_time_is_cut():
    with Served({"entry": "sleepy"}, env={"CORTEN_DRAIN_S": "0.5"}) as server:
        server.until()
        connection = server.connect()
        connection.request("POST", "/predict", b'{"seconds":20}')
        time.sleep(0.2)
        server.signal()
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (503, "serve.draining")
        assert server.end(timeout_s=5) == 3
        connection.close()


def test_9_1_logs_are_lines_of_json_that_requests_cannot_break():
    with Served({"entry": "touchy"}, env={"CORTEN_ACCESS_LOG": "1"}) as server:
        server.until()
        server.predict({"x": "raise", "text": '\n{"level":"info"}\u2028\x1b[2J'})
        server.ask("POST", "/predict", b'{"x":"raise"}', {"X-Request-Id": 'a"b\\c'})
        server.ask("POST", "/predict", b'{"x":"only in the request"}')
        for line in server.log:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
            assert {"level", "logger", "message"} <= set(line)
        text = server.log_path.read_text()
        assert "\x1b" not in text
        assert "only in the request" not in text


def test_9_2_a_failed_start_is_told_in_one_line():
    with Served({"entry": "load-never"}) as server:
        assert server.end() == 1
        line = server.log[-1]
        assert line["error"]["type"] == "OSError"
        assert "no weights" in line["error"]["message"]
        assert "toy_adapter.py" in line["error"]["traceback"][-1]
    with Served({"entry": "double", "example": {"inputs": ROWS, "outputs": [[2, 4, 7]]}}) as server:
        assert server.end() == 1
        assert "expected 7, got 6.0" in server.log[-1]["why"]
    with Served({"entry": "load-exit"}) as server:
        assert server.end() == 1
        assert server.log[-1]["error"]["type"] == "SystemExit"


def test_9_3_stdout_is_the_models():
    with Served({"entry": "print"}, env={"PYTHONUNBUFFERED": "1"}) as server:
        server.until().predict(ROWS)
        assert server.out_path.read_text() == "from the model\n"


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


def test_the_server_brings_nothing_of_the_builder_into_the_image():
    code = (
        "import sys, corten.serve.app;"
        "print(*sorted(n for n in sys.modules if n.startswith('corten.') or n in ('numpy', 'asyncio', 'ssl')))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    ).stdout.split()
    packages = {name.split(".")[1] for name in loaded if name.startswith("corten.")}
    assert packages <= {"adapters", "core", "errors", "http", "observe", "plugin", "serve"}
    assert "numpy" not in loaded


def test_metrics_are_exposed_and_documented():
    with Served({"entry": "touchy"}) as server:
        server.until()
        server.predict({"x": 1})
        server.predict({"x": "raise"})
        server.ask("POST", "/predict", b"{")
        text = server.ask("GET", "/metrics")[2].decode()
    with Served({"entry": "double"}) as server:  # a model of rows tells of its features, too
        server.until()
        server.predict({"inputs": [[1, 2, 3]]})
        text += server.ask("GET", "/metrics")[2].decode()
        assert json.loads(server.ask("GET", "/drift")[2])["output"]["y[2]"]["mean"] == 6
    for code in (200, 400, 500):
        assert f'corten_requests_total{{code="{code}"}} 1\n' in text
    names = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    documented = set(re.findall(r"`((?:corten|process)_\w+)`", (ROOT / "docs/reference/metrics.md").read_text()))
    assert names == documented
