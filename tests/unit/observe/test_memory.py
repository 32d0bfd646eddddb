"""What processes hold in memory, with all they started."""

import os

import pytest

from corten.observe.memory import tree_bytes

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def make_process(tmp_path):
    def make(pid, pages, *children, share_kib=None):
        folder = tmp_path / str(pid)
        (folder / f"task/{pid}").mkdir(parents=True)
        (folder / "statm").write_text(f"{2 * pages} {pages} 1 1 0 1 0\n")
        (folder / f"task/{pid}/children").write_text(" ".join(map(str, children)))
        if share_kib is not None:
            (folder / "smaps_rollup").write_text(f"00-ff ---p 00:00 0 [rollup]\nRss: 1 kB\nPss: {share_kib} kB\n")

    return make


def test_a_process_alone_holds_what_is_resident(make_process, tmp_path):
    make_process(7, 100, share_kib=1)
    assert tree_bytes(7, tmp_path) == 100 * PAGE_BYTES


def test_what_it_started_counts_too_and_what_they_share_only_once(make_process, tmp_path):
    make_process(7, 100, 8, 9, share_kib=150)
    make_process(8, 100, 10, share_kib=130)
    make_process(9, 100, share_kib=120)
    make_process(10, 100, share_kib=100)
    assert tree_bytes(7, tmp_path) == 500 << 10


def test_where_the_kernel_does_not_tell_shares_apart_what_is_resident_counts(make_process, tmp_path):
    make_process(7, 100, 8)
    make_process(8, 50)
    assert tree_bytes(7, tmp_path) == 150 * PAGE_BYTES


def test_one_that_is_gone_holds_nothing(make_process, tmp_path):
    make_process(7, 100, 8, share_kib=400)
    assert tree_bytes(7, tmp_path) == 400 << 10
    assert tree_bytes(6, tmp_path) == 0


def test_this_process_has_memory():
    assert tree_bytes(os.getpid()) > 1 << 20
