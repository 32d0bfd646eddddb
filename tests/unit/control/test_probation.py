"""Who is sent to a replica again after the one that had it ended, and in which order."""

import asyncio

import pytest
from planner_world import memory_state

from corten.control.probation import APART_S, CALM_S, LATELY_S, TOLD_S, Probation, Standing
from corten.testing.clock import run_at_once

CLEAR, SUSPECT, GUILTY = Standing.CLEAR, Standing.SUSPECT, Standing.GUILTY


class Bench:
    """Requests that come back to where they wait; `hands` is what the busiest replica has."""

    def __init__(self):
        self.hands, self.dying = 0, True
        self.state = memory_state()
        self.probation = self.daemon()

    def daemon(self):
        """Another one, which knows what the one before wrote down."""
        clock = asyncio.get_running_loop().time
        return Probation(self.busy, lambda _: self.dying, self.state.suspects, clock)

    async def busy(self, name):
        del name
        return self.hands

    async def comes(self, request, attempt, ended_s=None):
        """Somebody comes; a replica's end is seen so much later (None: none)."""
        task = asyncio.get_running_loop().create_task(self.probation.examine("m", request, attempt))
        if ended_s is not None:
            await asyncio.sleep(ended_s)
            self.probation.ended("m")
        return await task

    async def come_back(self, *requests, attempt):
        """A replica ended, and all of these were in its hands."""
        await asyncio.sleep(0.001)
        self.probation.ended("m")
        return await asyncio.gather(*(self.comes(request, attempt) for request in requests))

    async def went_s(self, *requests):
        """When each of them was sent on."""
        loop = asyncio.get_running_loop()

        async def one(request):
            await self.probation.turn("m", request)
            return loop.time()

        return await asyncio.gather(*map(one, requests))


@pytest.fixture
def tell():
    def run(story):
        async def main():
            return await story(Bench())

        return run_at_once(main)

    return run


def test_what_was_in_no_replicas_hands_goes_on(tell):
    async def story(bench):
        bench.probation.ended("m")
        assert [await bench.comes("a", attempt) for attempt in (1, 2, 3)] == [CLEAR] * 3

    tell(story)


def test_what_a_replica_had_that_did_not_end_goes_on_after_the_end_could_have_been_seen(tell):
    async def story(bench):
        assert await bench.comes("a", 2) is CLEAR
        assert asyncio.get_running_loop().time() == pytest.approx(TOLD_S)
        bench.probation.ended("other")
        assert await bench.comes("b", 2) is CLEAR

    tell(story)


def test_while_all_replicas_live_nobody_waits(tell):
    async def story(bench):
        bench.dying = False
        assert await bench.comes("a", 2) is CLEAR
        assert asyncio.get_running_loop().time() == 0.0
        assert await bench.comes("a", 3) is CLEAR
        assert bench.probation.in_a_row("m", "a") == 2
        assert await bench.comes("a", 5) is CLEAR
        assert bench.probation.in_a_row("m", "a") == 1

    tell(story)


def test_an_end_makes_suspects_whether_it_is_seen_before_or_after_they_come(tell):
    async def story(bench):
        assert await bench.comes("a", 2, ended_s=TOLD_S / 2) is SUSPECT
        assert await bench.comes("b", 2) is SUSPECT
        await asyncio.sleep(LATELY_S + 0.1)
        assert await bench.comes("c", 2) is CLEAR

    tell(story)


def test_suspects_go_one_after_the_other_and_wait_for_a_calm_replica_but_not_for_ever(tell):
    async def story(bench):
        for request in "abc":
            await bench.comes(request, 2, ended_s=0.0)
        first, second, third = await bench.went_s(*"abc")
        assert second - first == pytest.approx(APART_S)
        assert third - second == pytest.approx(APART_S)
        bench.hands = 2
        (late,) = await bench.went_s("a")
        assert late - third == pytest.approx(APART_S + CALM_S, abs=0.02)

    tell(story)


def test_many_suspects_are_through_in_seconds(tell):
    async def story(bench):
        requests = [str(number) for number in range(200)]
        bench.probation.ended("m")
        await asyncio.gather(*(bench.comes(request, 2) for request in requests))
        bench.hands = 9
        assert max(await bench.went_s(*requests)) < 5

    tell(story)


def test_the_only_one_of_them_in_the_next_dying_hands_is_guilty(tell):
    async def story(bench):
        await bench.come_back(*"abc", attempt=2)
        await bench.went_s("a", "b")  # c still waits, and a was answered
        assert await bench.come_back("b", attempt=4) == [GUILTY]
        # It met nobody, and is what it was.
        assert await bench.comes("c", 3) is SUSPECT

    tell(story)


def test_of_several_in_the_next_dying_hands_none_is_refused_and_each_goes_alone_for_as_long_as_that_took(tell):
    async def story(bench):
        bench.hands = 1
        await bench.come_back(*"abc", attempt=2)
        a_s, *_ = await bench.went_s(*"abc")
        await asyncio.sleep(2.0)
        ended_s = asyncio.get_running_loop().time()
        assert await bench.come_back(*"abc", attempt=4) == [SUSPECT] * 3
        again_a_s, again_b_s = await bench.went_s("a", "b")
        assert again_b_s - again_a_s == pytest.approx(ended_s - a_s + 2 * APART_S, abs=0.05)
        # Now b ends another replica; c has still to go, and need not wait for it any more.
        assert await bench.come_back("b", attempt=6) == [GUILTY]
        (again_c_s,) = await bench.went_s("c")
        assert again_c_s - again_b_s == pytest.approx(APART_S, abs=0.02)

    tell(story)


def test_at_the_third_end_the_last_that_was_sent_on_is_guilty_whoever_else_was_there(tell):
    async def story(bench):
        await bench.come_back("a", "b", attempt=2)
        await bench.went_s("a", "b")
        await bench.come_back("a", "b", attempt=4)
        await bench.went_s("a", "b")
        assert await bench.come_back("a", "b", attempt=6) == [SUSPECT, GUILTY]

    tell(story)


def test_who_comes_back_though_no_replica_ended_since_it_was_sent_on_is_not_guilty_of_the_end_before(tell):
    async def story(bench):
        await bench.come_back("a", attempt=2)
        await bench.went_s("a")
        bench.dying = False
        assert await bench.comes("a", 4) is SUSPECT

    tell(story)


def test_a_daemon_that_dies_between_two_ends_leaves_what_it_knew_to_the_next(tell):
    async def story(bench):
        await bench.come_back(*"abc", attempt=2)
        await bench.went_s("a", "b")
        bench.probation = bench.daemon()
        assert await bench.come_back("b", attempt=4) == [GUILTY]
        bench.probation = bench.daemon()
        assert await bench.come_back("a", "c", attempt=4) == [SUSPECT] * 2
        assert await bench.come_back("a", attempt=6) == [GUILTY]
        await asyncio.sleep(120)
        bench.probation = bench.daemon()
        assert await bench.come_back("a", attempt=2) == [SUSPECT]

    tell(story)


def test_what_is_long_past_is_forgotten(tell):
    async def story(bench):
        await bench.comes("a", 2, ended_s=0.0)
        await bench.went_s("a")
        await asyncio.sleep(120)
        assert await bench.comes("b", 1) is CLEAR
        assert await bench.comes("a", 4, ended_s=0.0) is SUSPECT

    tell(story)
