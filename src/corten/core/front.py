"""Where a gateway takes requests: a pure value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Front:
    """The gateway listens on `host:port`, with TLS when it has a `certificate` and its `key` (paths of PEM files).

    Whoever comes to `http_port` (0: nobody can) without TLS is sent on to `port`.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    certificate: str = ""
    key: str = ""
    http_port: int = 0

    @property
    def tls(self) -> bool:
        """Whether requests come by TLS."""
        return bool(self.certificate)

    @property
    def ports(self) -> frozenset[int]:
        """The ports it listens on."""
        return frozenset({self.port, self.http_port} - {0})


def near_host(host: str) -> str:
    """Where this machine itself finds what listens on `host`: an address for all interfaces is on this one as well."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
