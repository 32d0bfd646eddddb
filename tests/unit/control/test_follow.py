"""Whoever waits for a change is told of it when it has come true, and not later."""

import json
import time

import pytest

from corten.control.follow import Follower
from corten.errors import UnhealthyError

ACCEPTED = {"deployment": "m", "revision": 1, "rollout": 1, "generation": 2, "changed": True, "after": 4}


class Daemon:
    """Answers as one whose last journal line comes a moment before what it tells of is in force."""

    def __init__(self):
        self.events = [{"seq": 5, "step": "routed", "phase": "done", "message": "a takes requests", "data": {}}]
        self.holds_s = []

    def get(self, path, *, timeout_s=0.0, after=0, wait_s="0"):
        del timeout_s
        if path.endswith("/events"):
            self.holds_s.append(float(wait_s))
            return {"events": [each for each in self.events if each["seq"] > after]}
        ready = 2 if len(self.holds_s) > 3 else 1
        rollout = {"id": 1, "state": "done", "target": "r1"}
        return {"revision": "r1", "state": "serving", "ready": ready, "wanted": 2, "rollout": rollout}


def test_the_journals_last_line_is_not_waited_after_for_seconds():
    daemon, told = Daemon(), []
    follower = Follower(daemon, lambda: daemon, ACCEPTED, told.append)
    assert follower.until_done(time.monotonic() + 60)["ready"] == 2
    assert len(told) == 1
    assert sum(daemon.holds_s) < 0.5


class Waiting(Daemon):
    """Answers as one that cannot reach its engine."""

    def get(self, path, *, timeout_s=0.0, after=0, wait_s="0"):
        if path == "/v1/status":
            return {"trouble": "docker cannot be reached"}
        view = super().get(path, timeout_s=timeout_s, after=after, wait_s=wait_s)
        return view if "events" in view else {**view, "rollout": {**view["rollout"], "state": "progressing"}}


def test_what_keeps_the_daemon_from_its_work_is_told_once_and_is_the_reason(monkeypatch):
    daemon, told, clock = Waiting(), [], iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    with pytest.raises(UnhealthyError) as caught:
        Follower(daemon, lambda: daemon, ACCEPTED, told.append).until_done(60.0)
    assert [event.message for event in told] == ["a takes requests", "docker cannot be reached"]
    assert caught.value.code == "deploy.timeout"
    assert caught.value.why.endswith("; docker cannot be reached")


class Failing(Daemon):
    """Answers as one whose replica ended before it was ready."""

    def get(self, path, *, timeout_s=0.0, after=0, wait_s="0"):
        error = {"type": "ModuleNotFoundError", "message": "No module named 'yaml'", "traceback": ["File m.py, line 2"]}
        line = json.dumps({"level": "critical", "message": "the model could not be loaded", "error": error})
        data = {"replica": "m-r1-a", "log": ["{} is no JSON of the server", line]}
        self.events = [{"seq": 5, "step": "rollout", "phase": "warning", "message": "failed", "data": data}]
        view = super().get(path, timeout_s=timeout_s, after=after, wait_s=wait_s)
        rollout = {"id": 1, "state": "failed", "target": "r1", "reason": "m-r1-a ended"}
        return view if "events" in view else {**view, "wanted": 0, "ready": 0, "rollout": rollout}


def test_what_a_replica_wrote_last_is_told_as_words_with_what_mends_it():
    daemon = Failing()
    with pytest.raises(UnhealthyError) as caught:
        Follower(daemon, lambda: daemon, ACCEPTED, lambda event: None).until_done(time.monotonic() + 60)
    assert caught.value.why.splitlines() == [
        "m-r1-a ended",
        "{} is no JSON of the server",
        "the model could not be loaded: ModuleNotFoundError: No module named 'yaml'",
        "File m.py, line 2",
    ]
    assert caught.value.hint.startswith("`yaml` is not in the image: add `pyyaml`")
    assert "corten logs m" in caught.value.hint
