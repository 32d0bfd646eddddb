"""`python -m corten.serve`."""

from __future__ import annotations

import gc
import os
import sys

# What is imported stays, so looking for garbage among it is time lost; `begin` sets that right.
gc.disable()

# `-m` puts the working directory first on the path, which is the user's code in an image: a `json.py` there must not
# stand in for the standard library's. Adapters that load user code add its folder at the end.
_here = os.getcwd()  # noqa: PTH109 - pathlib would be imported before the path is right
sys.path[:] = [entry for entry in sys.path if entry not in {"", _here}]

# msgspec takes one function from typing_extensions where that is there, and else the same from typing: 4 ms less.
_imported = "typing_extensions" in sys.modules
if not _imported:
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # importlib's word for "not there"
import msgspec  # noqa: E402, F401

if not _imported:
    del sys.modules["typing_extensions"]

from corten.serve.app import main  # noqa: E402
from corten.serve.process import leave  # noqa: E402
from corten.serve.room import with_room  # noqa: E402

if __name__ == "__main__":
    leave(with_room(main, os.environ))
