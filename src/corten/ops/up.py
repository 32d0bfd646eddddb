"""Build a model and run it: from a file to a URL."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corten.builder.source import read_project
from corten.control.client import connect
from corten.core.acceleration import Accelerate
from corten.core.canary import Canary
from corten.core.deployment import Settings
from corten.core.events import Listener, nobody
from corten.core.home import Home
from corten.core.model import Example
from corten.core.platform import Platform
from corten.core.resources import Resources, parse_cpus, parse_device, parse_gpus, parse_memory
from corten.core.rest import Strategy
from corten.core.secret import check_secrets
from corten.engine.devices import check_devices
from corten.ops.build import build
from corten.ops.built import Built
from corten.ops.deploy import Deployed, deploy
from corten.ops.sample import sample_body

_LONGEST_CURL = 400


@dataclass(frozen=True, slots=True)
class Up:
    """What was built and where it answers. `seconds` is for all of it; `curl` a command that asks it."""

    built: Built
    deployed: Deployed
    seconds: float
    curl: str

    @property
    def name(self) -> str:
        """The deployment's name."""
        return self.deployed.name

    @property
    def revision(self) -> str:
        """The label of the revision that serves: `r2`."""
        return self.deployed.revision

    @property
    def url(self) -> str:
        """Where it answers, ending in `/`."""
        return self.deployed.url

    @property
    def has_example(self) -> bool:
        """Whether anything is known to ask it: its own example, or a row of the shape it tells."""
        return sample_body(self.built.spec) is not None

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            **self.deployed.as_dict(),
            "seconds": round(self.seconds, 3),
            "deploy_seconds": round(self.deployed.seconds, 3),
            "curl": self.curl,
            "build": self.built.as_dict(),
        }


def up(
    source: str | Path,
    *,
    home: Home | None = None,
    name: str = "",
    requirements: Iterable[str] = (),
    method: str = "",
    extra_files: Iterable[str | Path] = (),
    example: Example | None = None,
    platform: Platform | None = None,
    base: str = "",
    plain_http: bool = False,
    ca: str | Path | None = None,
    accelerate: Accelerate | None = None,
    trust: Iterable[str] = (),
    locked: bool = False,
    frozen: bool = False,
    offline: bool = False,
    replicas: int | tuple[int, int] | None = None,
    concurrency: int | None = None,
    memory: int | str | None = None,
    cpus: float | None = None,
    gpus: int | None = None,
    devices: Iterable[str] = (),
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Mapping[str, str | bytes] | None = None,
    egress: bool = False,
    ready_timeout_s: float | None = None,
    engine: str = "",
    now_s: float | None = None,
    canary: Canary | None = None,
    sticky: str | None = None,
    mirror: int | None = None,
    auth: str | None = None,
    rate_per_s: int | None = None,
    burst: int | None = None,
    pinnable: bool = False,
    max_body_bytes: int | None = None,
    request_timeout_s: float | None = None,
    resend: bool = True,
    strategy: Strategy | None = None,
    wait: bool = False,
    listen: Listener = nobody,
) -> Up:
    """Build an image as `corten.build` does, then deploy it as `corten.deploy` does; raises what they raise.

    `replicas` is a number, or two between which the requests decide. What is not given here is taken from the project's
    settings: `replicas`, `concurrency`, `memory` (bytes, or a text as "2g"), `cpus`, `gpus` and `devices` (by their
    names in CDI) of one replica, `ready_timeout_s`, `canary`, `sticky`, `mirror`, `strategy`, `auth`, `rate_per_s`,
    `burst`; `env` is added to the project's, `egress` and `pinnable` are granted by either. `max_body_bytes` and
    `request_timeout_s` are the gateway's; without `resend` no request is sent again that a replica had when it ended.
    `secrets` and `wait` are as in `corten.deploy`.
    """
    began_s = time.perf_counter()
    home = home or Home.from_env(os.environ, uid=os.getuid())
    secrets = check_secrets(secrets or {}, env or {})
    needed, files, trusted = tuple(requirements), tuple(extra_files), tuple(trust)
    project = read_project(
        source,
        name=name,
        requirements=needed,
        method=method,
        extra_files=files,
        base=base,
        trust=trusted,
    )
    settings = _settings(project.settings, replicas, env or {}, egress=egress, ready_timeout_s=ready_timeout_s)
    if canary is not None:
        settings = replace(settings, canary=replace(canary, sticky=canary.sticky or settings.canary.sticky))
    if mirror is not None:
        # Whatever shares the project has in mind for later.
        settings = replace(settings, canary=replace(canary or Canary(), mirror=mirror))
    if sticky is not None:
        settings = replace(settings, canary=replace(settings.canary, sticky=sticky))
    if strategy is not None:
        settings = replace(settings, strategy=strategy)
    if concurrency is not None:
        settings = replace(settings, concurrency=concurrency)
    resources = _resources(settings.resources, memory=memory, cpus=cpus, gpus=gpus, devices=devices)
    settings = replace(settings, resources=resources)
    settings = _with_access(settings, auth=auth, rate_per_s=rate_per_s, burst=burst, pinnable=pinnable)
    settings = replace(
        settings,
        max_body_bytes=max_body_bytes or settings.max_body_bytes,
        request_timeout_s=request_timeout_s or settings.request_timeout_s,
        pure=settings.pure and resend,
    )
    if resources.with_devices:
        # No build helps where they are not.
        check_devices(connect(home, engine=engine).get("/v1/status")["isolation"], resources)
    built = build(
        source,
        home=home,
        name=name,
        platform=platform,
        requirements=needed,
        method=method,
        extra_files=files,
        example=example,
        base=base,
        plain_http=plain_http,
        ca=ca,
        accelerate=accelerate,
        trust=trusted,
        locked=locked,
        frozen=frozen,
        offline=offline,
        now_s=time.time() if now_s is None else now_s,
        listen=listen,
    )
    deployed = deploy(
        built.digest,
        built.name,
        settings,
        secrets=secrets,
        home=home,
        port=port,
        engine=engine,
        listen=listen,
        wait=wait,
    )
    return Up(
        built,
        deployed,
        time.perf_counter() - began_s,
        curl_of(deployed.url, sample_body(built.spec), auth=deployed.auth),
    )


