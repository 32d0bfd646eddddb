"""A build killed, or out of disk, at every place where it writes: the store is whole, and the next build succeeds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import build_faults
import pytest

from corten.core.home import Home
from corten.ops.build import build

pytestmark = [pytest.mark.network]
SHOUT = "class Shout:\n    def predict(self, text: str) -> str:\n        return text.upper()\n"


@pytest.fixture(scope="module")
def warm():
    """A home that has the wheels and packages."""
    folder = Path(tempfile.mkdtemp(prefix="corten-faults-"))
    (folder / "first").mkdir()
    (folder / "first" / "shout.py").write_text(SHOUT)
    build(f"{folder}/first/shout.py:Shout", home=Home(folder / "home"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("fault", ["full", "kill"])
def test_wherever_it_breaks_off_the_store_is_whole_and_the_next_build_succeeds(warm, fault):
    project = warm / fault
    project.mkdir()
    (project / "shout.py").write_text(SHOUT)
    (project / "words.txt").write_text("a b c")
    (project / "corten.toml").write_text('name = "shout"\nsource = "shout.py:Shout"\nfiles = ["words.txt"]\n')
    done = subprocess.run(
        [sys.executable, build_faults.__file__, str(warm / "home"), str(project), fault],
        capture_output=True, text=True, timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tries = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(tries) > 20
    assert not [one for one in tries if one["wrong"] or one["again"] or not one["named"]], tries
    if fault == "full":
        # Said in words, whatever was being written; what can be done without (a cache) may also do without.
        wrong = [one for one in tries if one["exit"] not in (0, 1) or (one["exit"] and "disk_full" not in one["said"])]
        assert not wrong, wrong
        assert not [one for one in tries if one["left"]], "no half-written file beside the project"
    else:
        assert {one["exit"] for one in tries} <= {-9, 0}
        assert len([one for one in tries if one["exit"] == -9]) > 20
