"""Two hundred deployments in one go: at the same time, the same again, and so many requests."""

import pytest
from clusters import image, site

from corten.core.deployment import Settings
from corten.errors import UsageError
from corten.exporters.base import Workload
from corten.ops import kubernetes
from corten.testing import Fault

pytestmark = pytest.mark.kubernetes

# Of one deployment that was not there: history, five objects tried and made, two for its record and one for its state, a
# few looks at the rollout, five answers.
MOST_CALLS = 32


@pytest.fixture
def here(tmp_path, monkeypatch):
    yield from site(tmp_path, monkeypatch, tick_s=0.2)


def fleet(count):
    return [Workload(f"model-{number}", image(f"m{number}"), Settings()) for number in range(count)]


@pytest.mark.slow
def test_two_hundred_at_once_take_a_bounded_number_of_requests(here):
    results = kubernetes.deploy(fleet(200), kubernetes.Place())
    assert [one.error for one in results if one.error] == []
    assert len(here.server.names("deployments")) == 200
    assert len(here.server.seen) <= 200 * MOST_CALLS


def test_the_same_again_changes_nothing_and_asks_less(here):
    kubernetes.deploy(fleet(20), kubernetes.Place())
    first = len(here.server.seen)
    assert first <= 20 * MOST_CALLS
    names = here.server.names("deployments")
    before = {name: here.server.find("deployments", name)["metadata"]["generation"] for name in names}
    again = kubernetes.deploy(fleet(20), kubernetes.Place())
    assert not any(one.outcome.changed for one in again)
    assert len(here.server.seen) - first < first
    assert {name: here.server.find("deployments", name)["metadata"]["generation"] for name in names} == before


def test_one_that_fails_keeps_none_of_the_others_from_it(here):
    here.server.fault("team/m2", Fault.CRASH)
    results = kubernetes.deploy(fleet(5), kubernetes.Place())
    assert [bool(one.error) for one in results] == [False, False, True, False, False]
    assert results[2].error.code == "deploy.unhealthy"
    assert "model-2" not in here.server.names("deployments")


def test_two_of_one_name_are_refused_before_anything_is_sent(here):
    with pytest.raises(UsageError) as caught:
        kubernetes.deploy([*fleet(2), *fleet(1)], kubernetes.Place())
    assert caught.value.code == "kubernetes.same_name"
    assert here.server.seen == []
