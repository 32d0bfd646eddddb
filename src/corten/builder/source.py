"""What the user gave, as values: `model.joblib`, `annotator.py:Annotator`, or a folder with its settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from corten.adapters.base import Source
from corten.builder.lock import LOCK_FILE
from corten.builder.texts import check_texts
from corten.core.acceleration import Accelerate
from corten.core.canary import parse_canary, parse_sticky
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.image import Packing
from corten.core.model import MOST_STREAMS, MOST_WORKERS, Batching, Limits
from corten.core.name import parse_name, suggest_name
from corten.core.reference import Reference
from corten.core.resources import Resources, parse_cpus, parse_device, parse_gpus, parse_memory
from corten.core.rest import Rest, Strategy
from corten.core.scale import parse_replicas
from corten.errors import CortenError, NotFoundError, UsageError

PROJECT_FILE = "corten.toml"


@dataclass(frozen=True, slots=True)
class Project:
    """A source with its settings. `folder` is where its settings and its lock lie; None for a bare file."""

    name: str
    source: Source
    folder: Path | None = None
    python: str = ""
    base: Reference | None = None  # None: packages of Debian
    packages: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    batching: Batching = field(default_factory=Batching)
    workers: int = 1  # 0: as many as there are processors
    streams: int = 1
    limits: Limits = field(default_factory=Limits)
    settings: Settings = field(default_factory=Settings)
    grpc: bool = False
    webhook_hosts: tuple[str, ...] = ()
    gpu: bool = False
    packing: Packing = Packing.AUTO
    max_image_mb: float = 0.0  # 0: any size
    max_cold_start_s: float = 0.0  # 0: any time
    accelerate: Accelerate = Accelerate.OFF

    @property
    def lock_file(self) -> Path | None:
        """Where the lock is kept beside the source, for a project folder."""
        return self.folder / LOCK_FILE if self.folder else None


_SETTINGS = Settings()
_BATCHING = Batching()
_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Table:
    """`corten.toml`, or `[tool.corten]` of pyproject.toml. Every key has a default."""

    name: str = ""
    source: str = ""
    requirements: tuple[str, ...] = ()
    python: str = ""
    base: str = ""
    packages: tuple[str, ...] = ()
    method: str = ""
    files: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    replicas: int | str = _SETTINGS.replicas
    concurrency: int = _SETTINGS.concurrency
    memory: int | str = 0
    cpus: float = 0.0
    gpus: int = 0
    devices: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    egress: bool = _SETTINGS.egress
    ready_timeout_s: float = _SETTINGS.ready_timeout_s
    drain_s: float = _SETTINGS.drain_s
    max_body_bytes: int = _SETTINGS.max_body_bytes
    request_timeout_s: float = _SETTINGS.request_timeout_s
    canary: str = "off"
    sticky: str = ""
    mirror: int = 0
    auth: Literal["", "none", "token"] = ""
    rate_per_s: int = _SETTINGS.rate_per_s
    burst: int = _SETTINGS.burst
    pinnable: bool = _SETTINGS.pinnable
    pure: bool = _SETTINGS.pure
    strategy: Strategy = _SETTINGS.strategy
    freeze_after_s: float = _SETTINGS.rest.freeze_after_s
    stop_after_s: float = _SETTINGS.rest.stop_after_s
    hold_s: float = _SETTINGS.rest.hold_s
    hold_requests: int = _SETTINGS.rest.hold_requests
    keep_previous_s: float = _SETTINGS.rest.keep_previous_s
    batch_rows: int = _BATCHING.max_rows
    queue: int = _LIMITS.queue
    workers: int | Literal["auto"] = 1
    streams: int = 1
    stream_timeout_s: float = _LIMITS.stream_timeout_s
    job_timeout_s: float = _LIMITS.job_timeout_s
    grpc: bool = False
    webhook_hosts: tuple[str, ...] = ()
    gpu: bool = False
    compression: Packing = Packing.AUTO
    max_image_mb: float = 0.0
    max_cold_start_s: float = 0.0
    accelerate: Accelerate = Accelerate.OFF
    trust: tuple[str, ...] = ()

    def settings(self) -> Settings:
        """How the image is to be run.

        Raises UsageError `scale.malformed`, `resources.malformed`, `canary.malformed`.
        """
        least, most = parse_replicas(str(self.replicas))
        return Settings(
            replicas=least,
            most_replicas=most,
            concurrency=self.concurrency,
            env=self.env,
            egress=self.egress,
            ready_timeout_s=self.ready_timeout_s,
            drain_s=self.drain_s,
            max_body_bytes=self.max_body_bytes,
            request_timeout_s=self.request_timeout_s,
            grpc=self.grpc,
            canary=replace(parse_canary(self.canary), sticky=parse_sticky(self.sticky), mirror=self.mirror),
            resources=Resources(
                memory_bytes=parse_memory(str(self.memory)),
                cpus=parse_cpus(f"{self.cpus:g}"),
                gpus=parse_gpus(str(self.gpus)),
                devices=tuple(map(parse_device, self.devices)),
            ),
            auth=self.auth,
            rate_per_s=self.rate_per_s,
            burst=self.burst,
            pinnable=self.pinnable,
            pure=self.pure,
            strategy=self.strategy,
            rest=Rest(
                freeze_after_s=self.freeze_after_s,
                stop_after_s=self.stop_after_s,
                hold_s=self.hold_s,
                hold_requests=self.hold_requests,
                keep_previous_s=self.keep_previous_s,
            ),
        )

    def limits(self) -> Limits:
        """What a replica takes on."""
        return Limits(
            self.max_body_bytes, self.queue, self.request_timeout_s, self.stream_timeout_s, self.job_timeout_s
        )


def read_project(
    text: str | Path,
    *,
    name: str = "",
    requirements: Iterable[str] = (),
    method: str = "",
    extra_files: Iterable[str | Path] = (),
    base: str = "",
    trust: Iterable[str] = (),
) -> Project:
    """Read what was given on the command line; it wins over the folder's settings, requirements are added.

    Raises NotFoundError `source.missing`, UsageError `source.bad_config`, `source.no_class`, `name.malformed`.
    """
    path, entry = _split(str(text))
    if not _exists(path):
        raise _missing(path)
    table, folder = (_table(path), path) if path.is_dir() else (Table(), None)
    if folder and table.source:
        path, entry = _inside(folder, table.source)
    given = tuple(Path(extra).absolute() for extra in extra_files)
    source = Source(
        path=path.absolute(),
        entry=entry,
        requirements=(*table.requirements, *requirements),
        extra_files=(*(_inside(folder, extra)[0] for extra in table.files if folder), *given),
        method=method or table.method,
        trusted=(*(_trusted(text, folder) for text in table.trust), *(_trusted(text, None) for text in trust)),
    )
    for extra in source.extra_files:
        if not _exists(extra):
            raise _missing(extra)
    return Project(
        name=parse_name(name or table.name or suggest_name(_called(text, path, entry))),
        source=source,
        folder=folder.absolute() if folder else None,
        python=table.python,
        base=_base(base, table, folder),
        packages=table.packages,
        labels=table.labels,
        batching=Batching(table.batch_rows),
        workers=0 if table.workers == "auto" else table.workers,
        streams=table.streams,
        limits=table.limits(),
        grpc=table.grpc,
        webhook_hosts=table.webhook_hosts,
        settings=table.settings(),
        gpu=table.gpu,
        packing=table.compression,
        max_image_mb=table.max_image_mb,
        max_cold_start_s=table.max_cold_start_s,
        accelerate=table.accelerate,
    )


def _base(given: str, table: Table, folder: Path | None) -> Reference | None:
    """The image to build on; one given on the command line wins over the folder's. Its digest may be left open."""
    where = "--base" if given else f"base in the settings of {folder}"
    if not (text := given or table.base):
        return None
    if table.packages:
        raise UsageError(
            "base.packages",
            "`packages` are Debian's, and the base is another image",
            where=where,
            why=f"{', '.join(table.packages[:8])} would have to be installed by running the base's package manager",
            hint="put them into the base, or leave `base` out: Corten makes one of Debian's packages",
        )
    try:
        return Reference.parse(text)
    except UsageError as error:
        # What every Dockerfile writes; here no registry is meant silently.
        short = f"docker.io/{text}"
        hint = f"for Docker Hub: {short[:130]}" if _is_reference(short) else error.hint
        code, what = (error.code, error.what) if given else ("source.bad_config", f"`base` is {error.what}")
        raise UsageError(code, what, where=where, why=error.why, hint=hint) from error


