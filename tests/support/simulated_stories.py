"""What happens in the simulated world: users, loads and faults, each story from a seed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from simulated_machine import Model
from simulated_world import World

from corten.core.canary import Canary
from corten.core.rest import Rest

FAULTS = ("nothing", "death", "hang", "gateway", "daemon", "clock")
HOURS_S = (-86_400, -600, 600, 86_400)
QUICK_REST = Rest(freeze_after_s=3.0, stop_after_s=8.0)
QUIET_S = 20.0


async def fate(world: World, faults: Sequence[str], seconds: float) -> None:
    """One fault after the other, each once what the one before broke may still be broken."""
    end_s = world.now_s + seconds
    while world.now_s < end_s:
        await asyncio.sleep(world.chance.uniform(1.0, 8.0))
        fault, alive = world.chance.choice(faults), world.machine.alive()
        world.note(f"fate: {fault}")
        match fault:
            case "death" if alive:
                world.strike(world.chance.choice(alive))
            case "hang" if alive:
                world.strike(world.chance.choice(alive), hang=True)
            case "gateway":
                world.kill_envoy()
            case "daemon":
                world.kill_daemon()
            case "clock":  # a daemon takes the wall's clock when it starts, and only then
                world.jump_s += world.chance.choice(HOURS_S)
                world.kill_daemon()


def some_model(world: World) -> Model:
    return Model(ready_s=world.chance.uniform(0.1, 3.0), service_s=world.chance.choice((0.005, 0.05, 0.2)))


def some_size(world: World) -> dict:
    size = world.chance.randint(1, 3)
    scaled = {"replicas": 0, "most_replicas": size + 1, "rest": QUICK_REST}
    return world.chance.choice([{"replicas": size}, scaled])


async def history(world: World, faults: Sequence[str] = FAULTS, *, seconds: float = 30.0, per_s: float = 8.0) -> None:
    """Some deployments under load, changed again and again while things break; then all is well, and then gone."""
    names = [f"m{number}" for number in range(world.chance.randint(1, 3))]
    for name in names:
        await world.deploy(name, some_model(world), **some_size(world))
    for name in names:
        await world.until(lambda name=name: world.settled(name))
    works = [world.load(name, per_s, seconds) for name in names] + [fate(world, faults, seconds)]
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)
        for _ in range(3):
            await asyncio.sleep(world.chance.uniform(2.0, seconds / 3))
            canary = world.chance.choice([Canary(), Canary((5, 50), judged=True)])
            await world.deploy(world.chance.choice(names), some_model(world), canary=canary, **some_size(world))
    world.mortality = 0.0
    await end_well(world, names)


async def end_well(world: World, names: Sequence[str]) -> None:
    """Whatever was, a good revision takes over, nothing goes on after it, and nothing is left of what is stopped."""
    for name in names:
        await world.deploy(name, Model(), replicas=2)
        await world.until(lambda name=name: world.settled(name))
    await world.all_answered()
    told = world.state.last_seq()
    await asyncio.sleep(QUIET_S)
    assert world.state.last_seq() == told, "something goes on though all is as wanted" + world.story()
    for name in names:
        await world.delete(name)
        await world.until(lambda name=name: world.state.find(name) is None)
    assert not world.machine.processes, world.story()


async def one_life(world: World) -> tuple:
    """A deployment's whole life without chance in it; what was there after each step of the user's."""
    seen = []

    async def then(change) -> None:
        await change
        await world.until(lambda: world.settled("m"))
        await world.all_answered()
        await world.until(world.in_force)
        seen.append(world.summary("m"))

    async def asked() -> None:
        world.ask("m")

    async def asleep() -> None:
        await world.until(lambda: world.state.deployment("m").replicas == 0)

    scaled = {"replicas": 0, "most_replicas": 2, "rest": Rest(freeze_after_s=2.0, stop_after_s=60.0)}
    await then(world.deploy("m", Model(ready_s=0.1), replicas=2))
    await then(world.deploy("m", Model(ready_s=0.2), replicas=1))
    await then(world.deploy("m", Model(ready_s=None, dies_after_s=0.1), replicas=1))
    await then(world.roll_back("m", 1))
    await then(world.deploy("m", Model(ready_s=0.1), **scaled))
    await then(asleep())
    await then(asked())
    await world.delete("m")
    await world.until(lambda: world.state.find("m") is None and not world.machine.processes)
    return tuple(seen)
