"""The loop with an engine and a gateway in memory: what it writes down, does and adopts."""

from controller_bench import ONE, TWO, a_while

from corten.core.deployment import ReplicaState, RolloutState
from corten.core.rest import Rest
from corten.engine.memory import Memory
from corten.errors import EngineError
from corten.testing.gateway import MemoryGateway


def test_a_deployment_is_started_routed_and_done(bench):
    async def story(controller):
        bench.deploy(ONE, replicas=2, env={"A": "b"})
        await bench.until_rolled_out(controller)
        await bench.until(controller, lambda: MemoryGateway(bench.wire).weights("m") == {"r1": 2})

    bench.during(story)
    assert len(bench.running()) == 2
    spec = next(iter(bench.machine.specs.values()))
    assert spec.env["A"] == "b"
    assert spec.env["CORTEN_DRAIN_S"]
    assert (spec.deployment, spec.revision) == ("m", 1)


def test_a_start_is_written_down_before_the_engine_is_asked(bench):
    written, asked = [], []
    add_replica = bench.state.add_replica

    def note(replica, **others):
        add_replica(replica, **others)
        written.append(replica.id)

    class Watching(Memory):
        def start(self, spec):
            asked.append(spec.id in written)
            return super().start(spec)

    bench.state.add_replica = note

    async def story(controller):
        controller.engine = Watching(machine=bench.machine)
        bench.deploy(ONE, replicas=3)
        await bench.until_rolled_out(controller)

    bench.during(story)
    assert asked == [True, True, True]


def test_a_rollout_is_done_only_when_the_share_is_in_force(bench):
    bench.wire.apply_s = 0.005

    async def story(controller):
        bench.deploy(ONE)
        await bench.until_rolled_out(controller)
        assert MemoryGateway(bench.wire).weights("m") == {"r1": 1}
        bench.deploy(TWO)
        await bench.until_rolled_out(controller)
        assert MemoryGateway(bench.wire).weights("m") == {"r2": 1}

    bench.during(story)


def test_the_old_revision_is_drained_only_when_the_gateway_reaches_the_new_one(bench):
    async def story(controller):
        bench.deploy(ONE)
        await bench.until_rolled_out(controller)
        bench.wire.unhealthy = {"/memory/m-r2-000001/s"}
        bench.deploy(TWO)
        await bench.until(
            controller,
            lambda: any(
                one.replica.revision == 2 and one.replica.state is ReplicaState.READY for one in bench.state.replicas()
            ),
        )
        await a_while(controller)
        assert MemoryGateway(bench.wire).weights("m") == {"r1": 1}
        bench.wire.unhealthy = set()
        await bench.until_rolled_out(controller)
        assert MemoryGateway(bench.wire).weights("m") == {"r2": 1}

    bench.during(story)


def test_a_busy_replica_is_not_ended_before_its_requests_are(bench):
    async def story(controller):
        bench.deploy(ONE)
        await bench.until_rolled_out(controller)
        old = bench.running()[0]
        bench.wire.busy[f"/memory/{old}/s"] = 1
        bench.deploy(TWO, rest=Rest(keep_previous_s=0))
        await bench.until_rolled_out(controller)
        await a_while(controller)
        assert old in bench.running()
        bench.wire.busy.clear()
        await bench.until(controller, lambda: old not in bench.running())

    bench.during(story)


def test_drain_time_that_is_over_ends_even_a_busy_one(bench):
    async def story(controller):
        bench.deploy(ONE, drain_s=5.0)
        await bench.until_rolled_out(controller)
        old = bench.running()[0]
        bench.wire.busy[f"/memory/{old}/s"] = 1
        bench.deploy(TWO, drain_s=5.0)
        await bench.until_rolled_out(controller)
        bench.now_s += 6.0
        await bench.until(controller, lambda: old not in bench.running())

    bench.during(story)


def test_one_that_does_not_heed_sigterm_is_killed_after_its_grace(bench):
    async def story(controller):
        bench.deploy(ONE)
        await bench.until_rolled_out(controller)
        old = bench.running()[0]
        bench.machine.unkillable.add(old)
        bench.deploy(TWO, rest=Rest(keep_previous_s=0))
        await bench.until(controller, lambda: ("terminate", old) in bench.machine.calls)
        bench.now_s += 9.0
        await a_while(controller)
        assert old in bench.running()
        bench.now_s += 2.0
        await bench.until(controller, lambda: old not in bench.running())
        assert ("kill", old) in bench.machine.calls

    bench.during(story)


def test_a_death_while_loading_fails_the_rollout_with_the_last_words(bench):
    async def story(controller):
        bench.deploy(ONE)
        await bench.until_rolled_out(controller)
        bench.refuse_ready = {"-r2-"}
        bench.deploy(TWO)
        await bench.until(controller, lambda: any("-r2-" in each for each in bench.running()))
        second = next(each for each in bench.running() if "-r2-" in each)
        Memory(machine=bench.machine).exit(second, 3, lines=["no weights here"])
        await bench.until_rolled_out(controller, RolloutState.FAILED)
        failure = next(entry for entry in bench.state.events("m") if "given up" in entry.message)
        assert failure.data["log"] == ["no weights here"]
        assert "exit code 3" in failure.data["reason"]
        assert MemoryGateway(bench.wire).weights("m") == {"r1": 1}

    bench.during(story)


def test_what_the_engine_refuses_fails_the_rollout_with_its_own_error(bench):
    async def story(controller):
        bench.machine.fail_next_start = EngineError("engine.no_memory", "no memory left", hint="buy some")
        bench.deploy(ONE)
        await bench.until_rolled_out(controller, RolloutState.FAILED)
        failure = next(entry for entry in bench.state.events("m") if "given up" in entry.message)
        assert failure.data["error"]["code"] == "engine.no_memory"
        assert failure.data["error"]["exit_code"] == 5

    bench.during(story)


def test_a_dead_replica_is_replaced(bench):
    async def story(controller):
        bench.deploy(ONE, replicas=2)
        await bench.until_rolled_out(controller)
        victim = bench.running()[0]
        Memory(machine=bench.machine).exit(victim, 137)
        await bench.until(
            controller, lambda: MemoryGateway(bench.wire).weights("m") == {"r1": 2} and victim not in bench.running()
        )

    bench.during(story)


def test_a_gateway_that_refuses_is_told_and_tried_again(bench, monkeypatch):
    monkeypatch.setattr("corten.control.router._RETRY_S", 0.01)

    async def story(controller):
        bench.deploy(ONE)
        await bench.until_rolled_out(controller)
        bench.wire.fail_next = EngineError("gateway.refused", "no such field")
        bench.deploy(TWO)
        await bench.until(controller, lambda: "no such field" in controller.router.trouble)
        await bench.until_rolled_out(controller)
        assert controller.router.trouble == ""

    bench.during(story)


def test_stopping_leaves_no_replica_and_no_route(bench):
    async def story(controller):
        bench.deploy(ONE, replicas=2)
        await bench.until_rolled_out(controller)
        bench.state.delete("m", now_s=bench.now_s)
        await bench.until(controller, lambda: bench.state.find("m") is None)
        await bench.until(controller, lambda: bench.wire.table.deployments == ())

    bench.during(story)
    assert bench.machine.observed == {}
