"""The daemon's real code, the gateway's real resources and simulated processes live through seeded faults together.

No request is lost that another replica, or the same again, could answer; no turn of the daemon's leaves fewer replicas
than are wanted; from whichever step a daemon was killed at, the next one comes to the same end.
"""

import asyncio

import pytest
from simulated_machine import Model
from simulated_stories import QUICK_REST, end_well, history, one_life
from simulated_world import live

from corten.core.canary import Canary
from corten.core.deployment import RolloutState
from corten.core.rest import Rest

HISTORIES, BLOCKS = 10, 2
EVERY = 61  # of the steps of a life, one is died at


@pytest.mark.parametrize("block", range(BLOCKS))
def test_through_deaths_hangs_and_jumping_clocks_no_request_is_lost(block):
    for seed in range(block, HISTORIES, BLOCKS):
        live(seed, history, mortality=(0.0, 0.003)[seed % 2])


def test_planned_changes_make_no_request_wait_longer_than_a_start():
    async def story(world):
        await history(world, faults=("nothing",), per_s=25.0)

    for seed in range(2):
        world, _ = live(seed, story)
        slowest = max(world.outcomes, key=lambda each: each.ended_s - each.began_s)
        assert slowest.ended_s - slowest.began_s < 6.0, (slowest, world.story())


def test_what_a_hung_replica_has_is_answered_by_the_revision_that_follows_it():
    async def story(world):
        await world.deploy("m", Model(), replicas=1)
        await world.until(lambda: world.settled("m"))
        load = asyncio.create_task(world.load("m", 40.0, 6.0))
        await asyncio.sleep(2.0)
        world.strike(world.machine.alive()[0], hang=True)
        await world.deploy("m", Model(), replicas=1)
        await load
        await world.all_answered()

    for seed in range(4):
        world, _ = live(seed, story)
        assert max(each.ended_s - each.began_s for each in world.outcomes) < 3.0, world.story()


def test_from_whichever_step_a_daemon_was_killed_at_the_next_comes_to_the_same_end():
    world, expected = live(1, one_life)
    for dies_at in range(1, world.steps, EVERY):
        again, found = live(1, one_life, dies_at=dies_at)
        assert found == expected, (dies_at, again.story())
        assert again.deaths == 1


@pytest.mark.parametrize("dies_after_s", [0.3, None])
def test_whoever_waits_for_a_replica_that_never_comes_is_told_so_in_time(dies_after_s):
    async def story(world):
        await world.deploy("m", Model(ready_s=0.1), replicas=0, most_replicas=1, rest=Rest(2.0, 4.0, hold_s=10.0))
        await world.until(lambda: world.settled("m"))
        await world.until(lambda: not world.machine.alive())
        for image in world.machine.models:  # it cannot start any more
            world.machine.models[image] = Model(ready_s=None, dies_after_s=dies_after_s)
        await world.load("m", 5.0, 40.0)
        await world.all_answered()
        told, world.outcomes = world.outcomes, []
        assert {each.status for each in told} == {503}
        assert {each.code.partition(":")[0] for each in told} <= {"hold.too_long", "hold.nobody"}
        assert max(each.ended_s - each.began_s for each in told) <= 10.5

    live(1, story)


@pytest.mark.parametrize("jump_s", [-86_400, 86_400])
def test_a_revision_that_cannot_start_is_given_up_though_the_clock_jumped_meanwhile(jump_s):
    async def story(world):
        await world.deploy("m", Model(), replicas=1)
        await world.until(lambda: world.settled("m"))
        await world.deploy("m", Model(ready_s=None, dies_after_s=1.0), replicas=1)
        await asyncio.sleep(0.5)
        world.jump_s = jump_s
        world.kill_daemon()
        await world.until(lambda: world.state.deployment("m").rollout.state is RolloutState.FAILED, 10.0)
        await world.until(lambda: world.settled("m"))

    live(1, story)


