"""The loop gives each replica its secrets, and keeps none for nobody."""

from controller_bench import ONE

from corten.core.deployment import RolloutState
from corten.engine.memory import Memory


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
