"""Room for a thread that loads a model: for Python's frames, and in malloc's heap.

CPython keeps frames in chunks of 16 KiB (`_PyThreadState_PushFrame`). A loop that happens to call a function where a
chunk ends maps and unmaps the next one with each call: importing numpy at such a depth took 4 ms longer, by 860 pairs
of system calls. A chunk is as large as the frame it is made for needs, so a frame that says it needs much leaves those
above it all the room they want. What of it is not used takes no RAM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")

_SLOTS = (1 << 16) + 1  # 512 KiB for this frame, so 1 MiB in all
_HEAP_BYTES = 16 << 20
_LESS_BYTES = 64 << 10


def with_room(function: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """Call a function; what it calls in turn has half a megabyte for its frames."""
    return function(*args, **kwargs)


def make_heap_room() -> None:
    """Let this thread's heap be large from the start; memory that is not used takes no RAM.

    The heap of a thread that is not the first grows by single pages, each by a call of mprotect: 2,500 while numpy and
    ONNX Runtime are imported. To be called before anything large was freed, or all of it would be cleared.
    """
    bytes(_HEAP_BYTES)  # given back at once, glibc takes smaller ones from the heap (mallopt(3), M_MMAP_THRESHOLD)
    bytes(_HEAP_BYTES - _LESS_BYTES)


with_room.__code__ = with_room.__code__.replace(co_stacksize=_SLOTS)