def _settings(
    given: Settings,
    replicas: int | tuple[int, int] | None,
    env: Mapping[str, str],
    *,
    egress: bool,
    ready_timeout_s: float | None,
) -> Settings:
    if replicas is not None:
        least, most = replicas if isinstance(replicas, tuple) else (replicas, replicas)
        given = replace(given, replicas=least, most_replicas=most)
    return replace(
        given,
        env={**given.env, **env},
        egress=given.egress or egress,
        ready_timeout_s=given.ready_timeout_s if ready_timeout_s is None else ready_timeout_s,
    )


def _resources(
    given: Resources,
    *,
    memory: int | str | None,
    cpus: float | None,
    gpus: int | None,
    devices: Iterable[str],
) -> Resources:
    if memory is not None:
        given = replace(given, memory_bytes=parse_memory(str(memory)))
    if cpus is not None:
        given = replace(given, cpus=parse_cpus(f"{cpus:g}"))
    if gpus is not None:
        given = replace(given, gpus=parse_gpus(str(gpus)))
    if named := tuple(map(parse_device, devices)):
        given = replace(given, devices=named)
    return given


def _with_access(
    given: Settings, *, auth: str | None, rate_per_s: int | None, burst: int | None, pinnable: bool
) -> Settings:
    return replace(
        given,
        auth=given.auth if auth is None else auth,
        rate_per_s=given.rate_per_s if rate_per_s is None else rate_per_s,
        burst=given.burst if burst is None else burst,
        pinnable=given.pinnable or pinnable,
    )


def curl_of(url: str, body: Any, *, auth: str = "none") -> str:
    """A command to try it with, for any shell: single quotes, and a body short enough for a line or two."""
    token = "" if auth == "none" else ' -H "authorization: Bearer $CORTEN_TOKEN"'
    text = json.dumps(body, ensure_ascii=False, separators=(", ", ": "))
    if body is None or len(text) > _LONGEST_CURL:
        return f"curl {url}openapi.json{token}"
    quoted = text.replace("'", "'\\''")
    return f"curl {url}predict -H 'content-type: application/json'{token} -d '{quoted}'"
