"""How many threads a call of the model may take."""

from __future__ import annotations

import os
from collections.abc import Mapping

THREADS_VARIABLE = "CORTEN_THREADS"


def threads(environment: Mapping[str, str]) -> int:
    """`CORTEN_THREADS`, else the processors this process may run on."""
    chosen = environment.get(THREADS_VARIABLE, "")
    if chosen.isascii() and chosen.isdigit() and 0 < int(chosen) < 1024:
        return int(chosen)
    return len(os.sched_getaffinity(0))
