"""The planner, in a world with slow starts, crashes and a daemon that is killed at any point."""

import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from planner_world import KINDS, live_through

from corten.control.reconcile import back_off_s, surge_of
from corten.core.canary import Canary
from corten.core.deployment import ReplicaState, RolloutState

IN_THE_SANDBOX = settings(
    max_examples=10,  # tests/simulation lives through a thousand
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def rollout(world):
    return world.state.deployment(world.name).rollout


def test_the_first_revision_gets_all_its_replicas(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=3)
    world.run(5)
    assert world.settled()
    assert rollout(world).state is RolloutState.DONE


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 7])
def test_a_rollout_never_takes_capacity_away_and_ends_with_the_new_alone(make_world, make_behaviour, replicas):
    world = make_world()
    world.deploy(make_behaviour(), replicas=replicas)
    world.run(5)
    second = world.deploy(make_behaviour(), replicas=replicas)
    while rollout(world).state is RolloutState.PROGRESSING:
        world.step()
        world.pass_time(0.1)
        assert world.capacity() >= replicas
        assert world.now_s < 1200, world.story()
    assert world.state.deployment("m").serving.number == second
    world.run(30)
    assert world.settled(), world.story()


def test_a_revision_that_dies_at_start_fails_and_the_old_is_untouched(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=2)
    world.run(5)
    before = {one.replica.id for one in world.state.replicas() if one.replica.state is ReplicaState.READY}
    world.deploy(make_behaviour(ready_after_s=None, dies_after_s=0.5), replicas=2)
    world.run(5)
    assert rollout(world).state is RolloutState.FAILED
    assert "exit code 1" in rollout(world).reason
    after = {one.replica.id for one in world.state.replicas() if one.replica.state is ReplicaState.READY}
    assert after == before
    assert world.settled()


def test_a_revision_that_never_gets_ready_fails_after_its_ready_timeout(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour())
    world.run(5)
    world.deploy(make_behaviour(ready_after_s=None), ready_timeout_s=20.0)
    world.run(19)
    assert rollout(world).state is RolloutState.PROGRESSING
    world.run(4)
    assert rollout(world).state is RolloutState.FAILED
    assert "within 20 s" in rollout(world).reason
    world.run(15)
    assert world.settled(), world.story()


def test_a_failed_first_revision_leaves_nothing_running(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(ready_after_s=None, dies_after_s=0.5), replicas=2)
    world.run(10)
    assert rollout(world).state is RolloutState.FAILED
    assert not [process for process in world.processes.values() if process.code is None]


def test_a_failed_rollout_with_more_replicas_goes_back_to_the_old_number(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=2)
    world.run(5)
    world.deploy(make_behaviour(ready_after_s=None, dies_after_s=0.5), replicas=4)
    world.run(5)
    assert world.state.deployment("m").replicas == 2
    assert world.settled()


def test_fewer_replicas_of_a_new_revision_do_not_touch_the_old_before_the_new_is_proved(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=4)
    world.run(5)
    world.deploy(make_behaviour(ready_after_s=10.0), replicas=1)
    world.run(9)
    assert world.capacity() == 4
    world.run(10)
    assert world.settled(), world.story()


def test_a_dead_replica_is_replaced_at_once_and_a_crash_loop_backs_off(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(ready_after_s=0.1))
    world.run(70)
    starts = len(world.processes)
    world.kill_one()
    world.run(1)
    assert world.settled()
    for process in world.processes.values():
        process.behaviour = make_behaviour(ready_after_s=0.1, dies_after_s=0.5)
    world.behaviours = dict.fromkeys(world.behaviours, make_behaviour(ready_after_s=0.1, dies_after_s=0.5))
    world.serial = 100
    world.run(120)
    # 0, 1, 2, 4, 8, 16, 30, 30 ... seconds apart: not more than nine in two minutes.
    assert 5 <= world.serial - 100 <= 9, world.story()
    assert starts == 1


