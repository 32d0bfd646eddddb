"""What processor time processes used, with all they started."""

import os
import subprocess
import sys
import time

import pytest

from corten.observe.process import tree_cpu_s

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def make_process(tmp_path):
    def make(pid, own, ended, *children):
        folder = tmp_path / str(pid)
        (folder / f"task/{pid}").mkdir(parents=True)
        fields = ["S", *["0"] * 10, *(str(s * TICKS_PER_S) for s in (*own, *ended)), "20"]
        (folder / "stat").write_text(f"{pid} (a) name) {' '.join(fields)}\n")
        (folder / f"task/{pid}/children").write_text(" ".join(map(str, children)))

    return make


def test_what_it_started_counts_too_and_what_has_ended_of_that(make_process, tmp_path):
    make_process(7, (1, 2), (40, 50), 8)
    make_process(8, (300, 400), (0, 0))
    assert tree_cpu_s(7, tmp_path) == 793
    assert tree_cpu_s(8, tmp_path) == 700


def test_one_that_is_gone_used_nothing(tmp_path):
    assert tree_cpu_s(7, tmp_path) == 0


def test_a_childs_time_is_this_processes_before_and_after_its_end():
    code = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True); input()"
    before_s, began_s = tree_cpu_s(os.getpid()), time.process_time()
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    while_there_s = tree_cpu_s(os.getpid())
    child.communicate(b"\n")
    own_s = time.process_time() - began_s
    assert while_there_s - before_s >= 0.15
    assert tree_cpu_s(os.getpid()) - before_s >= 0.15 + own_s - 0.05
