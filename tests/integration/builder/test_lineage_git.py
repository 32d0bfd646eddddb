"""The commit of a source, asked of a real git."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from corten.builder.lineage import commit_of

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *words):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *identity, "-C", str(folder), *words], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "m.onnx").write_bytes(b"m")
    (folder / "other.txt").write_text("other")
    git(folder, "init", "-q", "-b", "trunk")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_a_source_is_of_the_commit_its_tree_is_at(tree):
    git(tree, "remote", "add", "origin", "https://me:token@git.example/iris.git")

    found = commit_of(tree / "models" / "m.onnx", os.environ)

    assert (found.revision, found.dirty) == (git(tree, "rev-parse", "HEAD"), False)
    assert (found.branch, found.remote, found.path) == ("trunk", "https://git.example/iris.git", "models/m.onnx")


def test_only_changes_of_the_source_make_it_dirty(tree):
    (tree / "other.txt").write_text("changed")
    assert not commit_of(tree / "models", os.environ).dirty

    (tree / "models" / "new.onnx").write_bytes(b"n")
    assert commit_of(tree / "models", os.environ).dirty
    assert not commit_of(tree / "models" / "m.onnx", os.environ).dirty


def test_a_folder_outside_a_work_tree_has_no_commit(tmp_path):
    assert commit_of(tmp_path, {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path)}) is None


def test_a_tree_without_a_commit_has_none(tmp_path):
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path, os.environ) is None


def test_variables_that_name_another_tree_are_not_obeyed(tree, tmp_path):
    git(tmp_path, "init", "-q", "another")

    found = commit_of(tree, {**os.environ, "GIT_DIR": str(tmp_path / "another" / ".git")})

    assert found.revision == git(tree, "rev-parse", "HEAD")


def test_nothing_a_strangers_work_tree_names_is_run(tree, tmp_path):
    trap = tmp_path / "trapped"
    script = tmp_path / "trap.sh"
    script.write_text(f"#!/bin/sh\ntouch {trap}\ncat\n")
    script.chmod(0o755)
    for key in ("core.fsmonitor", "filter.evil.clean", "filter.evil.process", "core.pager"):
        git(tree, "config", key, str(script))
    git(tree, "config", "filter.evil.required", "true")
    (tree / ".git" / "info").mkdir(exist_ok=True)
    (tree / ".git" / "info" / "attributes").write_text("* filter=evil\n")
    # The same size, another content and time: git has to look into it.
    (tree / "models" / "m.onnx").write_bytes(b"n")
    os.utime(tree / "models" / "m.onnx", (1, 1))

    found = commit_of(tree, os.environ)

    assert found.dirty
    assert not trap.exists()
