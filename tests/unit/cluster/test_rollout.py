"""How far a rollout is and what keeps it, told from the words of Kubernetes."""

import pytest

from corten.cluster.rollout import Step, diagnose, is_ready, progress

REVISION = {"corten.dev/revision": "r2"}


def pod(*conditions, revision="r2", **container):
    status = {"conditions": [dict(zip(("type", "status", "message"), one, strict=False)) for one in conditions]}
    if container:
        status["containerStatuses"] = [{"name": "model", "restartCount": 0, **container}]
    return {"metadata": {"name": "fraud-x", "labels": {"corten.dev/revision": revision}}, "status": status}


READY = pod(("Ready", "True"))


def deployment(wanted=2, *, generation=3, observed=3, conditions=(), **counts):
    status = {"observedGeneration": observed, "conditions": list(conditions), **counts}
    return {"metadata": {"name": "fraud", "generation": generation}, "spec": {"replicas": wanted}, "status": status}


DONE = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}


def test_it_is_done_when_all_are_new_and_serve_and_the_controller_has_seen_the_change():
    assert progress(deployment(**DONE), [READY, READY], "r2").step is Step.DONE
    assert progress(deployment(**DONE, observed=2), [READY, READY], "r2").step is Step.PROGRESSING
    assert progress(deployment(**{**DONE, "replicas": 3}), [READY, READY], "r2").step is Step.PROGRESSING


def test_only_pods_of_the_new_revision_count_as_ready():
    old = pod(("Ready", "True"), revision="r1")
    seen = progress(deployment(**{**DONE, "updatedReplicas": 1, "replicas": 3}), [READY, old, old], "r2")
    assert (seen.step, seen.ready, seen.wanted) == (Step.PROGRESSING, 1, 2)


def test_none_wanted_is_done_with_none():
    assert progress(deployment(0), [], "r2").step is Step.DONE  # zeros are left out by the API
    assert progress(deployment(0, replicas=1), [], "r2").step is Step.PROGRESSING


def test_who_has_none_is_not_done_where_one_is_to_be_asked():
    resting = progress(deployment(0), [], "r2", least=1)
    assert (resting.step, resting.wanted) == (Step.PROGRESSING, 1)
    assert progress(deployment(**DONE), [READY, READY], "r2", least=1).step is Step.DONE


def test_a_deadline_of_the_change_before_is_not_this_ones():
    assert progress(deployment(conditions=[LATE], observed=2), [], "r2").step is Step.PROGRESSING
    assert progress(deployment(conditions=[LATE]), [], "r2").step is Step.FAILED


def test_a_crash_is_hopeless_after_the_third_time_and_no_deadline_is_waited_for():
    def crashed(times):
        over = {"terminated": {"exitCode": 1, "reason": "Error"}}
        waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
        return pod(restartCount=times, state=waiting, lastState=over)

    assert progress(deployment(), [crashed(2)], "r2").step is Step.PROGRESSING
    failed = progress(deployment(), [crashed(3)], "r2")
    assert failed.step is Step.FAILED
    assert "the model did not load" in failed.trouble.why


@pytest.mark.parametrize(
    ("status", "what", "hint"),
    [
        (pod(("PodScheduled", "False", "0/3 nodes: Insufficient cpu.")), "no node has room", "--cpus"),
        (
            pod(state={"waiting": {"reason": "ErrImagePull", "message": "pull access denied: authorization failed"}}),
            "cannot be pulled",
            "--pull-secret",
        ),
        (
            pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}),
            "cannot be pulled",
            "corten push",
        ),
        (
            pod(restartCount=1, state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),
            "out of memory",
            "--memory",
        ),
        (
            pod(state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}}),
            "cannot be made",
            "--secret",
        ),
    ],
    ids=["unschedulable", "denied", "missing", "memory", "secret"],
)
def test_what_keeps_a_pod_is_told_with_what_mends_it(status, what, hint):
    trouble = diagnose(status)
    assert what in trouble.what
    assert hint in trouble.hint


def test_a_pod_that_serves_or_begins_has_no_trouble():
    assert diagnose(READY) is None
    assert diagnose(pod(state={"waiting": {"reason": "ContainerCreating"}})) is None


def test_pods_that_were_refused_are_told_in_the_controllers_words():
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: team"}
    assert progress(deployment(conditions=[refused]), [], "r2").trouble.why == "exceeded quota: team"


@pytest.mark.parametrize(
    ("why", "hint"),
    [
        ('pods "x" is forbidden: exceeded quota: t, requested: pods=1, used: pods=9, limited: pods=9', "quota raised"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true', "restricted"),
        ('admission webhook "p" denied the request: unsigned', "policy"),
        ('pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi', "ask who runs"),
    ],
)
def test_what_mends_that_depends_on_who_refused(why, hint):
    refused = {"type": "ReplicaFailure", "status": "True", "message": why}
    assert hint in progress(deployment(conditions=[refused]), [], "r2").trouble.hint


def test_a_pod_that_ends_gets_no_requests_whatever_it_says_of_itself():
    ending = {**READY, "metadata": {**READY["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert is_ready(READY)
    assert not is_ready(ending)
