"""What llhttp lets through and this server does not: pure checks of a request's head and sizes."""

from __future__ import annotations

from corten.http.limits import Limits

RawHeaders = list[tuple[bytes, bytes]]


class Refusal(Exception):  # noqa: N818 - an answer, not a mistake of ours
    """Ends parsing; what the client is told."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def screen_head(headers: RawHeaders, version: str, limits: Limits) -> bool:
    """Raise Refusal for a head that is not acceptable; returns whether the client waits for `100 Continue`."""
    if len(headers) > limits.headers:
        raise head_too_large(limits)
    hosts = 0
    expects = False
    for name, value in headers:
        # By length first: most names are none of these.
        match len(name):
            case 4 if name.lower() == b"host":
                hosts += 1
            case 14 if name.lower() == b"content-length" and int(value) > limits.body_bytes:
                raise body_too_large(limits)
            case 17 if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
                raise Refusal(501, "http.transfer_coding", "the only transfer coding known here is `chunked`")
            case 6 if name.lower() == b"expect" and value.lower() == b"100-continue":
                expects = version == "1.1"
            case _:
                pass
    if hosts != 1 and (hosts or version == "1.1"):
        raise Refusal(400, "http.host", "a request must have one Host header")
    if version not in {"1.1", "1.0"}:
        raise Refusal(505, "http.version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return expects


def screen_head_size(target: bytes, headers: RawHeaders, limits: Limits) -> None:
    """Raise Refusal for a head of too many bytes."""
    if len(target) + sum(len(name) + len(value) + 4 for name, value in headers) > limits.header_bytes:
        raise head_too_large(limits)


def head_too_large(limits: Limits) -> Refusal:
    """431."""
    message = f"headers may have {limits.header_bytes} bytes and {limits.headers} lines"
    return Refusal(431, "http.headers_too_large", message)


def body_too_large(limits: Limits) -> Refusal:
    """413."""
    return Refusal(413, "http.body_too_large", f"a body may have {limits.body_bytes} bytes")
