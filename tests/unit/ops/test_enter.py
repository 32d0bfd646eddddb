"""How a replica is entered."""

import os
from pathlib import Path

from corten.ops.enter import Process, beside, inside, look
from corten.ops.run import after

PROCESS = Process(42, 65532, 65532, {"CORTEN_REPLICA": "a"}, "/app")


def words(entry):
    return " ".join(entry.argv)


def test_inside_one_is_nobody_with_the_replicas_environment_and_folder():
    entry = inside("nsenter", PROCESS, ["python3", "-c", "1"], root=True)
    assert "--setuid 65532 --setgid 65532 --wdns=/app -- python3 -c 1" in words(entry)
    assert {"--mount", "--net", "--pid", "--ipc", "--uts"} <= set(entry.argv)
    assert entry.env == {"CORTEN_REPLICA": "a"}


def test_root_is_never_root_in_there():
    entry = inside("nsenter", Process(42, 0, 0, {}), ["x"], root=True)
    assert "--setuid 65532 --setgid 65532" in words(entry)


def test_a_users_own_replica_is_entered_as_that_user():
    entry = inside("nsenter", Process(42, 1000, 1000, {}), ["x"], root=False)
    assert "--user --preserve-credentials" in words(entry)
    assert "--setuid" not in words(entry)


def test_beside_it_the_files_are_this_machines_and_the_environment_is_not_the_replicas():
    entry = beside("nsenter", PROCESS, ["sh"])
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
