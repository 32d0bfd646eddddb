"""What happened, said as data: the core never prints, whoever is asked to listen decides what to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Phase(Enum):
    """What an event says of its step."""

    STARTED = "started"
    PROGRESS = "progress"
    DONE = "done"
    NOTE = "note"  # something worth knowing: what was detected, what was inferred
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Event:
    """A step (`lock`, `base`, `wheels`, `ready` ...) and what became of it, with figures in `data`."""

    step: str
    phase: Phase
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


def nobody(event: Event) -> None:
    """A listener that does not listen."""
    del event
