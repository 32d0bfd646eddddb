"""The gateway with the real Envoy and real upstream processes. Every failed request counts."""

# ruff: noqa: ASYNC110, ASYNC240
from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from gateway_site import free_port, idle, revision, table, until

from corten.core.access import Access
from corten.core.route import DeploymentRoute, Endpoint, RevisionRoute, RouteTable
from corten.errors import EngineError
from corten.http import run
from corten.testing.load import Load

pytestmark = pytest.mark.envoy


async def gone(pid) -> bool:
    """Whether init has cleared it away: it is nobody else's child."""
    return not Path(f"/proc/{pid}").exists()


# Routing


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


# Change under load


def test_a_draining_upstream_finishes_what_it_has_and_gets_nothing_new(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a))) as gateway:
            slow = asyncio.create_task(site.asked("/iris/predict?ms=500"))

            async def taken() -> bool:
                return await gateway.in_flight(a.address) == 1

            await until(taken)
            await gateway.apply(table(revision(1, b, draining=[a])))
            assert not await gateway.routable(a.address)
            await until(gateway.routable, b.address)
            assert {(await site.asked())[2]["name"] for _ in range(20)} == {"b"}
            assert await gateway.in_flight(a.address) == 1
            assert (await slow)[2]["name"] == "a"
            await idle(gateway, a.address)

    run(story())


def test_kill_9_of_one_of_two_upstreams_fails_no_request(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a, b))) as gateway:
            for address in (a.address, b.address):
                await until(gateway.routable, address)
            async with Load(site.port, "/iris/predict?ms=20", rate_per_s=100) as load:
                await asyncio.sleep(1)
                a.kill()
                await asyncio.sleep(2)
            assert load.report.failed == 0, load.report.as_dict()
            assert load.report.ok > 250
            assert not await gateway.routable(a.address)

    run(story())


def test_what_one_upstream_fails_is_asked_of_the_other_once(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a, b))) as gateway:
            for address in (a.address, b.address):
                await until(gateway.routable, address)
            for _ in range(20):
                status, _, document = await site.asked("/iris/predict?fails=a")
                assert (status, document["name"]) == (200, "b")
            status, _, document = await site.asked("/iris/predict?fails=ab")
            assert (status, document["headers"]["x-envoy-attempt-count"]) == (500, "2")
            counted = await gateway.answers()
            assert counted[a.address].bad >= 1
            assert counted[b.address].good >= 20

    run(story())


def test_kill_9_while_bodies_of_two_megabytes_are_in_flight_fails_none(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a, b))) as gateway:
            for address in (a.address, b.address):
                await until(gateway.routable, address)
            body = b"x" * 2_000_000
            async with Load(site.port, "/iris/predict?ms=100", body, connections=8) as load:
                await asyncio.sleep(0.7)
                a.kill()
                await asyncio.sleep(0.7)
            assert load.report.failed == 0, load.report.as_dict()
            assert load.report.ok > 20

    run(story())


def test_a_large_crowd_in_flight_on_a_killed_upstream_is_answered_by_the_other(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a, b))) as gateway:
            for address in (a.address, b.address):
                await until(gateway.routable, address)
            async with Load(site.port, "/iris/predict?ms=300", connections=200) as load:
                await asyncio.sleep(1)
                assert await gateway.in_flight(a.address) > 50
                a.kill()
                await asyncio.sleep(1)
            assert load.report.failed == 0, load.report.as_dict()

    run(story())


@pytest.mark.slow
def test_twenty_rolling_swaps_under_load_fail_no_request(site):
    async def story():
        current = [site.upstream("s0"), site.upstream("s1")]
        async with site.serving(table(revision(1, *current))) as gateway:
            for upstream in current:
                await until(gateway.routable, upstream.address)
            async with Load(site.port, "/iris/predict?ms=5", connections=16, think_s=0.01) as load:
                for number in range(20):
                    new = site.upstream(f"n{number}")
                    await gateway.apply(table(revision(1, *current, new)))
                    await until(gateway.routable, new.address)
                    old = current.pop(0)
                    current.append(new)
                    await gateway.apply(table(revision(1, *current, draining=[old])))
                    await idle(gateway, old.address)
                    await gateway.apply(table(revision(1, *current)))
                    assert await asyncio.to_thread(old.terminate) == 0
            assert load.report.failed == 0, load.report.as_dict()
            assert load.report.ok > 1000

    run(story())


