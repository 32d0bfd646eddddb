"""The commit a source lies in, read from what git says."""

from __future__ import annotations

import pytest

from corten.builder.lineage import public_remote, read_settings, read_status

HEAD = "# branch.oid " + "a" * 40 + "\n# branch.head main\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD, ("a" * 40, "main", False)),
        (HEAD + "1 .M N... 100644 100644 100644 x y model.py\n", ("a" * 40, "main", True)),
        (HEAD + "? new.py\n", ("a" * 40, "main", True)),
        (HEAD.replace("main", "(detached)"), ("a" * 40, "", False)),
        ("# branch.oid (initial)\n# branch.head main\n", None),
        ("", None),
    ],
)
def test_the_state_of_a_work_tree_is_revision_branch_and_whether_it_is_changed(text, expected):
    assert read_status(text) == expected


@pytest.mark.parametrize(
    ("remote", "shown"),
    [
        ("https://me:token@git.example/team/iris.git", "https://git.example/team/iris.git"),
        ("https://git.example:8443/iris?private_token=x", "https://git.example:8443/iris"),
        ("ssh://git@git.example/iris", "ssh://git.example/iris"),
        ("git@git.example:team/iris.git", "ssh://git.example/team/iris.git"),
        ("/home/someone/iris", ""),
        ("file:///home/someone/iris", ""),
        ("../iris", ""),
        ("", ""),
    ],
)
def test_a_remote_is_shown_without_credentials_and_without_paths_of_this_machine(remote, shown):
    assert public_remote(remote) == shown


def test_only_the_work_trees_own_settings_count():
    text = "global\0filter.lfs.clean\nlfs\0local\0remote.origin.url\nhttps://a/b\nc\0worktree\0filter.x.process\nrun\0"

    assert read_settings(text) == {"remote.origin.url": "https://a/b\nc", "filter.x.process": "run"}
