"""The gateway with the real Envoy and real upstream processes: where requests go, and what is refused."""

# ruff: noqa: ASYNC110
from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
from pathlib import Path

import pytest
from gateway_site import revision, table
from ports import free_port

from corten.core.access import Access
from corten.core.route import DeploymentRoute, Endpoint, RevisionRoute, RouteTable
from corten.errors import EngineError
from corten.http import run
from corten.testing.load import Load

pytestmark = pytest.mark.envoy


def test_path_and_host_lead_to_the_deployment(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))):
            for path, host, seen in (
                ("/iris/predict?x=1", None, "/predict"),
                ("/iris/", None, "/"),
                ("/predict", "iris.localhost", "/predict"),
                ("/iris/predict", f"iris.localhost:{site.port}", "/iris/predict"),
            ):
                status, headers, document = await site.asked(path, host=host)
                assert (status, document["name"], document["path"]) == (200, "a", seen), path
                # What the replica says of its revision does not count.
                assert headers["x-corten-revision"] == "r1"
                assert headers["x-request-id"] == document["headers"]["x-request-id"]

    run(story())


def test_a_deployment_without_its_slash_is_sent_to_where_its_relative_links_work(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))):
            connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=5)
            await asyncio.to_thread(connection.request, "GET", "/iris?x=1")
            answer = await asyncio.to_thread(connection.getresponse)
            assert answer.status == 307
            assert answer.headers["location"].endswith("/iris/?x=1")
            connection.close()

    run(story())


def test_an_upstream_on_a_port_is_routed_to(site):
    async def story():
        a = site.upstream("a", address=f"127.0.0.1:{free_port()}")
        async with site.serving(table(revision(1, a))) as gateway:
            assert await gateway.routable(a.address)
            assert (await site.asked())[2]["name"] == "a"

    run(story())


def test_an_unknown_deployment_is_404_in_json_and_lists_nothing(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))):
            for path in ("/", "/nothing/predict", "/irises/predict"):
                status, headers, document = await site.asked(path)
                assert (status, headers["content-type"]) == (404, "application/json")
                assert document["error"]["code"] == "gateway.not_found"
                assert "iris" not in json.dumps(document)

    run(story())


def test_a_body_over_the_limit_is_413_and_one_at_the_limit_passes(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a), max_body_bytes=100_000)):
            assert (await site.asked(body=b"x" * 100_000))[2]["body_bytes"] == 100_000
            status, _, document = await site.asked(body=b"x" * 100_001)
            assert (status, document["error"]["code"]) == (413, "gateway.body_too_large")

    run(story())


def test_a_deployment_without_a_ready_replica_is_503_and_says_when_to_come_back(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1))) as gateway:
            for _ in range(2):
                status, headers, document = await site.asked()
                assert (status, headers["retry-after"]) == (503, "1")
                assert document["error"]["code"] == "gateway.unavailable"
                await gateway.apply(table(revision(1, draining=[a])))

    run(story())


def test_a_dead_only_replica_is_503_in_json_without_its_address(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))):
            a.kill()
            status, headers, document = await site.asked()
            assert (status, headers["retry-after"]) == (503, "1")
            assert a.address not in json.dumps(document)

    run(story())


def test_a_prediction_over_its_time_is_504(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a), timeout_s=0.2)):
            status, _, document = await site.asked("/iris/predict?ms=2000")
            assert (status, document["error"]["code"]) == (504, "gateway.timeout")

    run(story())


def test_a_stream_may_last_as_long_as_it_does_not_pause_for_too_long(site):
    def pieces(query):
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        try:
            connection.request("POST", f"/iris/predict?{query}", b"{}")
            answer = connection.getresponse()
            seen = b""
            with contextlib.suppress(http.client.HTTPException, ConnectionError):
                while piece := answer.read1():
                    seen += piece
                return seen.count(b"1"), True
            return seen.count(b"1"), False
        finally:
            connection.close()

    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a), timeout_s=0.1)):  # a pause of 1.1 s is one too long
            assert await asyncio.to_thread(pieces, "pieces=8&ms=250") == (8, True)
            assert await asyncio.to_thread(pieces, "pieces=2&ms=4000") == (1, False)
            assert (await site.asked())[0] == 200  # nobody was put out for it

    run(story())


def test_clients_cannot_steer_the_gateway_by_headers(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a), revision(2, b, weight=0))):
            steering = {
                "x-envoy-upstream-rq-timeout-ms": "1",
                "x-envoy-original-path": "/elsewhere",
                "x-corten-revision": "r2",
                "x-corten-target": "iris/r2",
                "x-corten-cluster": "iris/r2",
            }
            status, headers, document = await site.asked("/iris/predict?ms=50", headers=steering)
            assert (status, headers["x-corten-revision"], document["name"]) == (200, "r1", "a")
            # The gateway's own word on where it sent it, whatever the client said.
            assert {k: v for k, v in document["headers"].items() if k.startswith("x-corten")} == {
                "x-corten-cluster": "iris/r1"
            }

            assert document["headers"]["x-envoy-original-path"] == "/iris/predict?ms=50"

    run(story())