def test_a_replica_that_was_healthy_for_long_starts_with_a_clean_record(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(ready_after_s=0.1, dies_after_s=100.0))
    world.run(450)
    assert max(one.replica.restarts for one in world.state.replicas()) == 1


def test_scaling_up_and_down_keeps_the_revision(make_world, make_behaviour):
    world = make_world()
    behaviour = make_behaviour()
    world.deploy(behaviour)
    world.run(5)
    image = world.state.deployment("m").wanted.image
    kept = world.state.deployment("m").wanted.settings
    for replicas in (4, 2, 1):
        wanted = type(kept)(replicas=replicas)
        accepted = world.state.deploy("m", image, wanted, generation=None, now_s=world.now_s)
        assert accepted.revision == 1
        world.run(20)
        assert world.settled(), world.story()


def test_stopping_ends_everything_and_forgets(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=3)
    world.run(5)
    world.state.delete("m", now_s=world.now_s)
    world.run(40)
    assert world.state.find("m") is None
    assert world.processes == {}


def test_a_third_revision_replaces_two_that_are_mixed(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=4)
    world.run(5)
    world.deploy(make_behaviour(ready_after_s=2.0), replicas=4)
    world.run(5)
    world.deploy(make_behaviour(), replicas=4)
    world.run(60)
    assert world.settled(), world.story()
    assert world.state.deployment("m").serving.number == 3


def test_the_dead_only_replica_is_replaced_while_its_successor_still_loads(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(ready_after_s=0.5))
    world.run(5)
    world.deploy(make_behaviour(ready_after_s=60.0))
    world.run(2)
    next(process for process in world.processes.values() if process.revision == 1).code = 137
    world.run(2)
    assert world.capacity() == 1, world.story()


@pytest.mark.parametrize(("replicas", "share", "beside"), [(1, 5, 1), (4, 5, 1), (4, 25, 1), (4, 50, 2), (7, 50, 4)])
def test_a_canary_runs_beside_all_of_the_serving_revision(make_world, make_behaviour, replicas, share, beside):
    world = make_world()
    world.deploy(make_behaviour(), replicas=replicas)
    world.run(5)
    number = world.deploy(make_behaviour(), replicas=replicas, canary=Canary((share,)))
    world.run(60)
    deployment = world.state.deployment("m")
    assert deployment.canary is not None
    assert deployment.serving.number == 1
    assert world.serving_capacity() == replicas
    assert world.capacity() == replicas + beside
    world.state.promote("m", 100, generation=None, now_s=world.now_s)
    world.run(60)
    assert world.settled(), world.story()
    assert world.state.deployment("m").serving.number == number


def test_a_canary_has_the_share_it_was_given_however_many_replicas_it_has(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=3)
    world.run(5)
    world.deploy(make_behaviour(), replicas=3, canary=Canary((5, 50), judged=True))
    world.run(20)
    assert shares(world) == {"r1": 95, "r2": 5}
    world.state.grow("m", "it did well", now_s=world.now_s, data={})
    world.run(20)
    assert shares(world) == {"r1": 50, "r2": 50}
    world.state.grow("m", "it did well", now_s=world.now_s, data={})
    world.run(20)
    assert shares(world) == {"r2": 100}
    assert world.settled()


def test_a_canary_that_is_given_up_leaves_the_serving_revision_as_it_was(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=3)
    world.run(5)
    before = {one.replica.id for one in world.state.replicas()}
    world.deploy(make_behaviour(), replicas=3, canary=Canary((5,), judged=True))
    world.run(20)
    world.state.fail_rollout("m", "8 of 9 requests failed", now_s=world.now_s)
    world.run(40)
    assert world.settled(), world.story()
    ready = {one.replica.id for one in world.state.replicas() if one.replica.state is ReplicaState.READY}
    assert ready == before
    assert shares(world) == {"r1": 100}


