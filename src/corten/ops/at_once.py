"""The same for many things, several at a time, with an interruption that waits for none of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def at_once(do: Callable[[T], R], items: Sequence[T], most: int) -> list[R]:
    """What `do` gives for each, in their order; `most` at a time.

    Whoever interrupts gets away at once: nothing more is begun, and what runs is left to end by itself, which is soon
    where the caller closes what it works with. A pool of concurrent.futures waits for it, here and when Python ends: of
    a rollout that is minutes.
    """
    if len(items) == 1:
        return [do(items[0])]
    futures: list[Future[R]] = [Future() for _ in items]
    left: SimpleQueue[int] = SimpleQueue()
    for number in range(len(items)):
        left.put(number)

    def work() -> None:
        while (number := _next(left)) is not None:
            try:
                futures[number].set_result(do(items[number]))
            except BaseException as error:  # told to who waits
                futures[number].set_exception(error)

    for _ in range(min(most, len(items))):
        threading.Thread(target=work, daemon=True).start()
    try:
        return [future.result() for future in futures]
    except BaseException:
        while _next(left) is not None:
            pass
        raise


def _next(left: SimpleQueue[int]) -> int | None:
    try:
        return left.get_nowait()
    except Empty:
        return None
