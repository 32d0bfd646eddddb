"""Route tables and the steps between them."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from corten.control.records import Deployment, ReplicaRecord, Rollout
from corten.control.routes import route_table, steps
from corten.core.canary import Canary
from corten.core.deployment import Replica, ReplicaState, Revision, RolloutState, Settings
from corten.core.digest import Digest
from corten.core.route import RevisionRoute, RouteTable

REVISION = Revision("m", 1, Digest.of(b""), Settings(max_body_bytes=77, request_timeout_s=5.0), 0.0)
M = Deployment("m", 1, 1, REVISION, REVISION, None)


def record(key, revision=1, state=ReplicaState.READY, *, routed=True):
    return ReplicaRecord(Replica(key, "m", revision, state, f"/run/{key}", 1, 0.0, 0.0), 0.0, routed)


def shares(table):
    return {share.revision: share.weight for route in table.deployments for share in route.revisions}


def drained(table):
    endpoints = [each for route in table.deployments for share in route.revisions for each in share.endpoints]
    return {each.address for each in endpoints if each.draining}


def test_a_new_revision_is_listed_without_a_share_until_the_gateway_reaches_it():
    table = route_table([M], [record("a"), record("b", 2, routed=False)])
    assert shares(table) == {"r1": 1, "r2": 0}


def test_shares_are_the_numbers_of_replicas_that_take_requests():
    table = route_table([M], [record("a"), record("b"), record("c", 2), record("d", 2, ReplicaState.DRAINING)])
    assert shares(table) == {"r1": 2, "r2": 1}
    assert drained(table) == {"/run/d"}
    assert not table.deployments[0].on_trial


def test_starting_stopping_and_ended_replicas_are_not_listed():
    gone = [
        record(state.value, state=state)
        for state in (ReplicaState.STARTING, ReplicaState.FROZEN, ReplicaState.STOPPING, ReplicaState.EXITED)
    ]
    # The place of what will be started is there before it.
    assert route_table([M], gone).deployments[0].revisions == (RevisionRoute("r1", 0, ()),)


def test_a_revision_that_has_ended_keeps_its_place_for_what_it_had_in_hand_and_nobody_can_choose_it():
    deleted = replace(M, wanted=None, deleting=True)
    for state, kept in ((ReplicaState.STOPPING, True), (ReplicaState.EXITED, True), (ReplicaState.STARTING, False)):
        found = route_table([deleted], [record("a", state=state)]).deployments[0].revisions
        assert found == ((RevisionRoute("r1", 0, (), gone=True),) if kept else ())
    leaving = route_table([deleted], [record("a", state=ReplicaState.DRAINING)]).deployments[0].revisions[0]
    assert not leaving.gone


def test_limits_come_from_the_revision_that_serves():
    route = route_table([M], [record("a")]).deployments[0]
    assert (route.max_body_bytes, route.timeout_s) == (77, 5.0)


def test_the_share_moves_before_the_last_endpoint_is_drained():
    before = route_table([M], [record("a"), record("b", 2)])
    after = route_table([M], [record("a", state=ReplicaState.DRAINING), record("b", 2)])
    first, second = steps(before, after)
    assert shares(first) == {"r1": 0, "r2": 1}
    assert drained(first) == set()
    assert second == after


def test_one_of_several_endpoints_drains_in_one_step():
    before = route_table([M], [record("a"), record("b")])
    after = route_table([M], [record("a", state=ReplicaState.DRAINING), record("b")])
    assert steps(before, after) == (after,)


def test_stopping_a_deployment_needs_no_step_between():
    before = route_table([M], [record("a")])
    after = route_table([replace(M, wanted=None, deleting=True)], [record("a", state=ReplicaState.DRAINING)])
    assert steps(before, after) == (after,)


def test_requests_are_held_before_the_last_replica_drains():
    before = route_table([M], [record("a")])
    after = route_table([M], [record("a", state=ReplicaState.DRAINING)])
    first, second = steps(before, after)
    assert (shares(first), drained(first)) == ({"r1": 0}, set())
    assert first.deployments[0].hold_s == 60.0
    assert second == after


replicas = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 3), st.sampled_from(list(ReplicaState)), st.booleans()),
    unique_by=lambda each: each[0],
    max_size=8,
)


@given(replicas, replicas)
def test_no_table_on_the_way_sends_requests_to_a_revision_without_open_endpoints(before, after):
    fixed = {key: revision for key, revision, _, _ in before}
    tables = steps(
        route_table([M], [record(k, r, s, routed=w) for k, r, s, w in before]),
        route_table([M], [record(k, fixed.get(k, r), s, routed=w) for k, r, s, w in after]),
    )
    for table in tables:
        for route in table.deployments:
            for share in route.revisions:
                assert share.weight == 0 or any(not each.draining for each in share.endpoints)
    assert 1 <= len(tables) <= 2


@given(replicas)
def test_the_same_state_in_any_order_gives_the_same_table(found):
    records = [record(key, revision, state, routed=routed) for key, revision, state, routed in found]
    other = replace(M, name="n")
    assert route_table([M, other], records) == route_table([other, M], records[::-1])


def test_nothing_deployed_routes_nothing():
    assert route_table([], []) == RouteTable()


@given(st.integers(1, 99), st.lists(st.integers(0, 8), min_size=1, max_size=4), st.integers(0, 3))
def test_a_canarys_share_is_exact_and_the_sum_of_all_is_always_the_same(share, replicas, mine):
    canary = replace(REVISION, number=9, settings=Settings(canary=Canary((share,), sticky="x-user")))
    rollout = Rollout(1, "m", 1, 9, RolloutState.PROGRESSING, "", 0.0, None, share)
    deployment = Deployment("m", 1, 1, wanted=canary, serving=REVISION, rollout=rollout)
    counts = {**dict(enumerate(replicas, start=1)), 9: mine}
    records = [record(f"{number}-{each}", number) for number, count in counts.items() for each in range(count)]
    (route,) = route_table([deployment], records).deployments
    assert route.sticky == "x-user"
    assert route.on_trial
    found = {each.revision: each.weight for each in route.revisions}
    if mine and any(replicas):
        assert sum(found.values()) == 100_000
        assert found["r9"] == share * 1000
    for number, count in counts.items():
        assert (found.get(f"r{number}", 0) > 0) == (count > 0)
