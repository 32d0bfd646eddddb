"""The life of the real Envoy: killed, hung, left alone, adopted, stopped. Every failed request counts."""

# ruff: noqa: ASYNC110, ASYNC240
from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from gateway_site import revision, table, until
from ports import free_port

from corten.core.route import RouteTable
from corten.http import run
from corten.testing.load import Load

pytestmark = pytest.mark.envoy


async def gone(pid) -> bool:
    """Whether init has cleared it away: it is nobody else's child."""
    return not Path(f"/proc/{pid}").exists()


def test_kill_9_of_the_gateway_starts_it_again_with_the_same_routes(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            before = gateway.pid
            os.kill(before, signal.SIGKILL)
            async with asyncio.timeout(5):
                while not site.restarts:
                    await asyncio.sleep(0.005)
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
        await site.left_alone(table(revision(1, a)))
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
        pid = await site.left_alone(table(revision(1, a)))
        os.kill(pid, signal.SIGKILL)
        await until(gone, pid)
        async with site.serving(table(revision(1, a))) as second:
            assert second.pid != pid
            assert (await site.asked())[0] == 200

    run(story())


def test_a_gateway_nobody_wrote_down_gives_way(site):
    async def story():
        pid = await site.left_alone(RouteTable())
        (site.home.state / "gateway/envoy.json").unlink()
        async with site.serving(RouteTable()) as second:
            assert second.pid != pid
            await until(gone, pid)

    run(story())


def test_a_running_gateway_moves_to_another_port(site):
    async def story():
        a = site.upstream("a")
        pid = await site.left_alone(table(revision(1, a)))
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
        assert len(codes) == load.report.ok > 10

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


def test_a_gateway_that_is_stopped_by_a_signal_is_replaced_in_a_moment(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            os.kill(gateway.pid, signal.SIGSTOP)
            began_s = time.monotonic()
            async with asyncio.timeout(15):
                while not site.restarts:
                    await asyncio.sleep(0.005)
            assert time.monotonic() - began_s < 5
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
