"""Who answers with nothing but errors is replaced, if its siblings show that it is not the requests."""

import asyncio

import pytest

from corten.control.answers import Answers, Windows
from corten.control.router import Router
from corten.core.deployment import Replica, ReplicaState, Settings
from corten.core.digest import Digest
from corten.core.front import Front
from corten.core.route import RouteTable
from corten.core.traffic import Tally
from corten.testing.gateway import MemoryGateway, Wire


def looks(*each):
    """What is said after the last of them."""
    windows, said = Windows(), {}
    for a, b in each:
        said = windows.look({"/a": Tally(*a), "/b": Tally(*b)})
    return said


def test_one_that_gives_only_errors_beside_one_that_does_well_is_broken():
    assert looks(((50, 0), (50, 0)), ((50, 12), (80, 1))) == {
        "/a": "broken: its last 12 answers were errors, and 30 of 31 of its siblings' were not"
    }


def test_slowly_coming_errors_add_up_until_it_answers_well_again():
    slow = [((50, bad), (50 + bad, 0)) for bad in range(0, 11, 2)]
    assert "/a" in looks(*slow)
    assert not looks(*slow[:3], ((51, 6), (60, 0)), ((51, 12), (70, 0)))


@pytest.mark.parametrize(
    "last",
    [
        ((50, 12), (55, 40)),  # the sibling fails too: it is the requests
        ((50, 12), (55, 0)),  # too few to compare with
        ((50, 9), (90, 0)),  # too few of its own
        ((51, 60), (90, 0)),  # not only errors
        ((0, 12), (0, 12)),  # another gateway counts anew
    ],
)
def test_what_may_come_of_the_requests_condemns_nobody(last):
    assert looks(((50, 0), (50, 0)), last) == {}


def test_only_replicas_of_one_revision_that_take_requests_are_compared(make_state):
    state, wire, condemned = make_state(), Wire(), []
    state.deploy("m", Digest.of(b"1"), Settings(replicas=3), generation=None, now_s=1.0)
    for name, to in (("a", ReplicaState.READY), ("b", ReplicaState.READY), ("c", ReplicaState.DRAINING)):
        state.add_replica(Replica(name, "m", 1, ReplicaState.STARTING, "", 0, 1.0, 1.0), replaces=None, now_s=1.0)
        state.locate(name, f"/{name}", 0)
        state.move(name, to, now_s=2.0)
        state.routed(name, now_s=2.0)

    async def story():
        router = Router(lambda _: MemoryGateway(wire), Front(), lambda: None)
        await router.start(RouteTable())
        answers = Answers(state, router, lambda *told: condemned.append(told))
        for counted in (0, 20):
            wire.answers = {"/a": Tally(0, counted), "/b": Tally(counted, 0), "/c": Tally(0, counted)}
            await answers.look()

    asyncio.run(story())
    assert [name for name, _ in condemned] == ["a"]
