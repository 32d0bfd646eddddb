"""A planned restart of the gateway, with the real Envoy: nothing is lost, nothing is left."""

# ruff: noqa: ASYNC110, ASYNC240
import asyncio
import http.client
import json
import os
import re
import signal
from pathlib import Path

import pytest
from gateway_site import revision, table, until

from corten.errors import EngineError
from corten.gateway import envoy, hot
from corten.gateway.process import find_binary
from corten.http import run
from corten.testing.load import Load

pytestmark = pytest.mark.envoy

needs_shared_memory = pytest.mark.skipif(hot.first_epoch() == hot.COLD, reason="no /dev/shm")


def left(site):
    """What there is of sockets and shared memory."""
    name = hot.options(site.home.run, 0)[1]
    return [path.name for path in (*site.home.run.glob("hot_*"), *Path("/dev/shm").glob(f"*{name}*"))]


@needs_shared_memory
def test_a_restart_under_load_loses_nothing_and_what_was_under_way_is_answered(site):
    async def story():
        a, b = site.upstream("a"), site.upstream("b")
        async with site.serving(table(revision(1, a))) as gateway:
            old = gateway.pid
            kept = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
            await asyncio.to_thread(kept.request, "POST", "/iris/predict", b"{}")
            (await asyncio.to_thread(kept.getresponse)).read()
            load = asyncio.create_task(Load(site.port, "/iris/predict", connections=8).run(4.0))
            slow = asyncio.create_task(site.asked("/iris/predict?ms=3000"))
            pieces = asyncio.create_task(asyncio.to_thread(stream, site))
            while await gateway.in_flight(a.address) < 2:
                await asyncio.sleep(0.01)
            await gateway.restart()
            assert gateway.pid != old
            assert site.restarts == 0
            with pytest.raises(EngineError) as refused:
                await gateway.restart()
            assert refused.value.code == "gateway.restarting"
            assert 590 < float(re.search(r"ends in (\d+) s", refused.value.why)[1]) <= 610
            # The old one hears of changes as long as somebody is connected to it.
            await gateway.apply(table(revision(2, b)))
            report = await load
            assert (report.failed, report.ok > 100) == (0, True), report.as_dict()
            assert (await slow)[0] == 200
            assert len((await pieces).splitlines()) == 8
            os.kill(a.process.pid, signal.SIGKILL)
            await asyncio.to_thread(kept.request, "POST", "/iris/predict", b"{}")
            answer = await asyncio.to_thread(kept.getresponse)
            # By the old one, which sends its clients to the new.
            assert (json.loads(answer.read())["name"], answer.headers["connection"]) == ("b", "close")
            kept.close()
        assert left(site) == []

    run(story())


def stream(site):
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    try:
        connection.request("POST", "/iris/predict?pieces=8&ms=400", b"{}")
        return connection.getresponse().read()
    finally:
        connection.close()


@needs_shared_memory
def test_the_old_one_ends_and_leaves_room_for_the_next_restart(site, monkeypatch):
    monkeypatch.setattr(hot, "LONGEST_ANSWER_S", 1)
    monkeypatch.setattr(hot, "_OVERLAP_S", 1)

    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            pids = [gateway.pid]
            for _ in range(3):

                async def restarted():
                    try:
                        await gateway.restart()
                    except EngineError as error:
                        return error.code != "gateway.restarting"
                    return True

                await until(restarted, timeout_s=30)
                pids.append(gateway.pid)
                assert (await site.asked())[0] == 200
            assert len(set(pids)) == 4
            # And one that dies after all is started again.
            os.kill(gateway.pid, signal.SIGKILL)

            async def back():
                try:
                    return (await site.asked())[0] == 200
                except OSError:
                    return False

            await until(back, timeout_s=30)
        assert left(site) == []

    run(story())


