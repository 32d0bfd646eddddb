"""What those who wait for a deployment are told."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from corten.control.actions import Seen
from corten.control.lines import line
from corten.control.reconcile import CRASH_LOOP
from corten.control.records import Deployment
from corten.core.deployment import ReplicaState, Revision, Settings
from corten.core.digest import Digest
from corten.core.rest import Rest

REVISION = Revision("m", 2, Digest.of(b""), Settings(), 0.0)
M = Deployment("m", 1, 1, REVISION, REVISION, None)
LOOP = [
    Seen(f"m-{n}", 2, ReplicaState.EXITED, running=False, since_s=float(n), restarts=n, reason="exit code 3")
    for n in range(CRASH_LOOP)
]


def test_a_revision_that_is_still_to_come_is_waited_for():
    found = line(M, {"r1": 3}, [], start_s=4.0)
    assert (found.weights, found.refusal, found.retry_s) == ({"r2": 0, "r1": 3}, "", 4.0)


def test_nobody_waits_for_what_is_stopped_given_up_or_keeps_ending():
    assert line(replace(M, deleting=True), {}, [], 1.0).refusal == "it is being stopped"
    assert line(replace(M, wanted=None), {}, [], 1.0).refusal == "nothing is wanted"
    assert line(M, {}, LOOP, 1.0).refusal == "it keeps ending (exit code 3)"
    assert line(M, {}, LOOP, 1.0).retry_s > 1.0
    assert line(M, {"r1": 1}, LOOP, 1.0).refusal == ""


@given(st.floats(0, 1e6), st.floats(1, 3600))
def test_nobody_is_told_to_come_back_at_once_or_later_than_he_would_have_waited(start_s, hold_s):
    held = replace(M, rest=Rest(hold_s=hold_s))
    assert 1.0 <= line(held, {}, [], start_s).retry_s <= hold_s
