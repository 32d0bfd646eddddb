"""The control plane's memory: SQLite, one transaction a change, its journal line in the same one, synced first.

Made and used on one thread. Times are given in; `now_s` is seconds since the epoch on the daemon's steady clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import msgspec

from corten.control.credentials import Credentials
from corten.control.database import open_database
from corten.control.records import Accepted, Deployment, Scale
from corten.control.replicas import Replicas
from corten.control.rollouts import Rollouts
from corten.control.suspects import Suspects
from corten.core.access import Access, Auth
from corten.core.canary import Canary
from corten.core.deployment import ACCESS_KEYS, RolloutState, Settings
from corten.core.digest import Digest
from corten.core.events import Phase
from corten.core.front import Front
from corten.errors import NotFoundError

_NOT_THE_REVISIONS = ("replicas", "most_replicas", "concurrency", "canary", "strategy", "rest", *ACCESS_KEYS)


class State(Rollouts, Replicas):
    """All of it in one file, and the changes users and the scaler make."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or make the file; raises CortenError (`state.corrupt`, `state.too_new`, `state.unusable`)."""
        return cls(open_database(path), path)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def credentials(self) -> Credentials:
        """Whose tokens are valid, in the same file."""
        return Credentials(self._connection, self._path)

    @property
    def suspects(self) -> Suspects:
        """Requests that may have ended their replica, in the same file."""
        return Suspects(self._connection, self._path)

    # What users change

    def deploy(
        self,
        name: str,
        image: Digest,
        settings: Settings,
        *,
        generation: int | None,
        now_s: float,
        swap: bool = False,
    ) -> Accepted:
        """Want this image under these settings: a new revision and a rollout to it, by `swap` or surge.

        Only a different number of replicas makes no revision, it scales; no difference at all changes nothing.
        Raises CortenError `control.conflict` when `generation` is given and is not the current one (0: none exists).
        """
        with self._transaction():
            known = self._compare(name, generation)
            after = self.last_seq()
            same = known is not None and self._same(known, image, settings)
            replicas = _replicas_for(settings, known)
            if known is not None and known.wanted is not None and same:
                rescaled = known.replicas != replicas or known.scale != _scale_of(settings)
                scaled = rescaled or known.rest != settings.rest
                if scaled:
                    self._set_scale(name, settings, replicas)
                if rescaled:
                    self._say(name, "scale", f"{known.replicas} to {_told(replicas, settings)} replicas", now_s)
                changed = self._set_access(known, settings, now_s) or scaled
                now_at = self._raise_generation(name) if changed else known.generation
                rollout = known.rollout.id if known.rollout else None
                return Accepted(name, known.wanted.number, now_at, changed, rollout, after)
            if known is None:
                self._run(
                    "INSERT INTO deployments (name, generation, replicas, created_s) VALUES (?, 0, ?, ?)",
                    *(name, replicas, now_s),
                )
            self._set_access(self.deployment(name), settings, now_s)
            number = self._add_revision(name, image, settings, now_s)
            # A revision has to show that it gets ready, also where none is needed for now.
            awake = max(replicas, 1)
            keep = settings.rest.keep_previous_s > 0 and not swap
            accepted = self._roll_to(
                name, number, awake, known, settings.canary, after=after, now_s=now_s, swap=swap, keep=keep
            )
            self._set_scale(name, settings, awake)
            return accepted

    def promote(self, name: str, share: int, *, generation: int | None, now_s: float) -> Accepted:
        """Give the revision that is a canary this share of the requests, in percent (100: all, and the other ends).

        A share the user chose is not judged: it stays until the user says otherwise. Raises NotFoundError
        (`control.unknown_deployment`, `control.no_canary`) and CortenError `control.conflict`.
        """
        with self._transaction():
            known = self._compare(name, generation) or self.deployment(name)
            rollout = known.canary
            if rollout is None or known.wanted is None:
                raise NotFoundError(
                    "control.no_canary",
                    f"`{name}` has no canary",
                    why="no revision is being tried on a share of the requests",
                    hint=f"deploy one with `--canary auto`; see `corten status {name}`",
                )
            after = self.last_seq()
            told = msgspec.to_builtins(rollout.compared) if rollout.mirror else {}
            data = {"compared": told} if told else None
            self._share(replace(rollout, share=share, steps=(), judged=False), rollout.share, "told so", now_s, data)
            now_at = self._raise_generation(name)
            return Accepted(name, known.wanted.number, now_at, changed=True, rollout=rollout.id, after=after)

    def roll_back(
        self, name: str, to: int | None, *, generation: int | None, now_s: float, swap: bool = False
    ) -> Accepted:
        """Want an earlier revision again (None: the one before, or the serving one while a rollout goes on).

        Raises NotFoundError (`control.unknown_deployment`, `control.unknown_revision`, `control.no_earlier_revision`)
        and CortenError `control.conflict`.
        """
        with self._transaction():
            known = self._compare(name, generation)
            if known is None:
                self.deployment(name)
                raise AssertionError
            number = self._revision_before(known) if to is None else self.revision(name, to).number
            after = self.last_seq()
            if known.wanted is not None and known.wanted.number == number and not known.deleting:
                rollout = known.rollout.id if known.rollout else None
                return Accepted(name, number, known.generation, changed=False, rollout=rollout, after=after)
            keep = known.rest.keep_previous_s > 0 and not swap
            awake = max(known.replicas, 1)
            return self._roll_to(name, number, awake, known, Canary(), after=after, now_s=now_s, swap=swap, keep=keep)

    def restart(self, name: str, *, generation: int | None, now_s: float, swap: bool = False) -> Accepted:
        """Want what is wanted already once more: a new revision of the same image and settings, without a canary.

        Raises NotFoundError `control.unknown_deployment` and CortenError `control.conflict`.
        """
        with self._transaction():
            known = self._compare(name, generation) or self.deployment(name)
            if known.wanted is None:
                raise NotFoundError("control.unknown_deployment", f"`{name}` is being stopped", hint="corten status")
            after = self.last_seq()
            number = self._add_revision(name, known.wanted.image, known.wanted.settings, now_s)
            awake = max(known.replicas, 1)
            # What it was before is what it will be: nothing to go back to.
            return self._roll_to(name, number, awake, known, Canary(), after=after, now_s=now_s, swap=swap, keep=False)

    def delete(self, name: str, *, now_s: float) -> int:
        """Want it gone: every replica drained and removed, then its rows. The last journal `seq` before that."""
        with self._transaction():
            known = self.deployment(name)
            after = self.last_seq()
            if not known.deleting:
                self._end_rollout(name, RolloutState.FAILED, "the deployment is being stopped", now_s)
                self._run("UPDATE deployments SET deleting = 1, wanted = NULL WHERE name = ?", name)
                self._raise_generation(name)
                self._say(name, "stop", "stopping", now_s, phase=Phase.STARTED)
            return after

    def forget(self, name: str, *, now_s: float) -> None:
        """Drop a deployment that is gone; its journal stays."""
        with self._transaction():
            self._run("UPDATE deployments SET wanted = NULL, serving = NULL WHERE name = ?", name)
            self._run("DELETE FROM deployments WHERE name = ?", name)
            self._say(name, "stop", "stopped", now_s, phase=Phase.DONE)

    # What the requests change

    def scale(
        self, name: str, replicas: int, reason: str, *, now_s: float, data: Mapping[str, Any], resting: int = 0
    ) -> None:
        """The requests take so many replicas now, and so many frozen ones. No change of the user's, and not synced."""
        with self._transaction(synced=False):
            known = self.find(name)
            if known is None or known.scale is None or known.deleting:
                return
            if (known.replicas, known.resting) == (replicas, resting):
                return
            self._run("UPDATE deployments SET replicas = ?, resting = ? WHERE name = ?", replicas, resting, name)
            message = f"{_scaled(known, replicas, resting)}: {reason}"
            self._say(name, "scale", message, now_s, phase=Phase.DONE, data={"was": known.replicas, **data})

    def drop_fallback(self, name: str, reason: str, *, now_s: float) -> None:
        """Keep no replica of an earlier revision frozen any more."""
        with self._transaction():
            known = self.find(name)
            if known is None or known.fallback is None:
                return
            self._run("UPDATE deployments SET fallback = NULL WHERE name = ?", name)
            self._say(name, "rest", f"r{known.fallback} is kept frozen no longer: {reason}", now_s, phase=Phase.DONE)

    # Settings

    def setting(self, key: str) -> str:
        """A setting's value, empty when it was never set."""
        row = self._one("SELECT value FROM settings WHERE key = ?", key)
        return str(row["value"]) if row else ""

    def set_setting(self, key: str, value: str) -> None:
        """Keep a setting."""
        self._run(
            "INSERT INTO settings VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value
        )

    def front(self) -> Front:
        """Where the gateway takes requests."""
        kept = self.setting("front")
        return msgspec.json.decode(kept, type=Front) if kept else Front()

    def set_front(self, front: Front) -> None:
        """Keep where the gateway takes requests."""
        self.set_setting("front", msgspec.json.encode(front).decode())

    # Parts

    @staticmethod
    def _same(known: Deployment, image: Digest, settings: Settings) -> bool:
        if known.wanted is None or known.deleting or known.wanted.image != image:
            return False
        return _shape(known.wanted.settings) == _shape(settings)

    def _set_access(self, known: Deployment, settings: Settings, now_s: float) -> bool:
        """Who may ask from now on; whether that is a change."""
        before = Access() if known.deleting else known.access
        access = settings.access(before)
        if access == known.access:
            return False
        text = msgspec.json.encode(access).decode()
        self._run("UPDATE deployments SET access = ? WHERE name = ?", text, known.name)
        data = {"was": msgspec.to_builtins(known.access), "now": msgspec.to_builtins(access)}
        self._say(known.name, "access", _told_access(access), now_s, phase=Phase.DONE, data=data)
        return True

    def _set_scale(self, name: str, settings: Settings, replicas: int) -> None:
        scale = _scale_of(settings) or Scale(0, 0, settings.concurrency)
        rest = msgspec.json.encode(settings.rest).decode()
        self._run(
            "UPDATE deployments SET replicas = ?, least = ?, most = ?, concurrency = ?, rest = ? WHERE name = ?",
            *(replicas, scale.least, scale.most, scale.concurrency, rest, name),
        )


