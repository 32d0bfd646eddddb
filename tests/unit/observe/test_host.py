"""What the machine has left."""

import os

from corten.observe.host import Processors, available_bytes, processor_s


def test_how_busy_the_processors_were_is_told_since_the_look_before(tmp_path):
    processors = Processors(tmp_path)
    (tmp_path / "stat").write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n")
    assert processors.busy() == 0.0
    (tmp_path / "stat").write_text("cpu  175 0 100 725 100 0 0 0 0 0\n")
    assert processors.busy() == 0.75


def test_without_proc_nothing_is_known(tmp_path):
    assert Processors(tmp_path).busy() == 0.0
    assert available_bytes(tmp_path) == 0
    assert processor_s(1, tmp_path) == 0.0


def test_this_process_has_memory_and_used_a_processor():
    assert processor_s(os.getpid()) > 0
    assert available_bytes() > 1 << 20


def test_a_name_with_brackets_does_not_shift_the_fields(tmp_path):
    (tmp_path / "7").mkdir()
    fields = " ".join(["S", *["0"] * 10, "150", "50", *["0"] * 10])
    (tmp_path / "7" / "stat").write_text(f"7 (a) b) {fields}\n")
    assert processor_s(7, tmp_path) == 200 / os.sysconf("SC_CLK_TCK")
