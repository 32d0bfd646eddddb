"""What lightkube leaves unread of the way to a cluster: a proxy, and another name in the server's certificate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from corten.errors import UsageError

if TYPE_CHECKING:
    import httpx2

_SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Way:
    """`proxy-url` and `tls-server-name` of a cluster; empty where nothing is said."""

    proxy: str = ""
    server_name: str = ""

    def mark(self, request: httpx2.Request) -> None:
        """Have the server's certificate checked against the name that was given instead of the address."""
        if self.server_name:
            request.extensions["sni_hostname"] = self.server_name

    def shown(self, server: str) -> str:
        """A server's address with the proxy before it, for people: without the proxy's password."""
        return f"{server} (by the proxy {_without_password(self.proxy)})" if self.proxy else server

    def told(self) -> dict[str, str]:
        """As the programs that get credentials are told."""
        said = {"proxy-url": self.proxy, "tls-server-name": self.server_name}
        return {key: value for key, value in said.items() if value}


def way_to(cluster: str, kubeconfig: Path | None) -> Way:
    """That to a cluster by its name in a kubeconfig (None: in a pod, which is there already).

    Raises UsageError `kubernetes.no_context` for a proxy that is not spoken.
    """
    if kubeconfig is None:
        return Way()
    document = yaml.safe_load(kubeconfig.read_text())
    found: dict[str, Any] = next(one["cluster"] for one in document["clusters"] if one["name"] == cluster)
    way = Way(str(found.get("proxy-url") or ""), str(found.get("tls-server-name") or ""))
    if way.proxy and not way.proxy.startswith(_SCHEMES):
        raise UsageError(
            "kubernetes.no_context",
            f"the proxy of cluster `{cluster}` cannot be spoken to",
            where=str(kubeconfig),
            why=f"`proxy-url: {_without_password(way.proxy)}`; expected http://HOST:PORT or https://HOST:PORT",
            hint="name a proxy that takes CONNECT, or one of these two before your SOCKS proxy",
        )
    return way


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
