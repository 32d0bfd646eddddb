"""`gpu = true`: which build of PyTorch is locked, and that the choice is part of what decides a lock."""

from dataclasses import replace

from corten.builder.interpreter import debian_python
from corten.builder.lock import Inputs
from corten.builder.source import read_project
from corten.core.platform import Platform

INPUTS = Inputs(("torch",), (), "bookworm", debian_python("3.11", "2.36"), Platform.parse("linux/amd64"))


def test_a_project_may_ask_for_the_build_for_gpus(tmp_path):
    (tmp_path / "net.py").write_text("")
    (tmp_path / "corten.toml").write_text('source = "net.py"\ngpu = true\n')
    assert read_project(tmp_path).gpu
    (tmp_path / "corten.toml").write_text('source = "net.py"\n')
    assert not read_project(tmp_path).gpu


def test_a_lock_with_it_does_not_fit_without_and_earlier_locks_still_fit():
    assert replace(INPUTS, gpu=True).key != INPUTS.key
    # As it was computed before there was the choice.
    assert INPUTS.key == "b1cb5a6c1b58aa08aee60b85bd1b55a74d4512d323340924c3dbd051ae9d3cbd"