@pytest.mark.slow
def test_twenty_redeploys_of_a_single_replica_under_load_fail_no_request(site):
    """Each to a new revision, all in one table: routes follow, the old one goes last."""

    async def story():
        old = site.upstream("v0")
        async with site.serving(table(revision(1, old))) as gateway:
            await until(gateway.routable, old.address)
            async with Load(site.port, "/iris/predict?ms=5", connections=16, think_s=0.01) as load:
                for number in range(2, 22):
                    new = site.upstream(f"v{number}")
                    await gateway.apply(table(revision(number, new), revision(number - 1, weight=0, draining=[old])))
                    answered = await site.asked()
                    assert (answered[0], answered[1]["x-corten-revision"]) == (200, f"r{number}")
                    await idle(gateway, old.address)
                    await gateway.apply(table(revision(number, new)))
                    assert await asyncio.to_thread(old.terminate) == 0
                    old = new
            assert load.report.failed == 0, load.report.as_dict()
            assert load.report.revisions["r21"] > 0

    run(story())


def test_the_whole_traffic_moved_in_one_table_fails_no_request(site):
    """The old upstream vanishes in the same table in which the new one appears, 30 times."""

    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a))) as gateway:
            async with Load(site.port, "/iris/predict", connections=8, think_s=0.002) as load:
                for _ in range(15):
                    await gateway.apply(table(revision(2, b)))
                    await gateway.apply(table(revision(1, a)))
            assert load.report.failed == 0, load.report.as_dict()

    run(story())


def test_a_revision_that_comes_back_is_served_again(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            for _ in range(5):
                await gateway.apply(RouteTable())
                assert (await site.asked())[0] == 404
                await gateway.apply(table(revision(1, a)))
                assert (await site.asked())[0] == 200

    run(story())


def test_an_upstream_is_routable_within_moments_of_apply(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        seconds = []
        async with site.serving(table(revision(1, a))) as gateway:
            for _ in range(5):
                await asyncio.sleep(0.1)
                started_s = time.perf_counter()
                await gateway.apply(table(revision(1, a, b)))
                await until(gateway.routable, b.address)
                seconds.append(time.perf_counter() - started_s)
                await gateway.apply(table(revision(1, a)))
        assert sorted(seconds)[2] < 0.1, seconds

    run(story())


# Life of the process


def test_kill_9_of_the_gateway_starts_it_again_with_the_same_routes(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            before = gateway.pid
            os.kill(before, signal.SIGKILL)
            started_s = time.perf_counter()
            async with asyncio.timeout(5):
                while not site.restarts:
                    await asyncio.sleep(0.005)
            assert time.perf_counter() - started_s < 2
            assert gateway.pid not in (0, before)
            assert gateway.pid == site.recorded_pid
            assert (await site.asked())[0] == 200
            # And it can be changed as before.
            await gateway.apply(RouteTable())
            assert (await site.asked())[0] == 404

    run(story())


def test_the_gateway_serves_while_nobody_drives_it_and_is_adopted_without_a_failed_request(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        first = site.gateway()
        await first.start(table(revision(1, a)))
        pid = first.pid
        async with Load(site.port, "/iris/predict", rate_per_s=100) as load:
            await first.detach()
            await asyncio.sleep(1)
            second = site.gateway()
            await second.start(table(revision(1, a)))
            assert second.pid == pid
            await second.apply(table(revision(2, b)))
            await second.detach()
            # A daemon that comes back may want another table than the one in force.
            third = site.gateway()
            await third.start(table(revision(3, a)))
            assert third.pid == pid
            assert await third.routable(a.address)
        assert load.report.failed == 0, load.report.as_dict()
        assert set(load.report.revisions) == {"r1", "r2", "r3"}
        await third.stop()

    run(story())


def test_an_adopted_gateway_that_dies_is_started_again(site):
    async def story():
        a = site.upstream("a")
        first = site.gateway()
        await first.start(table(revision(1, a)))
        await first.detach()
        async with site.serving(table(revision(1, a))) as second:
            os.kill(second.pid, signal.SIGKILL)
            async with asyncio.timeout(5):
                while not site.restarts:
                    await asyncio.sleep(0.005)
            assert (await site.asked())[0] == 200

    run(story())


def test_a_gateway_that_died_while_nobody_looked_is_started_anew(site):
    async def story():
        a = site.upstream("a")
        first = site.gateway()
        await first.start(table(revision(1, a)))
        pid = first.pid
        await first.detach()
        os.kill(pid, signal.SIGKILL)
        await until(gone, pid)
        async with site.serving(table(revision(1, a))) as second:
            assert second.pid != pid
            assert (await site.asked())[0] == 200

    run(story())


def test_a_gateway_nobody_wrote_down_gives_way(site):
    async def story():
        first = site.gateway()
        await first.start(RouteTable())
        pid = first.pid
        await first.detach()
        (site.home.state / "gateway/envoy.json").unlink()
        async with site.serving(RouteTable()) as second:
            assert second.pid != pid
            await until(gone, pid)

    run(story())


def test_a_running_gateway_moves_to_another_port(site):
    async def story():
        a = site.upstream("a")
        first = site.gateway()
        await first.start(table(revision(1, a)))
        pid = first.pid
        await first.detach()
        site.port = free_port()
        async with site.serving(table(revision(1, a))) as second:
            assert second.pid == pid
            assert (await site.asked())[0] == 200

    run(story())


def test_stopping_lets_a_request_in_flight_finish_and_leaves_nothing(site):
    async def story():
        a = site.upstream("a")
        gateway = site.gateway()
        await gateway.start(table(revision(1, a)))
        pid = gateway.pid
        slow = asyncio.create_task(site.asked("/iris/predict?ms=700"))

        async def taken() -> bool:
            return await gateway.in_flight(a.address) == 1

        await until(taken)
        await gateway.stop()
        assert (await slow)[0] == 200
        await until(gone, pid)
        assert not (site.home.state / "gateway/envoy.json").exists()
        await gateway.stop()

    run(story())


def test_stopping_under_load_loses_no_request_that_was_taken(site):
    async def story():
        a = site.upstream("a")
        gateway = site.gateway()
        await gateway.start(table(revision(1, a)))
        async with Load(site.port, "/iris/predict?ms=20", connections=8) as load:
            await asyncio.sleep(0.5)
            await gateway.stop()
        # Clients come too late (the kernel resets who still waits to be accepted), but nobody is cut off.
        assert set(load.report.reasons) <= {"connect", "reset"}, load.report.as_dict()
        codes = [json.loads(line)["code"] for line in site.access_log.read_text().splitlines()]
        assert set(codes) == {200}
        assert len(codes) == load.report.ok > 50

    run(story())


def test_a_connection_without_requests_does_not_hold_up_the_stop_for_long(site):
    async def story():
        gateway = site.gateway()
        await gateway.start(RouteTable())
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        started_s = time.perf_counter()
        await gateway.stop()
        assert time.perf_counter() - started_s < 4
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    run(story())


def test_a_gateway_that_hangs_is_ended_and_started_again(site, monkeypatch):
    monkeypatch.setattr("corten.gateway.envoy._HOUSEKEEPING_S", 0.2)
    monkeypatch.setattr("corten.gateway.admin._ASK_S", 0.5)

    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            os.kill(gateway.pid, signal.SIGSTOP)
            async with asyncio.timeout(5):
                while not site.restarts:
                    await asyncio.sleep(0.005)
            assert (await site.asked())[0] == 200

    run(story())


def test_the_access_log_is_set_aside_when_it_has_grown_and_goes_on(site, monkeypatch):
    monkeypatch.setattr("corten.gateway.envoy._HOUSEKEEPING_S", 0.1)
    monkeypatch.setattr("corten.gateway.logs.LARGEST_BYTES", 2000)
    old = site.access_log.with_name("access.log.1")

    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))):
            async with asyncio.timeout(10):
                while not old.exists():
                    await site.asked()
            await site.asked("/iris/last")
            async with asyncio.timeout(5):
                while not (site.access_log.exists() and "/iris/last" in site.access_log.read_text()):
                    await asyncio.sleep(0.05)

    run(story())


def test_two_changes_at_once_end_with_the_last(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a))) as gateway:
            await asyncio.gather(*(gateway.apply(table(revision(n, a if n % 2 else b))) for n in range(2, 7)))
            assert (await site.asked())[1]["x-corten-revision"] == "r6"

    run(story())


