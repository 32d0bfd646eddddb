"""Waiting for something to have changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class News:
    """Wakes everybody who waits, each time something was told."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Something may have changed."""
        told, self._next = self._next, asyncio.Event()
        told.set()

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something holds, or the time is over; whether it holds."""
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    await self._next.wait()
        except TimeoutError:
            return holds()
        return True
