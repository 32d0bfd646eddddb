"""The planner lives through a thousand histories, in a world with slow starts, crashes and a daemon that is killed."""

import random

import pytest
from planner_world import KINDS, World, live_through


@pytest.mark.parametrize("block", range(10))
def test_a_thousand_seeded_histories_converge(block):
    for seed in range(block * 100, block * 100 + 100):
        chance = random.Random(seed)
        world = World(chance=chance, crash_daemon_share=chance.choice([0.0, 0.05, 0.3]))
        sizes = [chance.randint(1, 5) for _ in range(chance.randint(1, 4))]
        kinds, killed_share = chance.choices(KINDS, k=4), chance.choice([0.0, 0.02, 0.2])
        live_through(world, sizes, kinds=kinds, killed_share=killed_share)
