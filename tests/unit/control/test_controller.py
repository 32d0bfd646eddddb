"""The loop with an engine and a gateway in memory: what it writes down, does and adopts."""

import asyncio
import contextlib
import itertools

import pytest

from corten.control.care import DRAIN_POLL_S
from corten.control.controller import Controller
from corten.control.news import News
from corten.control.probe import Answer
from corten.control.router import Router
from corten.control.tasks import Tasks
from corten.control.vault import Vault
from corten.core.deployment import Replica, ReplicaState, RolloutState, Settings
from corten.core.digest import Digest
from corten.core.process import is_stopped
from corten.core.rest import Rest
from corten.engine.base import Observed
from corten.engine.memory import Machine, Memory
from corten.errors import EngineError
from corten.testing.gateway import MemoryGateway, Wire

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


class Bench:
    """A controller on a machine and a gateway that outlive it; time runs ten times as fast where it is waited for."""

    def __init__(self, state, vault):
        self.state = state
        self.vault = vault
        self.machine = Machine()
        self.wire = Wire()
        self.refuse_ready = set()
        self.working = {}  # jobs by address
        self.now_s = 1000.0
        self.serial = itertools.count()
        self.stopped = is_stopped

    def controller(self):
        wake, news = asyncio.Event(), News()
        router = Router(lambda port: MemoryGateway(self.wire), 8080, wake.set)
        return Controller(
            state=self.state,
            engine=Memory(machine=self.machine),
            router=router,
            tasks=Tasks(wake.set),
            clock=self.clock,
            new_suffix=lambda: f"{next(self.serial):06d}",
            wake=wake,
            tell=news.tell,
            vault=self.vault,
            ask=self.ask,
            jobs=self.jobs,
            stopped=self.stopped,
        )

    def clock(self):
        return self.now_s

    async def jobs(self, address, *, timeout_s):
        del timeout_s
        return self.working.get(address, 0)

    async def ask(self, address, path, *, timeout_s):
        del path, timeout_s
        ready = not any(word in address for word in self.refuse_ready)
        return Answer(200, "ready") if ready else Answer(503, "loading")

    def deploy(self, image, **settings):
        return self.state.deploy("m", image, Settings(**settings), generation=None, now_s=self.now_s)

    def running(self):
        return sorted(each.id for each in self.machine.observed.values() if each.running)

    def during(self, story):
        """Tell a story while a controller runs, then let go as a dying daemon would."""

        async def main():
            controller = self.controller()
            await controller.adopt()
            loop = asyncio.get_running_loop()
            jobs = [loop.create_task(controller.run()), loop.create_task(controller.router.run())]
            controller.wake.set()
            try:
                async with asyncio.timeout(20):
                    await story(controller)
                assert not any(job.done() for job in jobs)
            finally:
                for job in jobs:
                    job.cancel()
                await asyncio.gather(*jobs, return_exceptions=True)
                await controller.tasks.wait_all()
                controller.close()

        asyncio.run(main())

    async def until(self, controller, holds):
        while not holds():
            controller.wake.set()
            await asyncio.sleep(0.005)

    async def until_rolled_out(self, controller, state=RolloutState.DONE):
        await self.until(controller, lambda: self.state.deployment("m").rollout.state is state)


async def a_while(controller):
    """Long enough for whatever it would do: twenty looks, and two of each poll."""
    for _ in range(20):
        controller.wake.set()
        await asyncio.sleep(2.5 * DRAIN_POLL_S / 20)


@pytest.fixture
def bench(make_state, tmp_path):
    return Bench(make_state(), Vault(tmp_path / "secrets"))


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


def test_a_successor_adopts_replicas_and_gateway_and_disturbs_neither(bench):
    async def first(controller):
        bench.deploy(ONE, replicas=2)
        await bench.until(controller, lambda: MemoryGateway(bench.wire).weights("m") == {"r1": 2})

    async def second(controller):
        await a_while(controller)
        assert MemoryGateway(bench.wire).weights("m") == {"r1": 2}

    bench.during(first)
    before, tables = bench.running(), len(bench.wire.applied)
    bench.during(second)
    assert bench.running() == before
    assert bench.wire.starts == 1
    assert all(table == bench.wire.table for table in bench.wire.applied[tables:])
    assert not any(verb in ("terminate", "kill", "remove") for verb, _ in bench.machine.calls)


def test_a_successor_does_not_route_to_what_died_meanwhile(bench):
    async def first(controller):
        bench.deploy(ONE, replicas=2)
        await bench.until_rolled_out(controller)

    async def second(controller):
        await bench.until(
            controller, lambda: MemoryGateway(bench.wire).weights("m") == {"r1": 2} and len(bench.running()) == 2
        )

    bench.during(first)
    victim = bench.running()[0]
    Memory(machine=bench.machine).exit(victim)
    tables = len(bench.wire.applied)
    bench.during(second)
    for table in bench.wire.applied[tables:]:
        for route in table.deployments:
            assert f"/memory/{victim}/s" not in [each.address for share in route.revisions for each in share.endpoints]