def _is_reference(text: str) -> bool:
    try:
        Reference.parse(text)
    except UsageError:
        return False
    return True


def _trusted(text: str, project: Path | None) -> str:
    """A digest as `sha256:...`; of a path given on the command line the digest the file has now."""
    if text.startswith("sha256:"):
        return str(Digest.parse(text))
    path = Path(text) if project is None else project / text
    if not path.is_file():
        raise _missing(path)
    digest = str(Digest.of_file(path))
    if project is not None:
        raise UsageError(
            "source.bad_config",
            f"`trust` names `{text}`, not a digest",
            where=str(project),
            why="settings trust one content of a file, whatever the file becomes",
            hint=f'trust = ["{digest}"]',
        )
    return digest


def _split(text: str) -> tuple[Path, str]:
    before, colon, after = text.rpartition(":")
    if colon and before.endswith(".py"):
        if not after.isidentifier():
            raise UsageError(
                "source.no_class", f"`{text}` names no class", why="expected FILE.py:Class", hint=f"{before}:MyModel"
            )
        return Path(before), after
    return Path(text), ""


def _called(text: str | Path, path: Path, entry: str) -> str:
    given = _split(str(text))[0].resolve()  # `..` has a name too
    return entry or (given.name if given.is_dir() else path.stem)


