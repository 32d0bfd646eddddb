"""Small parts of the daemon: its clock, its lock, its probe, its end when nothing is left to do."""

import asyncio
import os
import tempfile
import time
from pathlib import Path

import pytest

from corten.control.daemon import Daemon, only_one, steady_clock
from corten.control.exits import ExitWatch
from corten.control.folders import check_run, make_folders
from corten.control.news import News
from corten.control.probe import ask
from corten.core.home import Home
from corten.engine.memory import Memory
from corten.errors import PolicyError
from corten.testing.gateway import MemoryGateway, Wire


@pytest.fixture
def short_folder():
    """A folder whose sockets have short enough paths; pytest's own may not."""
    with tempfile.TemporaryDirectory(prefix="corten-", dir="/tmp") as folder:
        yield Path(folder)


def test_the_clock_does_not_jump_with_the_wall_clock(monkeypatch):
    clock = steady_clock(1_000_000.0)
    monkeypatch.setattr(time, "time", lambda: 5.0)
    assert 1_000_000.0 <= clock() < 1_000_010.0


def test_the_lock_is_for_one_at_a_time_and_free_again_after(tmp_path):
    home = Home(tmp_path)
    home.state.mkdir()
    with only_one(home) as first, only_one(home) as second:
        assert (first, second) == (True, False)
    with only_one(home) as third:
        assert third


def test_a_folder_others_can_write_to_is_refused(short_folder):
    home = Home(short_folder)
    make_folders(home)
    check_run(home)
    home.run.chmod(0o777)
    with pytest.raises(PolicyError):
        check_run(home)
    home.run.rmdir()
    home.run.symlink_to(short_folder)
    with pytest.raises(PolicyError):
        check_run(home)
    home.run.unlink()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nready", 200),
        (b"HTTP/1.1 503 No\r\nContent-Length: 7\r\n\r\nloading", 503),
        (b"SSH-2.0-OpenSSH\r\n\r\n", 0),
        (b"HTTP/1.1 xyz\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\n", 0),
        (b"x" * 50_000, 0),
        (b"", 0),
    ],
)
def test_a_probe_gives_an_answer_whatever_is_at_the_other_end(short_folder, sent, status):
    path = str(short_folder / "s")

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        writer.close()

    async def main():
        server = await asyncio.start_unix_server(serve, path)
        try:
            return await ask(path, "/readyz", timeout_s=5.0)
        finally:
            server.close()

    assert asyncio.run(main()).status == status


def test_a_probe_of_nothing_says_why():
    answer = asyncio.run(ask("/tmp/nothing-is-here", "/readyz", timeout_s=1.0))
    assert answer.status == 0
    assert "No such file" in answer.text


def test_news_reach_everybody_and_waiting_ends():
    async def main():
        news, seen = News(), []
        waiting = [asyncio.create_task(news.until(lambda: bool(seen), 5.0)) for _ in range(3)]
        await asyncio.sleep(0)
        seen.append(1)
        news.tell()
        assert await asyncio.gather(*waiting) == [True, True, True]
        assert not await news.until(lambda: False, 0.01)

    asyncio.run(main())


def test_the_end_of_a_watched_process_wakes_once(tmp_path):
    async def main():
        woken = asyncio.Event()
        watch = ExitWatch(woken.set)
        process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
        watch.watch_only({process.pid})
        assert not woken.is_set()
        process.stdin.close()
        await asyncio.wait_for(woken.wait(), 10)
        await process.wait()
        watch.watch_only({process.pid, 2**22 + 1})
        watch.close()

    asyncio.run(main())


def test_with_nothing_deployed_the_daemon_ends_by_itself(make_state, short_folder, monkeypatch):
    monkeypatch.setattr("corten.control.daemon.IDLE_END_S", 0.05)
    monkeypatch.setattr("corten.control.daemon.IDLE_LOOK_S", 0.01)
    home = Home(short_folder)
    make_folders(home)
    wire, told = Wire(), []

    async def main():
        daemon = Daemon(home, make_state(), Memory(), lambda port: MemoryGateway(wire), port=1)
        async with asyncio.timeout(30):
            await daemon.serve(told.append)

    asyncio.run(main())
    assert told == [{"ready": os.getpid()}]
    assert not home.daemon_socket.exists()