@pytest.mark.parametrize("running", [True, False])
def test_a_daemon_killed_while_it_started_a_replica_does_not_fail_the_rollout(bench, running):
    bench.deploy(ONE)
    half = "m-r1-aaaaaa"
    starting = Replica(half, "m", 1, ReplicaState.STARTING, "", 0, bench.now_s, bench.now_s)
    bench.state.add_replica(starting, replaces=None, now_s=bench.now_s)
    bench.machine.observed[half] = Observed(half, "m", 1, running=running, address=f"/memory/{half}/s", pid=0)

    async def story(controller):
        await bench.until_rolled_out(controller)

    bench.during(story)
    assert (bench.running() == [half]) is running
    assert len(bench.running()) == 1


def test_a_successor_removes_replicas_nobody_knows(bench):
    bench.machine.observed["x-r1-aaaaaa"] = Observed("x-r1-aaaaaa", "x", 1, running=True, address="/x", pid=0)

    async def story(controller):
        await asyncio.sleep(0.01)

    bench.during(story)
    assert bench.machine.observed == {}


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


def test_a_daemon_that_died_between_word_and_deed_leaves_the_deed_to_the_next(bench):
    async def before(controller):
        bench.deploy(ONE, replicas=0, most_replicas=2)
        await bench.until_rolled_out(controller)

    bench.during(before)
    first = bench.running()[0]
    bench.state.scale("m", 0, "nobody asks", now_s=bench.now_s, data={}, resting=1)
    bench.state.move(first, ReplicaState.FROZEN, now_s=bench.now_s)

    async def freezes(controller):
        await bench.until(controller, lambda: bench.machine.observed[first].frozen)

    bench.during(freezes)
    bench.state.scale("m", 1, "a request waits", now_s=bench.now_s, data={})
    bench.state.move(first, ReplicaState.READY, now_s=bench.now_s)

    async def thaws(controller):
        await bench.until(controller, lambda: MemoryGateway(bench.wire).weights("m") == {"r1": 1})

    bench.during(thaws)
    assert not bench.machine.observed[first].frozen


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


class Death(BaseException):
    """The end of a daemon."""


class Mortal:
    """Ends whoever writes to a state once a line of its journal is written, and all it would still write."""

    def __init__(self, state):
        self.connection, self.run = state._connection, state._run
        self.told = self.dead = False
        state._run = self.run_or_die

    def run_or_die(self, sql, *values):
        if self.dead:
            raise Death
        found = self.run(sql, *values)
        self.told = self.told or sql.startswith("INSERT INTO events")
        if self.told and not self.connection.in_transaction:
            self.dead = True
            raise Death
        return found


def test_a_daemon_that_dies_at_each_line_of_its_journal_loses_nothing(bench):
    async def first(controller):
        bench.deploy(ONE, replicas=2)
        await bench.until_rolled_out(controller)

    bench.during(first)
    bench.deploy(TWO, replicas=2)
    plain, deaths = bench.state._run, 0

    async def mortal(controller):
        while not life.dead and bench.state.deployment("m").rollout.state is not RolloutState.DONE:
            controller.wake.set()
            await asyncio.sleep(0.005)

    while bench.state.deployment("m").rollout.state is not RolloutState.DONE:
        life = Mortal(bench.state)
        with contextlib.suppress(Death, AssertionError):
            bench.during(mortal)
        bench.state._run = plain
        deaths += life.dead
        assert bench.state.deployment("m").rollout.state is not RolloutState.FAILED
        assert deaths < 40
    assert deaths > 6
    assert MemoryGateway(bench.wire).weights("m") == {"r2": 2}


def test_each_replica_has_the_secrets_of_its_revision_until_nobody_can_want_them(bench, monkeypatch):
    def deploy(value, replicas=1):
        wanted = bench.state.find("m")
        before = wanted.wanted.settings.secret_ids if wanted else {}
        bench.deploy(ONE, replicas=replicas, secret_ids=bench.vault.keep({"KEY": value}, before))

    given = []
    start = Memory.start

    def noted(engine, spec):
        given.append((spec.revision, spec.secrets["KEY"]))
        return start(engine, spec)

    monkeypatch.setattr(Memory, "start", noted)

    async def story(controller):
        for value in (b"one", b"two", b"two"):
            deploy(value)
            await bench.until_rolled_out(controller)
        bench.state.roll_back("m", 1, generation=None, now_s=bench.now_s)
        await bench.until_rolled_out(controller)
        # The third time it was the same.
        assert given == [(1, b"one"), (2, b"two")]
        assert bench.state.deployment("m").serving.number == 1
        deploy(b"one", replicas=2)
        await bench.until(controller, lambda: given[2:] == [(1, b"one")])
        assert len([*bench.vault.folder.iterdir()]) == 2
        bench.state.delete("m", now_s=bench.now_s)
        await bench.until(controller, lambda: not bench.state.deployments())
        assert [*bench.vault.folder.iterdir()] == []

    bench.during(story)


def test_a_secret_that_is_lost_is_told_and_the_revision_before_serves_on(bench):
    async def story(controller):
        bench.deploy(ONE)
        await bench.until_rolled_out(controller)
        bench.deploy(ONE, secret_ids={"KEY": "gone"})
        await bench.until_rolled_out(controller, RolloutState.FAILED)
        assert bench.state.deployment("m").serving.number == 1
        assert "secret `KEY` is not there any more" in bench.state.deployment("m").rollout.reason

    bench.during(story)


def test_what_an_earlier_daemon_kept_for_nobody_is_swept(bench):
    bench.vault.keep({"KEY": b"never accepted"}, {})

    async def story(_controller):
        assert [*bench.vault.folder.iterdir()] == []

    bench.during(story)