@needs_shared_memory
def test_a_daemon_that_dies_in_the_middle_of_a_restart_leaves_it_to_the_next(site):
    async def story():
        a = site.upstream("a")
        first = site.gateway()
        await first.start(table(revision(1, a)))
        old = first.pid
        load = asyncio.create_task(Load(site.port, "/iris/predict", connections=4).run(4.0))
        await asyncio.sleep(0.3)
        change = asyncio.create_task(first.restart())
        while site.recorded_pid == old:
            await asyncio.sleep(0.001)
        change.cancel()
        await asyncio.gather(change, return_exceptions=True)
        await first.detach()
        async with site.serving(table(revision(1, a))) as second:
            assert second.pid not in (old, 0)
            report = await load
            assert (report.failed, report.ok > 100) == (0, True), report.as_dict()
            assert (await site.asked())[0] == 200

    run(story())


@needs_shared_memory
def test_a_newer_binary_takes_over_when_a_daemon_adopts_the_gateway(site):
    async def story():
        a = site.upstream("a")
        old = await site.left_alone(table(revision(1, a)))
        newer = site.folder / "envoy"
        os.link(find_binary(), newer)
        load = asyncio.create_task(Load(site.port, "/iris/predict", connections=4).run(3.0))
        async with site.serving(table(revision(1, a)), binary=newer) as second:

            async def replaced():
                return second.pid not in (old, 0)

            await until(replaced, timeout_s=30)
            assert Path(f"/proc/{second.pid}/exe").readlink() == newer
            report = await load
            assert report.failed == 0, report.as_dict()

    run(story())


@needs_shared_memory
def test_a_second_upgrade_within_minutes_waits_until_the_gateway_before_the_first_has_ended(site, monkeypatch):
    monkeypatch.setattr(hot, "LONGEST_ANSWER_S", 1)
    monkeypatch.setattr(hot, "_OVERLAP_S", 1)
    monkeypatch.setattr(envoy, "_HOUSEKEEPING_S", 0.2)

    async def story():
        a = site.upstream("a")
        first = site.gateway()
        await first.start(table(revision(1, a)))
        await first.restart()
        old = first.pid
        await first.detach()
        newer = site.folder / "envoy"
        os.link(find_binary(), newer)
        async with site.serving(table(revision(1, a)), binary=newer) as second:
            with pytest.raises(EngineError) as refused:
                await second.restart()
            assert refused.value.code == "gateway.restarting"

            async def replaced():
                return second.pid not in (old, 0)

            await until(replaced, timeout_s=30)
            assert Path(f"/proc/{second.pid}/exe").readlink() == newer

    run(story())


def wrapper(site, script):
    """An Envoy that is not quite one."""
    path = site.folder / "not-envoy"
    path.write_text(f"#!/bin/sh\nEnvoy={find_binary()}\n{script}\n")
    path.chmod(0o755)
    return path


@needs_shared_memory
@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 3", "gateway.broken"),
        ('case "$*" in *version*) echo 1.2;; *) exec $Envoy "$@";; esac', "gateway.no_hot_restart"),
        ('case "$*" in *validate*) echo no such field >&2; exit 1;; *) exec $Envoy "$@";; esac', "gateway.broken"),
    ],
)
def test_an_envoy_that_cannot_take_over_is_refused_before_anything_changes(site, script, code):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            pid = gateway.pid
            gateway._binary = wrapper(site, script)
            with pytest.raises(EngineError) as refused:
                await gateway.restart()
            assert refused.value.code == code
            assert (gateway.pid, (await site.asked())[0]) == (pid, 200)
            await gateway.apply(table(revision(2, a)))

    run(story())


@needs_shared_memory
def test_one_that_ends_on_its_way_is_made_good_by_a_fresh_start(site):
    async def story():
        a = site.upstream("a")
        async with site.serving(table(revision(1, a))) as gateway:
            once = f"{site.folder}/once"
            script = f'case "$*" in *--admin*|*version*|*validate*) ;; *) mkdir {once} 2>/dev/null && exit 1;; esac'
            gateway._binary = wrapper(site, f'{script}\nexec $Envoy "$@"')
            with pytest.raises(EngineError) as failed:
                await gateway.restart()
            assert failed.value.code == "gateway.broken"

            async def back():
                try:
                    return (await site.asked())[0] == 200
                except OSError:
                    return False

            async def started_again():
                return site.restarts == 1

            await until(started_again, timeout_s=30)
            await until(back, timeout_s=30)
        assert left(site) == []

    run(story())
