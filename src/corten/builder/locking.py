"""Come by a lock: the one beside the project, the one in the cache, or a new one from index and mirror."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from corten.builder import lock as locks
from corten.builder import pylock
from corten.builder.debian.release import Deb, Release
from corten.builder.download import Downloader
from corten.builder.lock import Inputs, Lock
from corten.builder.pipeline import wheel_download
from corten.builder.pylock import Locked
from corten.builder.remote import Access, without_credentials
from corten.core.events import Event, Listener, Phase
from corten.core.platform import Platform
from corten.errors import UsageError

if TYPE_CHECKING:
    from concurrent.futures import Future

_STEP = "lock"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a build may do about its lock.

    `frozen` takes a project's as it is, whether it fits or not; `locked` forbids changing it, `offline` asking anybody,
    `anew` reusing it; `dry` keeps a new one out of the project.
    """

    frozen: bool = False
    locked: bool = False
    offline: bool = False
    anew: bool = False
    dry: bool = False

    def check(self) -> None:
        """Raise UsageError `cli.usage` for rules that contradict each other."""
        keep = "frozen" if self.frozen else "locked"
        if self.anew and (self.frozen or self.locked):
            raise UsageError(
                "cli.usage", f"--upgrade makes the lock anew, and --{keep} forbids it", hint="leave one out"
            )


@dataclass(frozen=True, slots=True)
class Early:
    """Who is told of a new lock while the rest of it is not known yet: its Debian packages and its wheels.

    Called from different threads, in either order.
    """

    debs: Callable[[tuple[Deb, ...]], None]
    wheels: Callable[[tuple[Locked, ...]], None]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where packages come from: the environment for uv, the Debian mirror, what fetches them."""

    env: Mapping[str, str]
    mirror: str
    access: Access
    downloads: Downloader


def frozen(beside: Path, platform: Platform) -> Lock:
    """A project's lock for a platform, whatever it was made from. Raises UsageError `build.lock_outdated`."""
    known = locks.read(beside)
    if found := locks.for_platform(known, platform):
        return found
    raise UsageError(
        "build.lock_outdated",
        f"the lock has nothing for {platform}" if known else "there is no lock",
        where=str(beside),
        why="--frozen takes the lock as it is",
        hint="build without --frozen once and keep corten.lock with the source",
    )


def obtain(
    inputs: Inputs,
    release: Release | None,
    *,
    beside: Path | None,
    cache: Path,
    rules: Rules,
    sources: Sources,
    now_s: float,
    clock: Callable[[], float],
    listen: Listener,
    early: Early | None = None,
) -> Lock:
    """The lock for these inputs, kept in `beside` (a project's lock file) or in the cache.

    `release` is the Debian release of the base, None when it stands on another image. `early` is told
    what of a new lock is known already. Raises UsageError `build.lock_outdated`,
    `build.offline`, `build.lock_failed`; RemoteError; PolicyError.
    """
    kept = _in_cache(inputs, cache, sources)
    path = beside if beside and (beside.exists() or os.access(beside.parent, os.W_OK)) else kept
    known = _known(path, cache)
    found = locks.fitting(known, inputs)
    if found and not rules.anew:
        listen(Event(_STEP, Phase.DONE, f"{len(found.wheels)} wheels as locked", {"cached": True, "path": str(path)}))
        return found
    _permitted(rules, path, beside, known)
    started_s = clock()
    listen(Event(_STEP, Phase.STARTED, f"resolving {len(inputs.requirements)} requirements"))
    lock = _resolved(
        inputs, release, cache=cache, sources=sources, dry=rules.dry, now_s=now_s, listen=listen, early=early
    )
    # Of locks in the cache each has a file of its own; a project's file holds one a platform.
    locks.write(kept if rules.dry else path, locks.with_lock(known, lock))
    figures = {"seconds": clock() - started_s, "wheels": len(lock.wheels), "debs": len(lock.debs), "path": str(path)}
    beneath = f"on {lock.base}" if lock.base else f"{len(lock.debs)} Debian packages"
    listen(Event(_STEP, Phase.DONE, f"{len(lock.wheels)} wheels, {beneath}", figures))
    return lock


def _in_cache(inputs: Inputs, cache: Path, sources: Sources) -> Path:
    # Another index may have other versions; its password is no part of the question.
    described = {
        name: " ".join(without_credentials(word) for word in text.split())
        for name, text in pylock.source_variables(sources.env).items()
        if not name.endswith(("_USERNAME", "_PASSWORD"))
    }
    asked = json.dumps([inputs.key, str(inputs.base or ""), described, sources.mirror])
    return cache / "locks" / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"


def _known(path: Path, cache: Path) -> tuple[Lock, ...]:
    try:
        return locks.read(path)
    except UsageError:
        if path.is_relative_to(cache):
            return ()  # the cache may be damaged; a project's own lock is for its owner to mend
        raise


def _permitted(rules: Rules, path: Path, beside: Path | None, known: tuple[Lock, ...]) -> None:
    if rules.locked or rules.frozen:
        raise UsageError(
            "build.lock_outdated",
            "the lock does not fit the requirements" if known else "there is no lock",
            where=str(path if known or beside else "the cache"),
            why=f"--{'locked' if rules.locked else 'frozen'} forbids changing it",
            hint="build without it once and keep corten.lock with the source",
        )
    if rules.offline:
        raise UsageError(
            "build.offline",
            "there is no lock for these requirements yet",
            where=str(path),
            why="locking asks the package index, and --offline forbids it",
            hint="build once without --offline",
        )


def _resolved(
    inputs: Inputs,
    release: Release | None,
    *,
    cache: Path,
    sources: Sources,
    dry: bool,
    now_s: float,
    listen: Listener,
    early: Early | None,
) -> Lock:
    from concurrent.futures import ThreadPoolExecutor

    from corten.builder import debian

    def beneath(release: Release) -> tuple[Deb, ...]:
        found = debian.resolve(
            release,
            inputs.platform,
            packages=inputs.packages,
            mirror=sources.mirror,
            cache=cache,
            now_s=now_s,
            listen=listen,
            proxies=sources.access.proxies,
        )
        if early:
            early.debs(found)
        return found

    with ThreadPoolExecutor(1, thread_name_prefix="corten-debian") as pool:
        debs = release and pool.submit(beneath, release)
        wheels = pylock.resolve(
            inputs.requirements,
            python=inputs.python,
            platform=inputs.platform,
            cache=cache,
            env=sources.env,
            gpu=inputs.gpu,
            constraints=inputs.constraints,
        )
        # They are on their way while the base is still being resolved.
        arriving = {
            wheel.digest: sources.downloads.submit(wheel_download(wheel, cache))
            for wheel in wheels
            if not (dry and wheel.size_bytes)
        }
        wheels = tuple(wheel if wheel.size_bytes else _sized(wheel, arriving[wheel.digest]) for wheel in wheels)
        if early:
            early.wheels(wheels)
        return Lock(
            inputs=inputs.key,
            platform=inputs.platform,
            release=inputs.release,
            python=inputs.python.version,
            debs=debs.result() if debs else (),
            wheels=wheels,
            base=inputs.base,
            purpose=inputs.purpose,
        )


def _sized(wheel: Locked, arriving: Future[Path]) -> Locked:
    # Simple indexes tell no sizes, and sizes decide how layers are grouped.
    return replace(wheel, size_bytes=arriving.result().stat().st_size)
