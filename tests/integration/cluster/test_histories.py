"""Whatever was done, broken off and done again: one release serves, nothing is orphaned, and stopping leaves nothing."""

import random
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from clusters import CutError, cut_off, eventually, site

from corten.cluster import objects, release
from corten.cluster.deploying import go_back, promote
from corten.cluster.facts import discover
from corten.cluster.knative import revision_in
from corten.core.canary import Canary
from corten.errors import CortenError
from corten.exporters.base import Cluster
from corten.ops import kubernetes
from corten.testing import Fault

pytestmark = pytest.mark.kubernetes
STEPS = 12
EXPECTED = ("deploy.unhealthy", "control.no_earlier_revision")
KINDS = (
    "deployments",
    "services",
    "configmaps",
    "horizontalpodautoscalers",
    "poddisruptionbudgets",
    "networkpolicies",
    "serviceaccounts",
)
KNATIVES = ("ksvc", "configurations", "routes", "revisions")
ZERO = {"replicas": 0, "most_replicas": 4}


@pytest.fixture
def here(tmp_path, monkeypatch):
    yield from site(tmp_path, monkeypatch)


@pytest.fixture
def knative(tmp_path, monkeypatch):
    yield from site(tmp_path, monkeypatch, groups=("serving.knative.dev",))


def is_done(here, chance, step, expected):
    """Take a step, cut off now and then; whether it ended well. As it is left otherwise, the next one finds it."""
    cut = chance.random() < 0.4
    try:
        with cut_off(here, chance.randrange(1, 20)) if cut else unhurt():
            step()
    except CutError:
        return False
    except CortenError as error:
        if error.code not in expected:
            raise
        return False
    return True


@pytest.mark.parametrize("seed", range(4))
def test_a_history_between_deployments_and_knative_stays_sound(knative, seed):
    here, chance = knative, random.Random(seed)
    here.server.fault("team/bad", Fault.CRASH)
    for number in range(STEPS):
        wanted = {"env": {"A": chance.choice("123")}, **chance.choice([{"replicas": 1}, {"replicas": 2}, ZERO, ZERO])}
        if chance.random() < 0.2:
            wanted["canary"] = Canary((20,))
        content = chance.choice(["good", f"next{number}", "bad"])
        back, whole = (partial(each, here.api, "fraud", "default", clock=here.clock) for each in (go_back, promote))
        step = chance.choices([partial(here.deploy, content, **wanted), back, whole], [65, 20, 15])[0]
        if is_done(here, chance, step, (*EXPECTED, "control.no_canary", "deploy.rolled_back", "render.unsupported")):
            sound_between(here)
    here.deploy("last", replicas=2)
    sound(here)
    kubernetes.stop("fraud", kubernetes.Place())
    eventually(lambda: not any(here.server.names(kind) for kind in (*KINDS, *KNATIVES, "secrets", "pods")))


@pytest.mark.parametrize("seed", range(3))
def test_a_history_of_deployments_failures_and_cuts_stays_sound(here, seed):
    chance = random.Random(seed)
    here.server.fault("team/bad", Fault.CRASH)
    for number in range(STEPS):
        settings = chance.choice([{"replicas": 1}, {"replicas": 2}, {"replicas": 1, "most_replicas": 3}])
        wanted = {"env": {"A": chance.choice("123")}, **settings}
        content = chance.choice(["good", f"next{number}", "bad"])
        if chance.random() < 0.7:
            step = partial(here.deploy, content, **wanted)
        else:
            step = partial(go_back, here.api, "fraud", "default", clock=here.clock)
        if is_done(here, chance, step, EXPECTED):
            sound(here)
    here.deploy("last", replicas=2)
    sound(here)
    kubernetes.stop("fraud", kubernetes.Place())
    assert all(not here.server.names(kind) for kind in (*KINDS, "secrets"))


def canary(here):
    here.deploy("good", replicas=2, env={"A": "1"})
    here.deploy("better", replicas=2, env={"A": "2"}, canary=Canary((20,)))
    return partial(promote, here.api, "fraud", "default", clock=here.clock)


def two(here):
    here.deploy("good", replicas=2, env={"A": "1"})
    here.deploy("better", replicas=2, most_replicas=4, env={"A": "2"})
    return partial(go_back, here.api, "fraud", "default", clock=here.clock)


@pytest.mark.parametrize(("begin", "serves"), [(canary, "r2"), (two, "r1")], ids=["promote", "rollback"])
def test_who_is_cut_off_at_any_write_goes_on_with_the_same_command(here, begin, serves):
    command, cuts = begin(here), 0
    for write in range(1, 40):
        try:
            with cut_off(here, write):
                command()
        except CutError:
            cuts += 1
        else:
            break
        command()
        sound(here)
        assert here.states()[serves] == "deployed"
        assert "fraud-canary" not in here.server.names("deployments")
        kubernetes.stop("fraud", kubernetes.Place())
        begin(here)
    assert cuts >= 8
    sound(here)


@pytest.mark.parametrize("plural", ["secrets", "deployments"], ids=["marked", "applied"])
def test_a_rollback_that_is_killed_goes_on_with_the_same_command(here, plural):
    two(here)
    words = [sys.executable, "-m", "corten", "rollback", "fraud", "--engine", "kubernetes"]
    before = len(here.server.seen)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until_s = time.monotonic() + 60
    while not any(call.method == "PATCH" and f"/{plural}/" in call.path for call in here.server.seen[before:]):
        assert time.monotonic() < until_s
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    sound(here)
    assert here.states() == {"r1": "deployed", "r2": "superseded"}


def sound(here):
    states = here.states()
    (serving,) = [label for label, state in states.items() if state == "deployed"]
    assert "progressing" not in states.values()
    assert here.revisions() == {serving}
    wanted = next(one for one in release_history(here) if one.label == serving).manifests
    there = {(kind, name) for kind in KINDS for name in here.server.names(kind)}
    assert there == {
        (f"{one['kind'].lower()}s".replace("policys", "policies"), one["metadata"]["name"]) for one in wanted
    }


def sound_between(here):
    """One serves, and answers; but for a canary nothing of others is there."""
    states = here.states()
    assert list(states.values()).count("deployed") == 1
    serving = release.current(release_history(here))
    revision = revision_in(serving.manifests)
    if revision:
        eventually(lambda: revision in shares(here))
    assert kubernetes.predict("fraud", [[1]], kubernetes.Place()) == {"outputs": [1]}
    if "progressing" not in states.values():
        found = objects.inventory(here.api, "fraud", discover(here.api, Cluster(namespace="default")))
        assert set(found) == {objects.identity(one) for one in serving.manifests}


def shares(here):
    return {target["revisionName"] for target in here.server.find("routes", "fraud")["status"].get("traffic", [])}


def release_history(here):
    return release.history(here.api, "fraud", "default")


class unhurt:
    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass
