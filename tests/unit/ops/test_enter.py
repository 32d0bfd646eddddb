"""How a replica is entered."""

import os
from pathlib import Path

import pytest

from corten.ops.enter import Process, Way, beside, inside, look, way_in
from corten.ops.run import after

PROCESS = Process(42, 65532, 65532, {"CORTEN_REPLICA": "a"}, "/app")


def words(entry):
    return " ".join(entry.argv)


def test_inside_one_is_nobody_with_the_replicas_environment_and_folder():
    entry = inside("nsenter", PROCESS, ["python3", "-c", "1"], Way.ROOT)
    assert "--setuid 65532 --setgid 65532 --wdns=/app -- python3 -c 1" in words(entry)
    assert {"--mount", "--net", "--pid", "--ipc", "--uts"} <= set(entry.argv)
    assert entry.env == {"CORTEN_REPLICA": "a"}


def test_root_is_never_root_in_there():
    entry = inside("nsenter", Process(42, 0, 0, {}), ["x"], Way.ROOT)
    assert "--setuid 65532 --setgid 65532" in words(entry)


def test_a_users_own_replica_is_entered_as_that_user():
    entry = inside("nsenter", Process(42, 1000, 1000, {}), ["x"], Way.ITSELF)
    assert "--user --preserve-credentials" in words(entry)
    assert "--setuid" not in words(entry)


def test_of_docker_without_root_it_is_entered_as_nobody_among_its_own_users():
    entry = inside("nsenter", Process(42, 165531, 165531, {}, owner=1000), ["x"], Way.OWNER)
    assert "--user --setuid 65532 --setgid 65532" in words(entry)
    assert "--user --setuid 0 --setgid 0 -- unshare" in words(beside("nsenter", PROCESS, ["sh"], Way.OWNER))


@pytest.mark.parametrize(
    ("euid", "inside", "beside"),
    [
        (0, Way.ROOT, Way.ROOT),
        (1000, Way.OWNER, Way.OWNER),
        (165531, Way.ITSELF, None),  # his, in users that somebody else made
        (1001, None, None),
    ],
)
def test_who_may_go_in(euid, inside, beside):
    process = Process(42, 165531, 165531, None, owner=1000)
    assert (way_in(process, euid, debug=False), way_in(process, euid, debug=True)) == (inside, beside)


def test_beside_it_the_files_are_this_machines_and_the_environment_is_not_the_replicas():
    entry = beside("nsenter", PROCESS, ["sh"], Way.ROOT)
    assert "--mount" not in entry.argv[: entry.argv.index("unshare")]
    assert entry.argv[-2:] == ("sh", "sh")
    assert "CORTEN_REPLICA" not in entry.env


def test_who_has_ended_is_not_there():
    assert look(0) is None
    seen = look(os.getpid())
    assert seen is not None
    assert (seen.uid, seen.folder) == (os.geteuid(), str(Path.cwd()))


def test_of_a_log_only_what_is_new_is_said():
    assert after([], ["a", "b"]) == ["a", "b"]
    assert after(["a", "b"], ["a", "b"]) == []
    assert after(["a", "b"], ["a", "b", "c"]) == ["c"]
    assert after(["a", "b", "c"], ["b", "c", "d"]) == ["d"]
    assert after(["a"], ["x", "y"]) == ["x", "y"]