def _shape(settings: Settings) -> dict[str, Any]:
    """All that makes a revision; how many replicas is the deployment's, the canary the rollout's."""
    return {key: value for key, value in msgspec.to_builtins(settings).items() if key not in _NOT_THE_REVISIONS}


def _scale_of(settings: Settings) -> Scale | None:
    if settings.most_replicas <= settings.replicas:
        return None
    return Scale(settings.replicas, settings.most_replicas, settings.concurrency)


def _replicas_for(settings: Settings, known: Deployment | None) -> int:
    """How many to begin with: where the requests decide, what they had decided, within the new bounds."""
    scale = _scale_of(settings)
    if scale is None or known is None or known.deleting:
        return max(settings.replicas, 1)
    return min(max(known.replicas, scale.least), scale.most)


def _scaled(known: Deployment, replicas: int, resting: int) -> str:
    if known.replicas == replicas:
        return f"{replicas} replicas, " + ("one frozen" if resting else "the frozen one is stopped")
    frozen = ", frozen" if resting else ""
    return f"{known.replicas} to {replicas} replicas{frozen}"


def _told(replicas: int, settings: Settings) -> str:
    scale = _scale_of(settings)
    return f"{replicas} (of {scale.least}..{scale.most})" if scale else str(replicas)


def _told_access(access: Access) -> str:
    who = "whoever has a token" if access.auth is Auth.TOKEN else "everybody"
    return f"{who} may ask" + (f", {access.rate_per_s} requests a second" if access.rate_per_s else "")