def _table(folder: Path) -> Table:
    path = folder / PROJECT_FILE
    if path.is_file():
        return _convert(_toml(path), path, PROJECT_FILE)
    path = folder / "pyproject.toml"
    if path.is_file():
        return _convert(_toml(path).get("tool", {}).get("corten", {}), path, "[tool.corten]")
    return Table()


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            "source.unreadable", f"`{path.name}` cannot be read", where=str(path), why=str(error.strerror)
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError("source.bad_config", f"`{path.name}` is not TOML", where=str(path), why=str(error)) from error


def _convert(document: Any, path: Path, called: str) -> Table:
    import difflib

    known = [key.name for key in fields(Table)]
    for key in document if isinstance(document, dict) else ():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise UsageError(
                "source.bad_config",
                f"unknown key `{key}` in {called}",
                where=str(path),
                why="known: " + ", ".join(known),
                hint=f"did you mean `{near[0]}`?" if near else "remove it",
            )
    try:
        table = msgspec.convert(document, Table)
        table.settings()
    except msgspec.ValidationError as error:
        raise UsageError("source.bad_config", f"a wrong value in {called}", where=str(path), why=str(error)) from error
    except UsageError as error:
        why = f"{error.what}: {error.why}"
        raise UsageError(
            "source.bad_config", f"a wrong value in {called}", where=str(path), why=why, hint=error.hint
        ) from error
    for key in (
        "concurrency",
        "ready_timeout_s",
        "drain_s",
        "max_body_bytes",
        "request_timeout_s",
        "rate_per_s",
        "burst",
        "freeze_after_s",
        "stop_after_s",
        "hold_s",
        "hold_requests",
        "keep_previous_s",
        "stream_timeout_s",
        "job_timeout_s",
        "queue",
        "max_image_mb",
        "max_cold_start_s",
        "batch_rows",
    ):
        # TOML knows `nan` and `inf`, which are no amount of anything.
        if not 0 <= getattr(table, key) < math.inf:
            raise UsageError(
                "source.bad_config",
                f"`{key}` in {called} is no number from 0 on",
                where=str(path),
                why=f"got {getattr(table, key)}",
            )
    if table.workers != "auto" and not 1 <= table.workers <= MOST_WORKERS:
        raise UsageError(
            "source.bad_config",
            f"`workers` in {called} is {table.workers}",
            where=str(path),
            why=f"expected 1 to {MOST_WORKERS}, or auto",
        )
    if not 1 <= table.streams <= MOST_STREAMS:
        raise UsageError(
            "source.bad_config",
            f"`streams` in {called} is {table.streams}",
            where=str(path),
            why=f"expected 1 to {MOST_STREAMS}",
        )
    check_texts(table, called, str(path))
    return table


def _inside(folder: Path | None, text: str) -> tuple[Path, str]:
    # Settings may come from a stranger's repository: they must not pull files from elsewhere into an image.
    base = (folder or Path()).absolute()
    relative, entry = _split(text)
    path = base / relative
    if not path.resolve().is_relative_to(base.resolve()):
        raise UsageError(
            "source.bad_config",
            f"`{text}` lies outside its project",
            where=str(base),
            why="paths in settings must stay in the folder",
            hint="give it on the command line: --file PATH",
        )
    if not _exists(path):
        raise _missing(path)
    return path, entry


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False  # a name that is too long, a folder that is closed to us


def _missing(path: Path) -> CortenError:
    import difflib

    neighbours: list[str] = []
    with suppress(OSError):
        neighbours = sorted(other.name for other in path.absolute().parent.iterdir() if not other.name.startswith("."))
    near = difflib.get_close_matches(path.name, neighbours, n=1, cutoff=0.5)
    return NotFoundError(
        "source.missing",
        f"no file or folder `{path}`",
        where=str(path.absolute().parent),
        why="there: " + ", ".join(neighbours[:8]) if neighbours else "the folder is empty or missing",
        hint=f"did you mean `{path.with_name(near[0])}`?" if near else "give a model file, FILE.py:Class or a folder",
    )
