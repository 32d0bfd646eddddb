"""Which HTTP proxy to go through, by the variables curl and most others obey (`https_proxy`, `no_proxy` ...)."""

from __future__ import annotations

from collections.abc import Mapping


def proxies_from(env: Mapping[str, str]) -> dict[str, str]:
    """Proxy URLs by scheme (`http`, `https`, `all`), and the hosts to reach directly under `no`."""
    return {
        scheme: text
        for scheme in ("http", "https", "all", "no")
        if (text := env.get(f"{scheme}_proxy") or env.get(f"{scheme}_proxy".upper(), ""))
    }


def proxy_for(proxies: Mapping[str, str], scheme: str, host: str) -> str:
    """The proxy's URL for a host (without its port), empty when it is to be reached directly."""
    for text in proxies.get("no", "").split(","):
        name = text.strip().lstrip(".").partition(":")[0]
        if name == "*" or (name and (host == name or host.endswith(f".{name}"))):
            return ""
    found = proxies.get(scheme) or proxies.get("all", "")
    return found if not found or "://" in found else f"http://{found}"
