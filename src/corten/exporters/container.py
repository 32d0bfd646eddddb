"""What the exporters for one machine's containers share: the profile, the limits, and what they cannot give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from corten.exporters.base import HTTP_PORT, Workload, refuse, refuse_what_only_our_gateway_does

USER: Final = 65532
TMP_BYTES: Final = 1 << 30
# podman lays tmpfs without a size over the latter two of a read-only root, for everybody to fill.
TMPFS: Final = (
    f"/tmp:size={TMP_BYTES},mode=1777",  # noqa: S108 -- all the container's own
    "/run:size=65536,mode=0755",
    "/var/tmp:size=65536,mode=0755",  # noqa: S108
)
PROCESSES: Final = 4096
# Besides what the server itself waits for (`drain_s`).
STOP_SLACK_S: Final = 5
# By the image's own Python: there is neither curl nor a shell in it.
_ASK: Final = (
    "import urllib.request as r,os;"
    f"r.urlopen('http://127.0.0.1:'+os.environ.get('PORT','{HTTP_PORT}')+'/livez',timeout=4)"
)


def check(exporter: str, workload: Workload) -> None:
    """Raises UsageError `render.unsupported` for what takes a gateway, or more than one container at a port."""
    refuse_what_only_our_gateway_does(exporter, workload.settings)
    if workload.most > 1 or not workload.settings.replicas:
        raise refuse(
            exporter,
            "replicas" if workload.most > 1 else "replicas from 0 on",
            why="one port of a machine leads to one container",
            hint="render one, or let Corten or Kubernetes run them",
        )
    if workload.weights is not None:
        raise refuse(exporter, "`--weights`", why="images as volumes are Kubernetes'", hint="leave it out")


def alive() -> list[str]:
    """A command that ends well while the server lives."""
    return ["python3", "-c", _ASK]


def environment(workload: Workload) -> Iterator[tuple[str, str]]:
    """The variables of a replica, in order."""
    settings = workload.settings
    told = {
        **settings.env,
        "CORTEN_DEPLOYMENT": workload.name,
        "CORTEN_DRAIN_S": f"{settings.drain_s:g}",
        "CORTEN_REVISION": workload.version,
        "HOME": settings.env.get("HOME", "/tmp"),  # noqa: S108 -- the container's own
    }
    yield from sorted(told.items())


def stop_s(workload: Workload) -> int:
    """How long a container may take to stop."""
    return int(workload.settings.drain_s) + STOP_SLACK_S
