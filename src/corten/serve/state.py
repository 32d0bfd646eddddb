"""Where a server is in its life."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Only READY is told to balancers as ready; LOADING cannot predict yet, DRAINING still does."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