def test_a_canary_that_keeps_dying_is_given_up(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=2)
    world.run(5)
    world.deploy(make_behaviour(ready_after_s=0.2, dies_after_s=3.0), replicas=2, canary=Canary((10,)))
    world.run(60)
    assert rollout(world).state is RolloutState.FAILED
    assert "keeps ending" in rollout(world).reason
    assert world.settled(), world.story()


def test_a_death_in_the_serving_revision_is_made_good_during_a_canary(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=2)
    world.run(5)
    world.deploy(make_behaviour(), replicas=2, canary=Canary((10,)))
    world.run(20)
    for one in world.state.replicas():
        if one.replica.revision == 1:
            world.processes[one.replica.id].code = 137
    world.run(20)
    assert world.serving_capacity() == 2
    assert shares(world) == {"r1": 90, "r2": 10}


def test_a_mirrored_revision_is_sent_no_request_whatever_becomes_of_the_other(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=2)
    world.run(5)
    number = world.deploy(make_behaviour(), replicas=2, canary=Canary(mirror=10))
    world.run(20)
    assert world.state.deployment("m").canary.mirror == 10
    assert [one.replica.revision for one in world.state.replicas() if one.replica.state is ReplicaState.READY] == [
        1,
        1,
        2,
    ]
    assert shares(world) == {"r1": 100}
    for one in world.state.replicas():
        if one.replica.revision == 1:
            world.processes[one.replica.id].code = 137
    for _ in range(40):
        world.run(0.5)
        weights = {share.revision: share.weight for route in world.table.deployments for share in route.revisions}
        assert weights["r2"] == 0
    assert shares(world) == {"r1": 100}
    world.state.promote("m", 50, generation=None, now_s=world.now_s)
    world.run(20)
    assert shares(world) == {"r1": 50, "r2": 50}
    world.state.promote("m", 100, generation=None, now_s=world.now_s)
    world.run(60)
    assert world.settled(), world.story()
    assert world.state.deployment("m").serving.number == number


def test_the_first_revision_needs_no_canary(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), canary=Canary((5,), judged=True))
    world.run(5)
    assert world.settled()


def shares(world):
    """The shares in force in percent, by revision."""
    weights = {share.revision: share.weight for share in world.table.deployments[0].revisions if share.weight}
    return {revision: 100 * weight / sum(weights.values()) for revision, weight in weights.items()}


@given(
    story=st.tuples(st.integers(0, 2**32), st.sampled_from([0.0, 0.02, 0.2]), st.sampled_from([0.0, 0.05, 0.3])),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    kinds=st.lists(st.sampled_from(KINDS), min_size=3, max_size=3),
)
@IN_THE_SANDBOX
def test_whatever_happens_it_converges(make_world, make_behaviour, story, sizes, kinds):
    seed, killed_share, crash_share = story
    world = make_world(chance=random.Random(seed), crash_daemon_share=crash_share)
    live_through(world, sizes, kinds=kinds, killed_share=killed_share)


def awake_at_zero(world, behaviour):
    world.deploy(behaviour, replicas=0, most_replicas=2)
    world.run(5)
    assert world.settled()


def test_at_rest_one_replica_is_frozen_and_wakes_as_it_was(make_world, make_behaviour):
    world = make_world()
    awake_at_zero(world, make_behaviour(ready_after_s=1.0))
    first = next(iter(world.processes))
    for _ in range(3):
        world.state.scale("m", 0, "nobody asks", now_s=world.now_s, data={}, resting=1)
        world.run(8)
        assert world.processes[first].frozen, world.story()
        world.state.scale("m", 1, "a request waits", now_s=world.now_s, data={})
        world.step()
        assert world.capacity() == 1, world.story()
    assert list(world.processes) == [first]


