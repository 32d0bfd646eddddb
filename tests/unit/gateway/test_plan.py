from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.access import Access
from corten.core.route import DeploymentRoute, Endpoint, RevisionRoute, RouteTable
from corten.gateway import access, hold, resources
from corten.gateway.plan import CLUSTERS, RATES, ROUTES, TOKENS, steps

HOLD = Path("/run/hold.sock")
endpoints = st.builds(Endpoint, st.integers(0, 5).map(lambda n: f"/run/{n}.sock"), draining=st.booleans())
revisions = st.builds(
    RevisionRoute,
    revision=st.integers(1, 3).map(lambda n: f"r{n}"),
    weight=st.integers(0, 2),
    endpoints=st.lists(endpoints, max_size=3, unique_by=lambda endpoint: endpoint.address).map(tuple),
)
tables = st.lists(
    st.builds(
        DeploymentRoute,
        deployment=st.sampled_from(["iris", "wine"]),
        revisions=st.lists(revisions, max_size=3, unique_by=lambda share: share.revision).map(tuple),
    ),
    max_size=2,
    unique_by=lambda route: route.deployment,
).map(lambda routes: RouteTable(tuple(routes)))


def table(*shares):
    return RouteTable((DeploymentRoute("iris", shares),))


class Envoy:
    """What Envoy would have in force: it takes the resources of a step one by one, in any order."""

    def __init__(self, start):
        self.found = {}
        ends = resources.endpoints_by_cluster(start)
        self.take(CLUSTERS, resources.clusters(ends))
        for name, upstreams in ends.items():
            assignment = resources.load_assignment(name, upstreams, resources.substitutes(start).get(name, ()))
            self.take(("endpoints", name), [hold.with_activator(assignment, HOLD)])
        self.take(ROUTES, [resources.route_configuration(start)])
        self.take(TOKENS, [access.tokens(start.trust)])
        self.take(RATES, [access.rates(start.deployments)])

    def take(self, key, value):
        self.found[key] = value

    def clusters(self):
        return {cluster["name"] for cluster in self.found[CLUSTERS]}

    def targets(self):
        for host in self.found[ROUTES][0]["virtual_hosts"]:
            for route in host["routes"]:
                action = route.get("route", {})
                yield from (target["name"] for target in action.get("weighted_clusters", {}).get("clusters", ()))

    def active(self, cluster):
        assignment = self.found[("endpoints", cluster)][0]
        return {
            end["endpoint"]["address"]["pipe"]["path"]
            for end in assignment["endpoints"][0]["lb_endpoints"]
            if end["health_status"] != "DRAINING"
        }


@given(tables, tables, st.randoms(use_true_random=False))
def test_at_no_moment_of_a_change_does_a_route_lead_nowhere(before, after, chance):
    envoy = Envoy(before)
    for step in steps(resources.endpoints_by_cluster(before), after, HOLD):
        changes = list(step.publish.items())
        for key, value in chance.sample(changes, len(changes)):
            envoy.take(key, value)
            for target in envoy.targets():
                assert target in envoy.clusters()
                assert envoy.active(target)
        for key in step.drop:
            del envoy.found[key]
    assert envoy.found == Envoy(after).found


@given(tables)
def test_a_table_that_is_in_force_changes_nothing(same):
    have = resources.endpoints_by_cluster(same)
    envoy = Envoy(same)
    for step in steps(have, same, HOLD):
        assert not step.drop
        for key, value in step.publish.items():
            assert envoy.found[key] == value


def test_an_upstream_stays_until_routes_have_left_it():
    old, new = Endpoint("/run/old.sock"), Endpoint("/run/new.sock")
    have = {"iris/r1": (old,)}
    add, route, remove = steps(have, table(RevisionRoute("r2", 1, (new,))), HOLD)
    assert [cluster["name"] for cluster in add.publish[CLUSTERS]] == ["iris/r1", "iris/r2"]
    assert list(route.publish) == [ROUTES]
    assert [cluster["name"] for cluster in remove.publish[CLUSTERS]] == ["iris/r2"]
    assert remove.drop == {("endpoints", "iris/r1")}


def test_draining_comes_after_the_replacement_was_added():
    old, new = Endpoint("/run/old.sock"), Endpoint("/run/new.sock")
    want = table(RevisionRoute("r1", 1, (new, Endpoint(old.address, draining=True))))
    add, _, remove = steps({"iris/r1": (old,)}, want, HOLD)
    statuses = [
        {end["endpoint"]["address"]["pipe"]["path"]: end["health_status"] for end in ends}
        for ends in (
            step.publish[("endpoints", "iris/r1")][0]["endpoints"][0]["lb_endpoints"] for step in (add, remove)
        )
    ]
    assert statuses == [
        {"/run/new.sock": "UNKNOWN", "/run/old.sock": "UNKNOWN"},
        {"/run/new.sock": "UNKNOWN", "/run/old.sock": "DRAINING"},
    ]


