"""The real Envoy gets other routes while requests go on. Every failed request counts."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from gateway_site import idle, revision, table, until

from corten.core.route import RouteTable
from corten.http import run
from corten.testing.load import Load

pytestmark = pytest.mark.envoy

NEW_S = 5.0  # how long an upstream is spared


@contextlib.asynccontextmanager
async def both_serving(site, a, b):
    """A gateway that reaches both upstreams of one revision."""
    async with site.serving(table(revision(1, a, b))) as gateway:
        for address in (a.address, b.address):
            await until(gateway.routable, address)
        yield gateway


def test_a_draining_upstream_finishes_what_it_has_and_gets_nothing_new(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a))) as gateway:
            slow = asyncio.create_task(site.asked("/iris/predict?ms=3000"))

            async def taken() -> bool:
                return await gateway.in_flight(a.address) == 1

            await until(taken)
            await gateway.apply(table(revision(1, b, draining=[a])))
            assert not await gateway.routable(a.address)
            await until(gateway.routable, b.address)
            assert {(await site.asked())[2]["name"] for _ in range(8)} == {"b"}
            assert await gateway.in_flight(a.address) == 1
            assert (await slow)[2]["name"] == "a"
            await idle(gateway, a.address)

    run(story())


def test_kill_9_of_one_of_two_upstreams_fails_no_request(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with both_serving(site, a, b) as gateway:
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
        async with both_serving(site, a, b) as gateway:
            for _ in range(20):
                status, _, document = await site.asked("/iris/predict?fails=a")
                assert (status, document["name"]) == (200, "b")
            status, _, document = await site.asked("/iris/predict?fails=ab")
            assert (status, document["headers"]["x-envoy-attempt-count"]) == (500, "2")
            counted = await gateway.answers()
            assert counted[a.address].bad >= 1
            assert counted[b.address].good >= 20

    run(story())


def test_what_the_last_of_a_revision_fails_is_asked_of_the_one_that_takes_its_place(site):
    """As in the middle of a redeploy, when the well one of two was replaced first."""

    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a), revision(2, b))) as gateway:
            for address in (a.address, b.address):
                await until(gateway.routable, address)
            answers = [await site.asked("/iris/predict?fails=a") for _ in range(40)]
            assert {(status, document["name"]) for status, _, document in answers} == {(200, "b")}
            assert {headers["x-corten-revision"] for _, headers, _ in answers} == {"r1", "r2"}

    run(story())


def test_while_a_revision_is_on_trial_no_other_answers_for_it(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a), revision(2, b), on_trial=True)) as gateway:
            for address in (a.address, b.address):
                await until(gateway.routable, address)
            answers = [await site.asked("/iris/predict?fails=a") for _ in range(40)]
            assert {(status, document["name"]) for status, _, document in answers} == {(200, "b"), (500, "a")}

    run(story())


def test_kill_9_while_bodies_of_two_megabytes_are_in_flight_fails_none(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with both_serving(site, a, b):
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
        async with both_serving(site, a, b) as gateway:
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
        assert min(seconds) < 0.1, seconds  # waiting for a period of some check, all would take longer

    run(story())


def test_a_new_upstream_beside_another_gets_little_at_first_and_its_half_in_the_end(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a))) as gateway:
            await asyncio.sleep(NEW_S)  # until the first is not new itself
            await gateway.apply(table(revision(1, a, b)))
            await until(gateway.routable, b.address)
            at_first = await share_of_b(site, 1.0)
            await asyncio.sleep(NEW_S)
            assert 0 < at_first < 0.35
            assert 0.4 < await share_of_b(site, 1.0) < 0.6

    run(story())


def test_what_the_old_upstream_fails_is_answered_by_a_new_one_however_little_that_gets(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a))) as gateway:
            await asyncio.sleep(NEW_S)
            await gateway.apply(table(revision(1, a, b)))
            await until(gateway.routable, b.address)
            async with Load(site.port, "/iris/predict?fails=a&ms=100", rate_per_s=100) as load:
                await asyncio.sleep(2)
            assert load.report.failed == 0, load.report.as_dict()

    run(story())


async def share_of_b(site, for_s):
    """Of requests one after the other: how many went to the upstream `b`."""
    names, until_s = [], time.monotonic() + for_s
    while time.monotonic() < until_s:
        names.append((await site.asked())[2]["name"])
    return names.count("b") / len(names)