def test_a_change_given_up_half_way_does_not_hinder_the_next(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a))) as gateway:
            async with Load(site.port, "/iris/predict", connections=4, think_s=0.002) as load:
                for number in range(2, 12):
                    change = asyncio.create_task(gateway.apply(table(revision(number, b if number % 2 else a))))
                    await asyncio.sleep(0.004 * (number % 5))
                    change.cancel()
                    await asyncio.gather(change, return_exceptions=True)
                await gateway.apply(table(revision(1, a)))
            assert load.report.failed == 0, load.report.as_dict()
            assert (await site.asked())[1]["x-corten-revision"] == "r1"

    run(story())


def test_the_gateway_dying_in_the_middle_of_a_change_only_delays_it(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a))) as gateway:
            for number in range(2, 6):
                change = asyncio.create_task(gateway.apply(table(revision(number, b))))
                await asyncio.sleep(0.002 * (number - 2))
                os.kill(gateway.pid, signal.SIGKILL)
                await change
                async with asyncio.timeout(30):
                    while site.restarts < number - 1:
                        await asyncio.sleep(0.005)
                assert (await site.asked())[1]["x-corten-revision"] == f"r{number}"

    run(story())


# Refusals


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
        first = site.gateway()
        await first.start(table(revision(1, a)))
        await first.detach()
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
