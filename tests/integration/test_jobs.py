"""Answers that come later: jobs by their ids, Cog's predictions, webhooks; one process and several with one folder."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import subprocess
import threading
import time

import pytest
from served import Served

LATER = {"Prefer": "respond-async"}


def serving(folder=None, env=None, **spec):
    jobs = {"CORTEN_JOBS_DIR": str(folder)} if folder else {}
    return Served({"entry": "sleepy", **spec}, env={**jobs, **(env or {})})


@pytest.fixture(scope="module")
def server():
    with serving() as made:
        yield made.until()


def begin(server, headers=LATER, **arguments):
    status, seen, body = server.ask("POST", "/predict", json.dumps(arguments), headers)
    assert status == 202, body
    found = json.loads(body)
    assert seen["location"] == f"jobs/{found['id']}"
    assert seen["preference-applied"] == "respond-async"
    return found["id"]


def job(server, id_, *, wait_s=10):
    status, _, body = server.ask(
        "GET", f"/jobs/{id_}", headers={"Prefer": f"wait={wait_s}"} if wait_s else {}, timeout_s=20
    )
    return json.loads(body) if status == 200 else status


def test_a_job_is_answered_by_its_id_as_the_request_would_have_been(server):
    id_ = begin(server, seconds=0.3, text="hi")
    assert job(server, id_, wait_s=0)["status"] in {"starting", "processing"}
    assert server.ask("GET", f"/jobs/{id_}/result")[0] == 202
    assert job(server, id_)["status"] == "succeeded"
    status, headers, body = server.ask("GET", f"/jobs/{id_}/result")
    assert (status, headers["content-type"], body) == (200, "application/json", b'{"outputs":"hi"}')


def test_a_request_that_does_not_fit_is_refused_at_once(server):
    status, _, body = server.ask("POST", "/predict", '{"secods": 1}', LATER)
    assert (status, json.loads(body)["error"]["path"]) == (422, "secods")


def test_a_full_queue_refuses_jobs_at_once_and_says_when_to_come_back():
    with serving(limits={"queue": 1}) as server:
        server.until()
        begin(server, seconds=1.0)
        time.sleep(0.1)
        begin(server)
        status, headers, body = server.ask("POST", "/predict", "{}", {**LATER, "X-Request-Id": "mine"})
        assert (status, json.loads(body)["error"]["code"]) == (429, "serve.queue_full")
        assert int(headers["retry-after"]) >= 1
        assert headers["x-request-id"] == "mine"


def test_who_waits_a_while_gets_the_answer_itself(server):
    status, _, body = server.ask("POST", "/predict", '{"text": "a"}', {"Prefer": "respond-async, wait=10"})
    assert (status, body) == (200, b'{"outputs":"a"}')


def test_a_job_that_waits_can_be_canceled_and_forgotten(server):
    first, second = begin(server, seconds=0.6), begin(server, seconds=0.1)
    assert server.ask("POST", f"/jobs/{second}/cancel")[0] == 202
    assert job(server, second)["status"] == "canceled"
    assert server.ask("GET", f"/jobs/{second}/result")[0] == 409
    assert job(server, first)["status"] == "succeeded"
    assert server.ask("DELETE", f"/jobs/{first}")[0] == 204
    assert job(server, first) == 404


@pytest.mark.parametrize("path", ["/jobs/", "/jobs/no", "/jobs/..%2fx", "/jobs/a/b", "/jobs/x/result"])
def test_what_is_no_job_is_not_found(path, server):
    assert server.ask("GET", path)[0] == 404


def test_a_job_may_take_longer_than_anybody_waits():
    with serving(limits={"predict_timeout_s": 0.3}) as server:
        server.until()
        assert server.predict({"seconds": 0.8})[0] == 504
        time.sleep(0.6)
        assert job(server, begin(server, seconds=1.2))["status"] == "succeeded"
        assert server.ask("GET", "/livez")[0] == 200


def test_predictions_of_cog_are_told_of_by_their_ids(server):
    body = '{"input": {"text": "a", "seconds": 0.4}}'
    status, headers, answer = server.ask("PUT", "/predictions/mine", body, LATER)
    assert (status, headers["location"], json.loads(answer)["status"]) == (202, "mine", "starting")
    assert server.ask("PUT", "/predictions/mine", body, LATER)[0] == 202
    assert server.ask("PUT", "/predictions/mine", '{"input": {"text": "b"}}')[0] == 409
    status, _, answer = server.ask("PUT", "/predictions/mine", body)
    assert (status, json.loads(answer)["output"]) == (200, "a")
    assert server.ask("GET", "/predictions/mine")[2] == answer
    status, headers, answer = server.ask("POST", "/predictions", '{"input": {"seconds": 3}}', LATER)
    id_ = json.loads(answer)["id"]
    assert (status, headers["location"]) == (202, f"predictions/{id_}")
    assert server.ask("POST", f"/predictions/{id_}/cancel")[0] == 200
    assert json.loads(server.ask("GET", f"/predictions/{id_}")[2])["status"] == "canceled"


def test_jobs_are_finished_before_the_server_ends():
    with serving(env={"CORTEN_DRAIN_S": "5"}) as server:
        server.until()
        begin(server, seconds=0.7)
        server.signal()
        began_s = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - began_s > 0.4


# Several processes


def test_any_process_of_a_deployment_knows_all_of_its_jobs(tmp_path):
    with serving(tmp_path) as one, serving(tmp_path) as other:
        one.until()
        other.until()
        id_ = begin(one, seconds=0.6, text="hi")
        assert job(other, id_, wait_s=0)["status"] == "processing"
        assert job(other, id_)["status"] == "succeeded"
        assert other.ask("GET", f"/jobs/{id_}/result")[2] == b'{"outputs":"hi"}'
        # Once, whoever is asked.
        body = '{"input": {"text": "a", "seconds": 0.5}}'
        assert one.ask("PUT", "/predictions/p", body, LATER)[0] == 202
        assert other.ask("PUT", "/predictions/p", '{"input": {}}')[0] == 409
        assert json.loads(other.ask("PUT", "/predictions/p", body)[2])["output"] == "a"
        assert "corten_batch_rows_count 0" in other.ask("GET", "/metrics")[2].decode()
        # Canceled from elsewhere.
        running, waiting = begin(one, seconds=1.0), begin(one, seconds=0.1)
        assert other.ask("DELETE", f"/jobs/{waiting}")[0] == 202
        assert job(other, waiting)["status"] == "canceled"
        # Lost with its process, and said to be.
        one.process.kill()
        one.process.wait(10)
        lost = job(other, running)
        assert (lost["status"], lost["answer"]["error"]["code"]) == ("failed", "job.lost")
        assert other.ask("PUT", "/predictions/p", body)[0] == 200


# Webhooks


class Hooks(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()

    def log_message(self, *what):
        pass


@contextlib.contextmanager
def hooks(*statuses, context=None):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hooks) as made:
        made.seen, made.statuses = [], list(statuses)
        if context:
            made.socket = context.wrap_socket(made.socket, server_side=True)
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


def until(condition):
    end_s = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_a_webhook_is_told_again_until_it_takes_it():
    with hooks(200, 503, 200) as made:
        host = f"127.0.0.1:{made.server_port}"
        with serving(webhook_hosts=[host]) as server:
            server.until()
            body = json.dumps({"input": {"text": "a"}, "webhook": f"http://{host}/x?y=1"})
            id_ = json.loads(server.ask("POST", "/predictions", body, LATER)[2])["id"]
            until(lambda: len(made.seen) == 3)
            until(lambda: 'corten_webhooks_total{outcome="taken"} 2' in server.ask("GET", "/metrics")[2].decode())
    assert {one["id"] for one in made.seen} == {id_}
    # Each call says what was at its time.
    assert max((one["status"], one["output"]) for one in made.seen if one["status"] != "processing") == (
        "succeeded",
        "a",
    )


def test_a_redirect_is_not_followed_and_a_job_of_predict_is_told_with_its_answer():
    with hooks(302) as made:
        host = f"127.0.0.1:{made.server_port}"
        with serving(webhook_hosts=[host]) as server:
            server.until()
            id_ = begin(server, {**LATER, "X-Corten-Webhook": f"http://{host}/"}, text="a")
            until(lambda: 'corten_webhooks_total{outcome="given up"} 1' in server.ask("GET", "/metrics")[2].decode())
    (told,) = made.seen
    assert (told["id"], told["status"], told["answer"]) == (id_, "succeeded", {"outputs": "a"})


def test_a_certificate_of_another_name_is_not_trusted(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with hooks(context=context) as made:
        places = [f"localhost:{made.server_port}", f"127.0.0.1:{made.server_port}"]
        with serving(webhook_hosts=places, env={"SSL_CERT_FILE": str(certificate)}) as server:
            server.until()
            for place in places:
                begin(server, {**LATER, "X-Corten-Webhook": f"https://{place}/"}, text=place)
            until(lambda: made.seen)
            time.sleep(0.3)
    assert [one["answer"]["outputs"] for one in made.seen] == places[:1]


@pytest.mark.parametrize(
    "url",
    ["http://example.com/", "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest", "ftp://a/", "x"],
)
def test_callers_cannot_send_us_into_the_network(url, server):
    status, _, body = server.ask("POST", "/predict", "{}", {**LATER, "X-Corten-Webhook": url})
    assert (status, json.loads(body)["error"]["path"]) == (422, "x-corten-webhook")


@pytest.mark.bwrap
def test_a_replica_without_a_network_says_so():
    argv = ("bwrap", "--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--unshare-net", "--die-with-parent")
    with Served({"entry": "sleepy"}, unix=True, argv=argv) as server:
        server.until()
        status, _, body = server.ask("POST", "/predict", "{}", {**LATER, "X-Corten-Webhook": "https://example.com/"})
        assert (status, json.loads(body)["error"]["code"]) == (422, "webhook.no_network")
        assert begin(server)
        server.process.kill()
