"""Run an image that is in the store behind the gateway; a running deployment of that name is replaced without a gap."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from corten.control.client import LOST, Client, connect
from corten.control.follow import Follower
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.home import Home
from corten.core.image import SPEC_LABEL, Image
from corten.core.model import Limits
from corten.core.name import parse_name, suggest_name
from corten.core.resources import Resources
from corten.core.secret import check_secrets
from corten.engine.devices import check_devices
from corten.errors import EngineError, NotFoundError
from corten.store.guard import using
from corten.store.layout import Layout

# What a rollout may take besides the time a replica may: unpacking an image, draining, a busy machine.
_SLACK_S = 180.0
# Whoever waits for a canary waits for its traffic.
_LONGEST_CANARY_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment that answers. `changed` is False when it was that way already; `revision` is a label (`r2`).

    `share` is what the revision has of the requests in percent, below 100 while it is a canary. `auth` says what
    requests must show: `none` or `token`.
    """

    name: str
    revision: str
    url: str
    image: Digest
    seconds: float
    changed: bool = True
    share: int = 100
    auth: str = "none"

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "name": self.name,
            "revision": self.revision,
            "url": self.url,
            "image": str(self.image),
            "seconds": round(self.seconds, 3),
            "changed": self.changed,
            "share": self.share,
            "auth": self.auth,
        }


def deploy(
    image: str | Digest,
    name: str = "",
    settings: Settings | None = None,
    *,
    secrets: Mapping[str, str | bytes] | None = None,
    home: Home | None = None,
    port: int | None = None,
    engine: str = "",
    listen: Listener = nobody,
    timeout_s: float | None = None,
    wait: bool = False,
) -> Deployed:
    """Deploy an image, given as a digest, `NAME@sha256:...`, the name it was built under or a digest's first digits.

    A `max_body_bytes` or `request_timeout_s` of 0 in the settings is the image's model's, as without any settings.

    Of each of the `secrets` the replicas find a file in memory, `/run/secrets/NAME`, as NAME_FILE in their environment
    tells them. They are the revision's, as its `env` is: what is not given again is not there any more.

    Returns when the new revision has all requests, or its first share of them if `settings.canary` says so (with `wait`
    when that has ended). Raises NotFoundError for an unknown image, UnhealthyError `deploy.unhealthy` when it did not
    get ready, `deploy.rolled_back` when a canary did worse (the revision before serves on), CortenError
    `control.conflict` or `control.superseded` when somebody else changes the same deployment, EngineError for what
    gateway or engine refuse.
    """
    began_s = time.perf_counter()
    home = home or Home.from_env(os.environ, uid=os.getuid())
    settings = settings or Settings(max_body_bytes=0, request_timeout_s=0.0)
    given = check_secrets(secrets or {}, settings.env)
    layout = Layout(home.store)
    # Until the daemon knows of it nothing else may say that the image is wanted.
    with using(home.store):
        named = image if isinstance(image, Digest) else layout.resolve(image).digest
        name = parse_name(name or _name_of(layout, str(image), named))
        # Of an image for several platforms, replicas run the one for this machine.
        digest = layout.image(named).digest
        settings = _as_the_image_says(settings, layout.image(digest))
        client = connect(home, port=port, engine=engine)
        _check_resources(client, settings.resources, listen)
        told = {one: b64encode(value).decode() for one, value in given.items()}
        change = {"image": str(digest), "settings": msgspec.to_builtins(settings), "secrets": told}
        try:
            accepted = _put(client, name, change)
        except EngineError as error:
            if error.code != LOST:
                raise
            # Whether it was written before the daemon died or not: wanting the same twice makes one revision.
            accepted = _put(connect(home), name, change)
    timeout_s = timeout_s or (_LONGEST_CANARY_S if wait and settings.canary.steps else patience_s(settings))
    return follow(home, client, accepted, listen=listen, timeout_s=timeout_s, began_s=began_s, through_canary=wait)


def follow(
    home: Home,
    client: Client,
    accepted: Mapping[str, Any],
    *,
    listen: Listener,
    timeout_s: float,
    began_s: float,
    through_canary: bool = False,
) -> Deployed:
    """Wait until an accepted change is in force; `began_s` is `perf_counter` time."""
    follower = Follower(client, lambda: connect(home), accepted, listen, through_canary)
    view = follower.until_done(time.monotonic() + timeout_s)
    around = follower.client.get("/v1/status")
    sandbox = around["isolation"].get("sandbox", "")
    if sandbox.startswith("none"):
        listen(Event("sandbox", Phase.WARNING, f"replicas run WITHOUT a sandbox: {sandbox}; see `corten doctor`"))
    return Deployed(
        name=follower.name,
        revision=view["rollout"]["target"],
        url=url_of(around["front"], follower.name),
        image=Digest.parse(view["image"]),
        seconds=time.perf_counter() - began_s,
        changed=accepted["changed"],
        share=view["rollout"]["share"],
        auth=view["access"]["auth"],
    )


def _check_resources(client: Client, resources: Resources, listen: Listener) -> None:
    """Refuse what no replica would start with, warn of what it is not kept to."""
    if resources == Resources():
        return
    isolation = client.get("/v1/status")["isolation"]
    check_devices(isolation, resources)
    limits = isolation.get("limits", "")
    if resources.limited and limits.startswith("none"):
        message = f"replicas are not limited as a whole: {limits}; see `corten doctor`"
        listen(Event("limits", Phase.WARNING, message))


def url_of(front: Mapping[str, Any], name: str) -> str:
    """Where a deployment answers behind the gateway's front (`control.views.FrontView`)."""
    return f"{front['url']}/{name}/"


def patience_s(settings: Settings) -> float:
    """How long a rollout may take: every replica may use its own time, one after the other."""
    return max(settings.replicas, 1) * (settings.ready_timeout_s + settings.drain_s) + _SLACK_S


def _put(client: Client, name: str, change: Mapping[str, Any]) -> Mapping[str, Any]:
    body = {**change, "generation": _generation(client, name)}
    accepted: Mapping[str, Any] = client.put(f"/v1/deployments/{name}", body)
    return accepted


def _generation(client: Client, name: str) -> int:
    try:
        return int(client.get(f"/v1/deployments/{name}")["generation"])
    except NotFoundError:
        return 0


def _as_the_image_says(settings: Settings, image: Image) -> Settings:
    try:
        spec = msgspec.json.decode(image.labels.get(SPEC_LABEL, "{}"), type=_Spec)
    except msgspec.MsgspecError:
        spec = _Spec()  # another tool's
    return replace(
        settings,
        grpc=spec.grpc,
        max_body_bytes=settings.max_body_bytes or spec.limits.max_body_bytes,
        request_timeout_s=settings.request_timeout_s or spec.limits.predict_timeout_s,
    )


class _Spec(msgspec.Struct):
    """What is read here of the spec in an image's label."""

    grpc: bool = False
    limits: Limits = msgspec.field(default_factory=Limits)


def _name_of(layout: Layout, image: str, digest: Digest) -> str:
    """The name in the reference, else the one the image is tagged with."""
    named, at, _ = image.partition("@")
    if at:
        return named
    tags = [tag for tag, descriptor in layout.images() if descriptor.digest == digest and tag]
    return suggest_name(tags[0]) if tags else f"m-{digest.short}"
