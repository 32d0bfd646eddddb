from __future__ import annotations

import os
import signal
import subprocess
import sys

from corten.serve.own_folder import OwnFolder

LONG_AGO_S = 1e9
# Makes a folder, says so, and waits to be killed.
MAKER = """
import sys, time
from pathlib import Path
from corten.serve.own_folder import OwnFolder
print(OwnFolder(Path(sys.argv[1])).path, flush=True)
time.sleep(60)
"""


def old(path):
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))


def test_it_is_removed_with_what_is_in_it(tmp_path):
    folder = OwnFolder(tmp_path)
    (folder.path / "a.job").write_text("{}")
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_leaves_is_removed_by_the_next_one_and_what_a_living_one_has_is_not(tmp_path):
    with subprocess.Popen([sys.executable, "-c", MAKER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as maker:
        theirs = tmp_path / maker.stdout.readline().strip()
        (theirs / "a.out").write_text("answer")
        old(theirs)
        OwnFolder(tmp_path).remove()
        assert theirs.exists()
        maker.send_signal(signal.SIGKILL)
        maker.wait()
        OwnFolder(tmp_path).remove()
        assert not theirs.exists()


def test_one_that_was_just_made_is_left_alone_as_are_files_links_and_other_folders(tmp_path):
    others = [tmp_path / name for name in ("corten-jobs-new", "corten-else", "elsewhere")]
    for folder in others:
        folder.mkdir()
    old(others[1])
    file, link = tmp_path / "corten-jobs-file", tmp_path / "corten-jobs-link"
    file.write_text("")
    link.symlink_to(others[2])
    old(file)
    OwnFolder(tmp_path).remove()
    assert all(path.exists() for path in (*others, file, link))