def test_a_request_that_comes_while_the_last_one_drains_takes_it_back(make_world, make_behaviour):
    world = make_world()
    awake_at_zero(world, make_behaviour())
    first = next(iter(world.processes))
    world.state.scale("m", 0, "nobody asks", now_s=world.now_s, data={}, resting=1)
    world.busy_until_s[first] = world.now_s + 100
    world.route()
    world.turn()
    world.state.scale("m", 1, "a request waits", now_s=world.now_s, data={})
    world.step()
    assert list(world.processes) == [first]
    assert world.capacity() == 1, world.story()


def test_a_stopped_one_is_started_again(make_world, make_behaviour):
    world = make_world()
    awake_at_zero(world, make_behaviour())
    world.state.scale("m", 0, "nobody asks", now_s=world.now_s, data={}, resting=0)
    world.run(10)
    assert world.settled(), world.story()
    world.state.scale("m", 1, "a request waits", now_s=world.now_s, data={})
    world.run(3)
    assert world.settled(), world.story()


def test_a_new_revision_of_one_at_rest_is_tried_and_meanwhile_the_old_one_answers(make_world, make_behaviour):
    world = make_world()
    awake_at_zero(world, make_behaviour())
    world.state.scale("m", 0, "nobody asks", now_s=world.now_s, data={}, resting=1)
    world.run(8)
    world.deploy(make_behaviour(ready_after_s=10.0), replicas=0, most_replicas=2)
    world.run(2)
    assert world.serving_capacity() == 1, world.story()
    world.run(30)
    assert world.settled(), world.story()
    assert world.state.deployment("m").serving.number == 2


def test_of_the_revision_before_one_stays_frozen_and_a_rollback_needs_no_start(make_world, make_behaviour):
    world = make_world()
    world.deploy(make_behaviour(), replicas=3)
    world.run(5)
    world.deploy(make_behaviour(), replicas=3)
    world.run(60)
    frozen = [key for key, process in world.processes.items() if process.frozen]
    assert [world.processes[key].revision for key in frozen] == [1]
    world.state.roll_back("m", None, generation=None, now_s=world.now_s)
    world.step()
    assert world.sent_requests(frozen[0]), world.story()
    world.run(60)
    assert world.settled(), world.story()
    assert [process.revision for process in world.processes.values() if process.frozen] == [2]
    world.state.drop_fallback("m", "memory is short", now_s=world.now_s)
    world.run(20)
    assert not any(process.frozen for process in world.processes.values())


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_swap_starts_the_new_when_nothing_of_the_old_is_left(make_world, make_behaviour, replicas):
    world = make_world()
    world.deploy(make_behaviour(ends_after_term_s=3.0), replicas=replicas)
    world.run(5)
    second = world.deploy(make_behaviour(), replicas=replicas, swap=True)
    world.run(60)
    assert world.settled(), world.story()
    assert world.state.deployment("m").serving.number == second
    assert not any(process.frozen for process in world.processes.values())


@pytest.mark.parametrize("kind", ["dies", "never", "late death"])
def test_a_swap_that_fails_starts_the_old_again(make_world, make_behaviour, kind):
    behaviours = {
        "dies": make_behaviour(ready_after_s=None, dies_after_s=0.7),
        "never": make_behaviour(ready_after_s=None),
        "late death": make_behaviour(ready_after_s=0.2, dies_after_s=1.0),
    }
    world = make_world()
    world.deploy(make_behaviour(), replicas=2)
    world.run(5)
    world.deploy(behaviours[kind], replicas=2, ready_timeout_s=5.0, swap=True)
    world.run(60)
    failed = rollout(world).state is RolloutState.FAILED
    assert failed or kind == "late death"
    if failed:
        assert world.settled(), world.story()
        assert world.serving_capacity() == 2


def test_the_back_off_doubles_up_to_half_a_minute():
    assert [back_off_s(each) for each in (0, 1, 2, 3, 4, 5, 6, 7, 99)] == [0, 0, 1, 2, 4, 8, 16, 30, 30]


def test_the_surge_is_a_quarter_and_at_least_one():
    assert [surge_of(each) for each in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]