@pytest.mark.parametrize("mortality", [0.0, 0.01])
def test_however_often_a_deployment_sleeps_it_answers(mortality):
    async def story(world):
        await world.deploy("m", Model(ready_s=0.5), replicas=0, most_replicas=2, rest=QUICK_REST)
        await world.until(lambda: world.settled("m"))
        for _ in range(12):
            await asyncio.sleep(world.chance.uniform(1.0, 15.0))
            for _ in range(world.chance.randint(1, 30)):
                world.ask("m")
        await end_well(world, ["m"])

    for seed in range(2):
        world, _ = live(seed, story, mortality=mortality)
        assert mortality or max(each.ended_s - each.began_s for each in world.outcomes) < 0.95


def test_more_models_than_fit_into_the_memory_all_answer_and_never_take_more_than_there_is():
    async def story(world):
        names = [f"m{number}" for number in range(5)]
        for name in names:
            await world.deploy(name, Model(ready_s=0.3), replicas=0, most_replicas=1, rest=Rest(5.0, 600.0))
            await world.until(lambda name=name: world.settled(name))
        # What one takes is known only when one was there.
        await world.until(lambda: world.machine.available() >= 0)
        world.machine.least = 0
        for _ in range(25):
            await asyncio.sleep(world.chance.uniform(0.5, 3.0))
            world.ask(world.chance.choice(names))
        await world.all_answered()

    world, _ = live(1, story, memory=250)
    assert world.machine.least >= 0


@pytest.mark.parametrize(("failing", "kept"), [(0.0, True), (0.5, False)])
def test_a_canary_gets_what_it_deserves_though_daemons_die_over_it(failing, kept):
    async def story(world):
        await world.deploy("m", Model(), replicas=2)
        await world.until(lambda: world.settled("m"))
        load = asyncio.create_task(world.load("m", 60.0, 60.0))
        await world.deploy("m", Model(failing=failing), replicas=2, canary=Canary((5, 25, 50), judged=True))
        await world.until(lambda: world.state.deployment("m").rollout.state is not RolloutState.PROGRESSING)
        load.cancel()
        await world.all_answered()
        bad = [each for each in world.outcomes if each.status == 500]
        world.outcomes = [each for each in world.outcomes if each.status != 500]
        return world.state.deployment("m").rollout.state is RolloutState.DONE, len(bad)

    for mortality in (0.0, 0.003):
        _, (done, bad) = live(1, story, mortality=mortality)
        assert done is kept
        assert bad <= 10


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_a_request_that_kills_its_replica_kills_two_at_most_and_takes_no_other_request_along(replicas):
    for seed in range(2):
        assert executions(seed, Model(ready_s=1.0), replicas) == 2


@pytest.mark.parametrize("at_once", [1, 8])
def test_one_that_takes_its_time_for_that_kills_three_at_most(at_once):
    for seed in range(3):
        assert executions(seed, Model(ready_s=1.0, deadly_s=1.5, at_once=at_once, service_s=0.01), 2) <= 3


def test_a_daemon_that_dies_between_two_deaths_makes_no_third():
    for seed in range(3):
        assert executions(seed, Model(ready_s=0.2, deadly_s=2.5, at_once=8, service_s=0.01), 2, dies=True) == 2


def executions(seed, model, replicas, *, dies=False):
    """How often a request that ends whoever computes it was computed, among good ones that are all answered."""

    async def story(world):
        await world.deploy("m", model, replicas=replicas)
        await world.until(lambda: world.settled("m"))
        load = asyncio.create_task(world.load("m", 60.0, 6.0))
        await asyncio.sleep(1.0)
        world.ask("m", poison=True)
        if dies:
            await world.until(lambda: len(world.machine.alive()) < replicas)
            await asyncio.sleep(0.7)
            world.kill_daemon()
        await load
        await world.all_answered()

    world, _ = live(seed, story)
    (bad,) = [each for each in world.outcomes if each.poison]
    assert (bad.status, bad.code.partition(":")[0]) == (502, "hold.deadly"), world.story()
    return world.executions[bad.id]
