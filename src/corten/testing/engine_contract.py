"""What every engine must do. Subclass `EngineContract`, name it `Test...`, and give it the three fixtures."""

# ruff: noqa: D102 -- the name of a test is its sentence
from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import pytest

from corten.core.digest import Digest
from corten.engine.base import Engine, Observed, ReplicaSpec
from corten.errors import EngineError, NotFoundError, UsageError

_DEADLINE_S = 20.0


class Images(Protocol):
    """Images to run the contract with, each in the store of the engine under test.

    `obedient` prints `hello`, `CORTEN_REVISION=...` and, where it has a secret KEY, `KEY=` and the SHA-256 of the file
    at KEY_FILE, in hexadecimal; it waits, and exits with 0 on SIGTERM. `stubborn` ignores SIGTERM. `failing` prints
    `cannot go on` and exits with 3. `careless` has no handler for SIGTERM.
    """

    @property
    def obedient(self) -> Digest: ...
    @property
    def stubborn(self) -> Digest: ...
    @property
    def failing(self) -> Digest: ...
    @property
    def careless(self) -> Digest: ...


class EngineContract:
    """The contract as tests.

    Fixtures to provide: `make_engine` (called twice it gives two engines on the same machine and home, as a daemon and
    its successor are), `images`, `settle(engine, id)`, which waits until a replica has come as far as it comes by
    itself, and `holding(value)`, the places where some bytes are, of all the engine may have written to.
    """

    @pytest.fixture
    def engine(self, make_engine: Callable[[], Engine]) -> Engine:
        """The engine under test; what it still has at the end is removed."""
        return make_engine()

    @pytest.fixture(autouse=True)
    def _clean(self, make_engine: Callable[[], Engine]) -> Iterator[None]:
        yield
        engine = make_engine()
        for seen in engine.list():
            engine.remove(seen.id)

    # -- life

    def test_it_says_what_isolation_it_gives(self, engine: Engine) -> None:
        described = engine.describe()
        assert described["sandbox"]
        assert all(isinstance(text, str) for text in described.values())

    def test_preparing_twice_does_no_harm(self, engine: Engine, images: Images) -> None:
        engine.prepare(images.obedient)
        engine.prepare(images.obedient)

    def test_an_image_that_is_not_there_cannot_be_prepared(self, engine: Engine) -> None:
        with pytest.raises(NotFoundError):
            engine.prepare(Digest("0" * 64))

    def test_an_image_that_is_not_there_cannot_be_started_and_leaves_nothing(self, engine: Engine) -> None:
        with pytest.raises(NotFoundError):
            engine.start(_spec("gone-r1-a", Digest("0" * 64)))
        assert engine.list() == []

    def test_a_started_replica_is_listed_as_running(self, engine: Engine, images: Images) -> None:
        started = engine.start(_spec("a-r1-x", images.obedient))
        assert started.running
        assert started.exit_code is None
        assert started.pid > 0
        assert started.address
        assert engine.list() == [started]

    def test_starting_the_same_replica_again_changes_nothing(self, engine: Engine, images: Images) -> None:
        first = engine.start(_spec("a-r1-x", images.obedient))
        assert engine.start(_spec("a-r1-x", images.obedient)) == first
        assert len(engine.list()) == 1

    def test_an_id_is_not_given_to_another_replica(self, engine: Engine, images: Images) -> None:
        engine.start(_spec("a-r1-x", images.obedient))
        with pytest.raises(EngineError):
            engine.start(_spec("a-r1-x", images.failing))
        assert _seen(engine, "a-r1-x").running

    @pytest.mark.parametrize("bad", ["", "../x", "a/b", "A", "-a", "a" * 65, "a\n", "."])
    def test_an_id_that_could_be_a_path_is_refused(self, engine: Engine, images: Images, bad: str) -> None:
        for use in (lambda: engine.start(_spec(bad, images.obedient)), lambda: engine.remove(bad)):
            with pytest.raises(UsageError):
                use()

    def test_replicas_of_several_deployments_are_told_apart(self, engine: Engine, images: Images) -> None:
        engine.start(_spec("a-r1-x", images.obedient, deployment="a", revision=1))
        engine.start(_spec("b-r7-y", images.obedient, deployment="b", revision=7))
        assert [(seen.id, seen.deployment, seen.revision) for seen in engine.list()] == [
            ("a-r1-x", "a", 1),
            ("b-r7-y", "b", 7),
        ]
        assert len({(seen.address, seen.pid) for seen in engine.list()}) == 2

    def test_many_replicas_can_be_started_at_once(self, engine: Engine, images: Images) -> None:
        specs = [_spec(f"a-r1-{number}", images.obedient) for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            started = [*pool.map(engine.start, specs)]
        assert all(seen.running for seen in started)
        assert sorted(seen.id for seen in engine.list()) == [spec.id for spec in specs]

    def test_a_replica_reads_its_secrets_and_they_are_nowhere_afterwards(
        self, engine: Engine, images: Images, settle: Callable[[Engine, str], None], holding: Callable[[bytes], object]
    ) -> None:
        value = secrets.token_hex(16).encode()
        given = hashlib.sha256(value).hexdigest()
        for replica_id in ("a-r1-x", "a-r1-y"):
            engine.start(replace(_spec(replica_id, images.obedient), secrets={"KEY": value}))
            settle(engine, replica_id)
            _wait_for_log(engine, replica_id, ["hello", "CORTEN_REVISION=r1", f"KEY={given}"])
        engine.remove("a-r1-x")
        assert _seen(engine, "a-r1-y").running
        engine.kill("a-r1-y")
        _wait_for_end(engine, "a-r1-y")
        assert not holding(value)

    # -- ends

    def test_terminate_lets_a_replica_end_by_itself(
        self, engine: Engine, images: Images, settle: Callable[[Engine, str], None]
    ) -> None:
        engine.start(_spec("a-r1-x", images.obedient))
        settle(engine, "a-r1-x")
        engine.terminate("a-r1-x")
        ended = _wait_for_end(engine, "a-r1-x")
        assert ended.exit_code in (0, 143)
        assert ended.pid == 0

    def test_terminate_ends_a_replica_without_handler_too(
        self, engine: Engine, images: Images, settle: Callable[[Engine, str], None]
    ) -> None:
        engine.start(_spec("a-r1-x", images.careless))
        settle(engine, "a-r1-x")
        engine.terminate("a-r1-x")
        assert _wait_for_end(engine, "a-r1-x").exit_code == 143

    def test_a_stubborn_replica_is_ended_by_kill_only(
        self, engine: Engine, images: Images, settle: Callable[[Engine, str], None]
    ) -> None:
        engine.start(_spec("a-r1-x", images.stubborn))
        settle(engine, "a-r1-x")
        engine.terminate("a-r1-x")
        time.sleep(0.05)
        assert _seen(engine, "a-r1-x").running
        engine.kill("a-r1-x")
        assert _wait_for_end(engine, "a-r1-x").exit_code == 137

    def test_the_exit_code_of_a_replica_that_fails_is_seen_and_stays(
        self, engine: Engine, images: Images, settle: Callable[[Engine, str], None]
    ) -> None:
        engine.start(_spec("a-r1-x", images.failing))
        settle(engine, "a-r1-x")
        assert _wait_for_end(engine, "a-r1-x").exit_code == 3
        assert _seen(engine, "a-r1-x").exit_code == 3

    def test_ending_what_has_ended_does_nothing(self, engine: Engine, images: Images) -> None:
        engine.start(_spec("a-r1-x", images.obedient))
        engine.kill("a-r1-x")
        ended = _wait_for_end(engine, "a-r1-x")
        engine.terminate("a-r1-x")
        engine.kill("a-r1-x")
        assert _seen(engine, "a-r1-x") == ended

    def test_an_ended_replica_is_not_started_again_by_repeating_start(self, engine: Engine, images: Images) -> None:
        engine.start(_spec("a-r1-x", images.obedient))
        engine.kill("a-r1-x")
        _wait_for_end(engine, "a-r1-x")
        assert not engine.start(_spec("a-r1-x", images.obedient)).running

    def test_removing_a_running_replica_ends_it(self, engine: Engine, images: Images) -> None:
        engine.start(_spec("a-r1-x", images.obedient))
        engine.remove("a-r1-x")
        assert engine.list() == []
        assert engine.logs("a-r1-x") == []

    def test_verbs_on_an_unknown_id_do_nothing(self, engine: Engine) -> None:
        engine.terminate("nobody-r1-x")
        engine.kill("nobody-r1-x")
        engine.remove("nobody-r1-x")
        engine.remove("nobody-r1-x")
        assert engine.logs("nobody-r1-x") == []
        assert engine.list() == []

    # -- freezing

    def test_a_frozen_replica_runs_on_paper_only_and_is_thawed(
        self, engine: Engine, images: Images, settle: Callable[[Engine, str], None]
    ) -> None:
        started = engine.start(_spec("a-r1-x", images.obedient))
        settle(engine, "a-r1-x")
        for _ in range(2):
            engine.freeze("a-r1-x")
            seen = _seen(engine, "a-r1-x")
            assert (seen.frozen, seen.running, seen.pid) == (True, True, started.pid)
        for _ in range(2):
            engine.thaw("a-r1-x")
            assert not _seen(engine, "a-r1-x").frozen

    def test_a_frozen_replica_can_be_asked_to_end(
        self, engine: Engine, images: Images, settle: Callable[[Engine, str], None]
    ) -> None:
        engine.start(_spec("a-r1-x", images.obedient))
        settle(engine, "a-r1-x")
        engine.freeze("a-r1-x")
        engine.terminate("a-r1-x")
        assert not _wait_for_end(engine, "a-r1-x").frozen

    def test_a_frozen_replica_can_be_killed_and_removed(
        self, engine: Engine, images: Images, settle: Callable[[Engine, str], None]
    ) -> None:
        for number in range(2):
            engine.start(_spec(f"a-r1-{number}", images.stubborn))
            settle(engine, f"a-r1-{number}")
            engine.freeze(f"a-r1-{number}")
        engine.kill("a-r1-0")
        assert _wait_for_end(engine, "a-r1-0").exit_code == 137
        engine.remove("a-r1-1")
        engine.thaw("a-r1-1")
        engine.freeze("a-r1-0")
        assert [seen.id for seen in engine.list()] == ["a-r1-0"]

    # -- logs

    def test_logs_are_the_last_lines_oldest_first(
        self, engine: Engine, images: Images, settle: Callable[[Engine, str], None]
    ) -> None:
        engine.start(_spec("a-r1-x", images.obedient, revision=5))
        settle(engine, "a-r1-x")
        _wait_for_log(engine, "a-r1-x", ["hello", "CORTEN_REVISION=r5"])
        assert engine.logs("a-r1-x", tail=1) == ["CORTEN_REVISION=r5"]
        assert engine.logs("a-r1-x", tail=0) == []

    def test_the_log_of_an_ended_replica_stays_until_it_is_removed(
        self, engine: Engine, images: Images, settle: Callable[[Engine, str], None]
    ) -> None:
        engine.start(_spec("a-r1-x", images.failing))
        settle(engine, "a-r1-x")
        _wait_for_end(engine, "a-r1-x")
        _wait_for_log(engine, "a-r1-x", ["cannot go on"])

    # -- the engine's own end

    def test_a_second_engine_sees_and_ends_what_the_first_started(
        self, make_engine: Callable[[], Engine], images: Images, settle: Callable[[Engine, str], None]
    ) -> None:
        first = make_engine()
        started = first.start(_spec("a-r1-x", images.obedient))
        settle(first, "a-r1-x")
        del first
        second = make_engine()
        assert second.list() == [started]
        second.kill("a-r1-x")
        assert not _wait_for_end(second, "a-r1-x").running
        second.remove("a-r1-x")
        assert make_engine().list() == []


def _spec(replica_id: str, image: Digest, *, deployment: str = "a", revision: int = 1) -> ReplicaSpec:
    return ReplicaSpec(replica_id, deployment, revision, image)


def _seen(engine: Engine, replica_id: str) -> Observed:
    return next(seen for seen in engine.list() if seen.id == replica_id)


def _wait_for_end(engine: Engine, replica_id: str) -> Observed:
    deadline_s = time.monotonic() + _DEADLINE_S
    while (seen := _seen(engine, replica_id)).running:
        assert time.monotonic() < deadline_s, f"{replica_id} still runs: {engine.logs(replica_id)}"
        time.sleep(0.01)
    return seen


def _wait_for_log(engine: Engine, replica_id: str, lines: Sequence[str]) -> None:
    deadline_s = time.monotonic() + _DEADLINE_S
    while (seen := engine.logs(replica_id)) != lines:
        assert time.monotonic() < deadline_s, f"{replica_id} wrote {seen}"
        time.sleep(0.01)
