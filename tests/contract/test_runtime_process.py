"""docs/runtime-contract.md, clause by clause: how the process lives, on the real server."""

from __future__ import annotations

import concurrent.futures
import json
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from served import ROWS, Served, double

ROOT = Path(__file__).parents[2]


def test_every_clause_of_the_contract_has_its_test():
    clauses = set(re.findall(r"^- \*\*(\d+\.\d+)\*\*", (ROOT / "docs/runtime-contract.md").read_text(), re.MULTILINE))
    texts = "".join(path.read_text() for path in Path(__file__).parent.glob("test_runtime_*.py"))
    tests = re.findall(r"^def test_(\d+)_(\d+)_", texts, re.MULTILINE)
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