def test_a_drained_upstream_that_comes_back_takes_requests_at_once():
    was = Endpoint("/run/a.sock", draining=True)
    want = table(RevisionRoute("r1", 1, (Endpoint(was.address),)))
    first, *_ = steps({"iris/r1": (was,)}, want, HOLD)
    ends = first.publish[("endpoints", "iris/r1")][0]["endpoints"][0]["lb_endpoints"]
    assert [end["health_status"] for end in ends] == ["UNKNOWN"]


def test_what_a_replaced_revision_cannot_finish_goes_to_the_one_in_its_place():
    new, old = Endpoint("/run/new.sock"), Endpoint("/run/old.sock", draining=True)
    want = RouteTable((DeploymentRoute("iris", (RevisionRoute("r1", 0, (old,)), RevisionRoute("r2", 1, (new,)))),))
    have = {"iris/r1": (Endpoint("/run/old.sock"),), "iris/r2": (new,)}
    for step in (steps(have, want, HOLD)[0], steps(have, want, HOLD)[2]):
        (assignment,) = step.publish["endpoints", "iris/r1"]
        paths = [
            (level.get("priority", 0), [each["endpoint"]["address"]["pipe"]["path"] for each in level["lb_endpoints"]])
            for level in assignment["endpoints"]
        ]
        assert paths == [(0, ["/run/old.sock"]), (1, ["/run/new.sock"]), (2, [str(HOLD)])]
        (serving,) = step.publish["endpoints", "iris/r2"]
        assert [level.get("priority", 0) for level in serving["endpoints"]] == [0, 1]


def levels(step, cluster):
    (assignment,) = step.publish["endpoints", cluster]
    return [
        [each["endpoint"]["address"]["pipe"]["path"] for each in level["lb_endpoints"]]
        for level in assignment["endpoints"]
    ]


def test_what_a_revision_fails_in_a_redeploy_goes_to_the_one_beside_it():
    last, new, leaving = Endpoint("/run/last.sock"), Endpoint("/run/new.sock"), Endpoint("/run/l.sock", draining=True)
    want = table(RevisionRoute("r1", 1, (last, leaving)), RevisionRoute("r2", 2, (new, Endpoint("/run/newer.sock"))))
    for step in (steps({}, want, HOLD)[0], steps({}, want, HOLD)[2]):
        assert levels(step, "iris/r1")[1:] == [["/run/new.sock", "/run/newer.sock"], [str(HOLD)]]
        assert levels(step, "iris/r2")[1:] == [["/run/last.sock"], [str(HOLD)]]


def test_whoever_answers_for_a_revision_stays_there_while_its_share_goes_first_and_then_its_endpoint():
    last, new = Endpoint("/run/last.sock"), Endpoint("/run/new.sock")
    leaving = (replace(last, draining=True),)
    tables = [
        table(RevisionRoute("r1", weight, ends), RevisionRoute("r2", 1, (new,)))
        for weight, ends in ((1, (last,)), (0, (last,)), (0, leaving))
    ]
    assert [resources.substitutes(each)["iris/r1"] for each in tables] == [(new,)] * 3


@pytest.mark.parametrize("own", [{"on_trial": True}, {"pure": False}, {"access": Access(pinnable=True)}])
def test_nobody_answers_for_another_revision_where_it_matters_which_one_does(own):
    shares = (RevisionRoute("r1", 1, (Endpoint("/run/1.sock"),)), RevisionRoute("r2", 1, (Endpoint("/run/2.sock"),)))
    assert resources.substitutes(table(*shares)) == {"iris/r1": shares[1].endpoints, "iris/r2": shares[0].endpoints}
    assert resources.substitutes(RouteTable((DeploymentRoute("iris", shares, **own),))) == {}


@given(tables)
def test_who_answers_for_a_revision_is_another_that_takes_requests(want):
    found = resources.substitutes(want)
    for route in want.deployments:
        for share in route.revisions:
            over = not share.weight and all(each.draining for each in share.endpoints)
            others = [each for each in route.revisions if each.revision != share.revision and (each.weight or not over)]
            instead = found.get(f"{route.deployment}/{share.revision}", ())
            assert set(instead) == {end for each in others for end in each.endpoints if not end.draining}
