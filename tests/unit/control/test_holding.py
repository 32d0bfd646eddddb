"""Requests that wait for a replica: who goes on, who is refused, who is forgotten."""

import asyncio
import contextlib

import pytest
from planner_world import memory_state

from corten.control.holding import Holding, Line, Refusal, pause_s
from corten.control.probation import Probation


class Bench:
    """A waiting room; `reached` is what the gateway says of replicas."""

    def __init__(self):
        self.arrivals, self.looks, self.reached = [], 0, True
        self.holding = Holding(
            self.arrivals.append,
            self.reaches,
            Probation(self.busy, lambda _: False, memory_state().suspects, lambda: 0.0),
        )

    async def busy(self, name):
        del name
        return 0

    async def reaches(self, name, revision):
        del name, revision
        self.looks += 1
        await asyncio.sleep(0)
        return self.reached

    def know(self, **line):
        self.holding.know({"m": Line(**line)})

    async def begin(self, *words):
        """Somebody begins to wait."""
        task = asyncio.get_running_loop().create_task(self.holding.place(*words))
        for _ in range(3):
            await asyncio.sleep(0)
        return task


@pytest.fixture
def bench():
    return Bench()


def test_whoever_waits_goes_on_when_a_revision_takes_requests(bench):
    async def story():
        bench.know(weights={"r1": 0})
        waiting = [await bench.begin("m") for _ in range(3)]
        assert bench.holding.waiting("m") == 3
        assert bench.arrivals == ["m"]
        bench.know(weights={"r2": 1})
        assert await asyncio.gather(*waiting) == ["r2"] * 3
        assert bench.holding.waiting("m") == 0

    asyncio.run(story())


def test_with_somebody_there_nobody_waits(bench):
    async def story():
        bench.know(weights={"r1": 1, "r2": 0})
        assert {await bench.holding.place("m") for _ in range(20)} == {"r1"}
        assert bench.arrivals == []

    asyncio.run(story())


def test_beyond_the_bound_one_is_refused_at_once_and_told_when_to_come_back(bench):
    async def story():
        bench.know(most=2, retry_s=7.0)
        waiting = [await bench.begin("m") for _ in range(2)]
        assert await bench.holding.place("m") == Refusal("hold.too_many", "2 requests wait for `m` already", 7.0)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert bench.holding.waiting("m") == 0

    asyncio.run(story())


def test_who_has_waited_too_long_is_told_so(bench):
    async def story():
        bench.know(hold_s=0.01)
        refusal = await bench.holding.place("m")
        assert refusal.code == "hold.too_long"
        assert "0.01 s" in refusal.message

    asyncio.run(story())


def test_who_waits_for_what_is_given_up_is_told_why(bench):
    async def story():
        bench.know()
        waiting = await bench.begin("m")
        bench.know(refusal="it was given up: exit code 3")
        refusal = await waiting
        assert refusal.code == "hold.nobody"
        assert "exit code 3" in refusal.message
        assert (await bench.holding.place("other")).code == "hold.nobody"

    asyncio.run(story())


def test_a_daemon_that_has_just_begun_lets_them_wait(bench):
    async def story():
        waiting = await bench.begin("m")
        assert not waiting.done()
        bench.know(weights={"r1": 1})
        assert await waiting == "r1"

    asyncio.run(story())


def test_a_request_in_hand_is_sent_again_only_to_its_revision_and_once_the_gateway_reaches_it(bench):
    async def story():
        bench.know(weights={"r1": 1})
        bench.reached = False
        waiting = [await bench.begin("m", "r1") for _ in range(5)]
        await asyncio.sleep(0.05)
        assert not any(each.done() for each in waiting)
        assert bench.looks < 10  # one look for all of them
        bench.reached = True
        assert await asyncio.gather(*waiting) == ["r1"] * 5
        assert (await bench.holding.place("m", "r9")).code == "hold.nobody"

    asyncio.run(story())


def test_one_that_is_gone_is_forgotten_and_the_next_one_wakes_it_again(bench):
    async def story():
        bench.know()
        for _ in range(2):
            waiting = await bench.begin("m")
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
        assert bench.arrivals == ["m", "m"]
        assert bench.holding.waiting("m") == 0

    asyncio.run(story())


def test_who_comes_again_and_again_is_sent_on_at_once_first_and_tried_for_seconds_in_all():
    pauses = [pause_s(in_a_row) for in_a_row in range(1, 8)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert 4 < sum(pauses) < 8
    assert pause_s(20) == pauses[-1]
