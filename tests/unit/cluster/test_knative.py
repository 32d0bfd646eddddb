"""What Knative says of a revision, and what that means for who waits for it."""

import pytest

from corten.cluster.knative import progress, with_shares
from corten.cluster.rollout import Step


def said(*conditions, generation=1, observed=1, **status):
    """An object with conditions (`type`, `status`, `reason`, `message`)."""
    named = [dict(zip(("type", "status", "reason", "message"), one, strict=False)) for one in conditions]
    return {
        "metadata": {"name": "fraud", "generation": generation},
        "status": {"observedGeneration": observed, "conditions": named, **status},
    }


def pod(ready="True", **container):
    status = {"conditions": [{"type": "Ready", "status": ready}]}
    if container:
        status["containerStatuses"] = [{"name": "model", **container}]
    return {"metadata": {"name": "fraud-x", "labels": {}}, "status": status}


def crashed(times):
    over = {"terminated": {"exitCode": 1}}
    return pod("False", restartCount=times, state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=over)


SERVICE = said(("ConfigurationsReady", "Unknown"))
CRASH = said(("Ready", "False", "ExitCode1", "Container failed with: "))


def test_it_is_done_when_knative_says_so_with_pods_or_without():
    done = said(("Ready", "True"))
    seen = progress(SERVICE, done, [pod()], late=False)
    assert (seen.step, seen.ready, seen.wanted) == (Step.DONE, 1, 1)
    seen = progress(SERVICE, done, [], late=True)
    assert (seen.step, seen.ready, seen.wanted) == (Step.DONE, 0, 0)


def test_one_crash_is_no_failure_though_knative_says_false():
    assert progress(SERVICE, CRASH, [crashed(1)], late=False).step is Step.PROGRESSING
    assert progress(SERVICE, CRASH, [crashed(3)], late=False).step is Step.FAILED
    assert progress(SERVICE, CRASH, [crashed(1)], late=True).step is Step.FAILED


def test_a_node_that_is_full_may_be_joined_by_another():
    full = said(("Ready", "False", "Unschedulable", "0/3 nodes are available"))
    assert progress(SERVICE, full, [pod("False")], late=False).step is Step.PROGRESSING


@pytest.mark.parametrize("reason", ["ProgressDeadlineExceeded", "ImagePullBackOff", "ContainerMissing"])
def test_what_knative_has_given_up_is_a_failure_in_its_words(reason):
    seen = progress(SERVICE, said(("Ready", "False", reason, "why")), [], late=False)
    assert seen.step is Step.FAILED
    assert reason in seen.trouble.what
    assert seen.trouble.why == "why"


def test_a_revision_that_cannot_be_made_is_a_failure_once_it_was_tried():
    refused = (("ConfigurationsReady", "False", "RevisionFailed", "denied by a policy"),)
    assert progress(said(*refused), None, [], late=False).trouble.why == "denied by a policy"
    assert progress(said(*refused, generation=2), None, [], late=False).step is Step.PROGRESSING
    # Of a deployment that was stopped a moment ago.
    taken = said(("ConfigurationsReady", "False", "RevisionFailed", 'revisions "fraud-r1" already exists.'))
    assert progress(taken, None, [], late=False).step is Step.PROGRESSING
    assert progress(taken, None, [], late=True).step is Step.FAILED


def test_shares_are_those_of_revisions_by_name_or_nobodys():
    service = {"spec": {"traffic": []}}
    given = with_shares(service, {"fraud-r1": 90, "fraud-r2": 10})["spec"]["traffic"]
    assert [(one["revisionName"], one["percent"]) for one in given] == [("fraud-r1", 90), ("fraud-r2", 10)]
    assert with_shares(service, {})["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    assert service["spec"]["traffic"] == []