def test_a_pin_by_header_reaches_a_revision_of_weight_zero_only_when_enabled(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        revisions = revision(1, a), revision(2, b, weight=0)
        async with site.serving(table(*revisions, access=Access(pinnable=True))) as gateway:
            pinned = await site.asked(headers={"x-corten-revision": "r2"})
            assert (pinned[1]["x-corten-revision"], pinned[2]["name"]) == ("r2", "b")
            assert (await site.asked())[2]["name"] == "a"
            await gateway.apply(table(*revisions))
            assert (await site.asked(headers={"x-corten-revision": "r2"}))[2]["name"] == "a"

    run(story())


def test_weights_share_the_traffic(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a, weight=3), revision(2, b, weight=1))) as gateway:
            report = await Load(site.port, "/iris/predict", connections=8).run(1.0)
            assert report.failed == 0, report.as_dict()
            share = report.revisions["r2"] / report.ok
            assert 0.15 < share < 0.35, report.revisions
            await gateway.apply(table(revision(1, a, weight=0), revision(2, b, weight=1)))
            report = await Load(site.port, "/iris/predict", connections=4).run(0.3)
            assert (set(report.revisions), report.failed) == ({"r2"}, 0)

    run(story())


def test_the_access_log_is_json_and_says_who_answered(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))):
            await site.asked("/iris/predict?x=1", headers={"x-request-id": 'mine"\r\n'.strip()})
            async with asyncio.timeout(5):
                while not site.access_log.read_text():
                    await asyncio.sleep(0.05)
        line = json.loads(site.access_log.read_text().splitlines()[0])
        assert (line["path"], line["code"], line["cluster"]) == ("/iris/predict?x=1", 200, "iris/r1")
        assert (line["upstream"], line["request_id"]) == (a.address, 'mine"')

    run(story())


def test_the_admin_page_is_the_owners_only(site):
    async def story():
        async with site.serving(RouteTable()):
            assert (site.home.run / "envoy.sock").stat().st_mode & 0o777 == 0o600
            assert (site.home.run / "xds.sock").stat().st_mode & 0o777 == 0o600

    run(story())


def test_a_configuration_envoy_refuses_is_an_error_with_its_reason_and_changes_nothing(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            bad = RouteTable((DeploymentRoute("iris", (RevisionRoute("r1", 1, (Endpoint("no-such-host:80"),)),)),))
            with pytest.raises(EngineError) as caught:
                await gateway.apply(bad)
            assert caught.value.code == "gateway.refused"
            assert "no-such-host" in caught.value.why
            assert (await site.asked())[0] == 200
            await gateway.apply(table(revision(2, a)))
            assert (await site.asked())[1]["x-corten-revision"] == "r2"

    run(story())


def test_a_taken_port_is_named_with_its_holder(site):
    async def story():
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", site.port))
            holder.listen()
            with pytest.raises(EngineError) as caught:
                await site.gateway().start(RouteTable())
        error = caught.value
        assert error.code == "gateway.port_taken"
        assert str(site.port) in error.what
        assert f"pid {os.getpid()}" in error.why
        assert "--port" in error.hint
        assert not (site.home.state / "gateway/envoy.json").exists()
        # And the port being free again, it starts.
        async with site.serving(RouteTable()):
            pass

    run(story())


def test_a_port_lost_in_the_race_is_told_from_envoys_log(site, monkeypatch):
    async def story():
        monkeypatch.setattr("corten.gateway.ports.require_free", lambda host, port: None)
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", site.port))
            holder.listen()
            with pytest.raises(EngineError) as caught:
                await site.gateway().start(RouteTable())
        assert caught.value.code == "gateway.port_taken"

    run(story())


def test_moving_to_a_taken_port_is_an_error_and_the_old_port_still_serves(site):
    async def story():
        a = site.upstream("a")
        await site.left_alone(table(revision(1, a)))
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            with pytest.raises(EngineError) as caught:
                await site.gateway(port=holder.getsockname()[1]).start(table(revision(1, a)))
        assert caught.value.code == "gateway.port_taken"
        assert (await site.asked())[0] == 200
        async with site.serving(table(revision(1, a))):
            assert (await site.asked())[0] == 200

    run(story())


def test_a_binary_that_does_not_run_is_told(site):
    async def story():
        with pytest.raises(EngineError) as caught:
            await site.gateway(binary=site.folder / "nothing").start(RouteTable())
        assert caught.value.code == "gateway.missing"
        assert "CORTEN_ENVOY" in caught.value.hint
        with pytest.raises(EngineError) as caught:
            await site.gateway(binary=Path("/bin/false")).start(RouteTable())
        assert caught.value.code == "gateway.broken"

    run(story())
