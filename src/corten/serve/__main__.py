"""`python -m corten.serve`."""

from __future__ import annotations

import os
import sys

# `-m` puts the working directory first on the path, which is the user's code in an image: a `json.py` there must not
# stand in for the standard library's. Adapters that load user code add its folder at the end.
_here = os.getcwd()  # noqa: PTH109 - pathlib would be imported before the path is right
sys.path[:] = [entry for entry in sys.path if entry not in {"", _here}]

from corten.serve.app import main  # noqa: E402
from corten.serve.process import leave  # noqa: E402

if __name__ == "__main__":
    leave(main(os.environ))
