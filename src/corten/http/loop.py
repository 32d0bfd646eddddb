"""The event loop everything runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def fetch_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Import the loop. To be done before a fork: each process would take 3 MB for its own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on uvloop, or on asyncio's own loop where uvloop cannot be imported."""
    with asyncio.Runner(loop_factory=fetch_loop()) as runner:
        return runner.run(main)
