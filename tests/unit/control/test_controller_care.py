"""The loop looks after what serves: replicas that hang, are stopped, or may rest."""

import asyncio

from controller_bench import ONE, TWO

from corten.control.probe import Answer
from corten.core.deployment import ReplicaState, RolloutState
from corten.engine.memory import Memory
from corten.testing.gateway import MemoryGateway


def test_a_hung_replica_is_killed_and_replaced(bench, monkeypatch):
    for name, seconds in (("watch.ASK_PERIOD_S", 0.01), ("care.LOOK_PERIOD_S", 0.01)):
        monkeypatch.setattr(f"corten.control.{name}", seconds)
    monkeypatch.setattr("corten.control.liveness.SILENT_S", 0.05)
    silent = set()

    async def ask(address, path, *, timeout_s):
        del path, timeout_s
        return Answer(0, "no answer") if address in silent else Answer(200, "")

    async def story(controller):
        bench.deploy(ONE)
        await bench.until_rolled_out(controller)
        victim = bench.running()[0]
        silent.add(f"/memory/{victim}/s")
        await bench.until(controller, lambda: bench.running() not in ([victim], []))
        assert ("kill", victim) in bench.machine.calls
        dead = next(one for one in bench.state.replicas() if one.replica.id == victim)
        assert "hung" in dead.replica.reason

    bench.ask = ask
    bench.during(story)


def test_one_that_is_stopped_while_it_is_asked_is_not_waited_for(bench, monkeypatch):
    for name in ("watch.ASK_PERIOD_S", "care.LOOK_PERIOD_S", "liveness.STOPPED_S"):
        monkeypatch.setattr(f"corten.control.{name}", 0.01)
    stopped = asyncio.Event()

    async def ask(address, path, *, timeout_s):
        del address, timeout_s
        if path == "/livez":
            stopped.set()
            await asyncio.sleep(60)
        return Answer(200, "")

    async def story(controller):
        bench.deploy(ONE, replicas=2)
        await bench.until_rolled_out(controller)
        await bench.until(controller, lambda: any(verb == "kill" for verb, _ in bench.machine.calls))

    bench.ask, bench.stopped = ask, lambda _: stopped.is_set()
    bench.during(story)


def test_one_that_is_stopped_before_the_gateway_reaches_it_is_replaced_though_it_is_the_only_one(bench, monkeypatch):
    for name in ("care.LOOK_PERIOD_S", "liveness.STOPPED_S"):
        monkeypatch.setattr(f"corten.control.{name}", 0.01)

    async def story(controller):
        first = "m-r1-000000"
        bench.wire.unhealthy.add(f"/memory/{first}/s")
        bench.deploy(ONE)
        await bench.until(controller, lambda: ("kill", first) in bench.machine.calls)

    bench.stopped = lambda _: bench.state.replicas("m")[0].replica.state is ReplicaState.READY
    bench.during(story)


def test_one_that_is_stopped_while_it_starts_is_replaced(bench, monkeypatch):
    for name in ("care.LOOK_PERIOD_S", "liveness.STOPPED_S"):
        monkeypatch.setattr(f"corten.control.{name}", 0.01)

    async def story(controller):
        bench.refuse_ready.add("m-r1")
        bench.deploy(ONE)
        await bench.until(controller, lambda: any(verb == "kill" for verb, _ in bench.machine.calls))
        await bench.until(controller, lambda: bench.state.replicas("m")[0].replica.reason.startswith("hung"))

    bench.stopped = lambda _: True
    bench.during(story)


def test_at_rest_the_last_replica_is_frozen_and_the_next_request_wakes_it(bench):
    async def story(controller):
        bench.deploy(ONE, replicas=0, most_replicas=2)
        await bench.until_rolled_out(controller)
        first = bench.running()[0]
        bench.state.scale("m", 0, "nobody asks", now_s=bench.now_s, data={}, resting=1)
        await bench.until(controller, lambda: bench.machine.observed[first].frozen)
        assert MemoryGateway(bench.wire).weights("m") == {}
        assert bench.wire.table.deployments[0].hold_s == 60.0
        assert await controller.holding.place("m") == "r1"
        # A request may be on its way a moment before the engine has thawed whom it goes to.
        await bench.until(controller, lambda: not bench.machine.observed[first].frozen)
        assert bench.running() == [first]
        await bench.until(controller, lambda: MemoryGateway(bench.wire).weights("m") == {"r1": 1})

    bench.during(story)


def test_nobody_is_made_to_wait_for_what_will_not_come(bench):
    async def story(controller):
        bench.refuse_ready = {"-r1-"}
        bench.deploy(ONE)
        await bench.until(controller, bench.running)
        Memory(machine=bench.machine).exit(bench.running()[0], 3)
        await bench.until_rolled_out(controller, RolloutState.FAILED)
        controller.wake.set()
        refusal = await controller.holding.place("m")
        assert refusal.code == "hold.nobody"
        assert "exit code 3" in refusal.message

    bench.during(story)


def test_one_that_is_at_a_job_nobody_waits_for_is_not_frozen_but_ended_in_its_own_time(bench):
    async def story(controller):
        bench.deploy(ONE)
        await bench.until_rolled_out(controller)
        old = bench.running()[0]
        bench.working[f"/memory/{old}/s"] = 1
        bench.deploy(TWO)
        await bench.until(controller, lambda: ("terminate", old) in bench.machine.calls)
        assert ("freeze", old) not in bench.machine.calls

    bench.during(story)
