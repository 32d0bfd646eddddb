"""Where to listen: `unix:/path`, `host:port`, `[v6]:port`, `:port`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from corten.errors import UsageError

# sun_path of unix(7) holds 108 bytes with the terminating zero.
_LONGEST_PATH_BYTES = 107


class UnixAddress(msgspec.Struct, frozen=True):
    """A unix socket's path."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


class TcpAddress(msgspec.Struct, frozen=True):
    """A host (name or IP address, without brackets) and a port; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """Read an address; `:8080` means every interface. Raises UsageError."""
    if text.startswith("unix:"):
        return _parse_unix(text)
    host, colon, digits = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    # A bare v6 address cannot be told from host:port, so it must be bracketed (RFC 3986, 3.2.2).
    well_formed = colon and digits.isascii() and digits.isdigit() and (bracketed or ":" not in host)
    if not well_formed or int(digits) > 65535:
        raise UsageError(
            "http.address_malformed",
            f"not an address to listen on: `{text[:200]}`",
            why="expected `unix:/path`, `host:port` or `[v6]:port`, port 0 to 65535",
        )
    return TcpAddress((host[1:-1] if bracketed else host) or "0.0.0.0", int(digits))  # noqa: S104


def _parse_unix(text: str) -> UnixAddress:
    path = text.removeprefix("unix:")
    size_bytes = len(path.encode("utf-8", "surrogateescape"))
    if not path.startswith("/") or "\0" in path:
        raise UsageError("http.address_malformed", f"not an absolute socket path: `{text[:200]}`")
    if size_bytes > _LONGEST_PATH_BYTES:
        raise UsageError(
            "http.address_too_long",
            f"socket path too long: `{path}`",
            why=f"{size_bytes} bytes, the kernel takes {_LONGEST_PATH_BYTES}",
            hint="use a shorter folder, e.g. below /run or /tmp",
        )
    return UnixAddress(Path(path))
