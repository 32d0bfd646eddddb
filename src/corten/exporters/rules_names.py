"""Which texts the API server takes for names and values of labels (apimachinery, util/validation)."""

from __future__ import annotations

import re

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_RFC_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_PORT = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST_NAME = 253
_LONGEST_LABEL = 63
_LONGEST_PORT = 15


def is_name(text: str) -> bool:
    """Of most objects."""
    return len(text) <= _LONGEST_NAME and _SUBDOMAIN.fullmatch(text) is not None


def is_service_name(text: str) -> bool:
    """Of a Service: a name in DNS as old programs read it."""
    return len(text) <= _LONGEST_LABEL and _RFC_1035.fullmatch(text) is not None


def is_label_value(text: str) -> bool:
    """Of a label."""
    return len(text) <= _LONGEST_LABEL and _VALUE.fullmatch(text) is not None


def is_port_name(text: str) -> bool:
    """Of a container's port (RFC 6335, 5.1)."""
    return len(text) <= _LONGEST_PORT and _PORT.fullmatch(text) is not None
