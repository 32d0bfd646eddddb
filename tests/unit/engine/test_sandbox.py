from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from corten.engine.sandbox import Bounds, Cell, Features, options
from corten.store.merge import Mount

CELL = Cell(root=Path("/trees/roots/abc"), hostname="a-r1-x", command=("/usr/bin/python3",))
NEW = Features()


def told(cell=CELL, features=NEW, bounds=None):
    return options(cell, bounds or Bounds(), features, {})


def after(given_options, flag, count=1):
    return [given_options[at + 1 : at + 1 + count] for at, text in enumerate(given_options) if text == flag]


def test_every_namespace_is_its_own():
    assert {"--unshare-all", "--unshare-user", "--disable-userns", "--new-session", "--as-pid-1"} <= set(told())
    assert "--share-net" not in told()


def test_egress_shares_the_network_and_brings_the_resolver():
    cell = Cell(
        root=CELL.root, hostname="a", command=CELL.command, egress=True, resolver=Path("/run/systemd/resolv.conf")
    )
    assert "--share-net" in told(cell)
    assert ("/run/systemd/resolv.conf", "/etc/resolv.conf") in after(told(cell), "--ro-bind", 2)


def test_a_replica_does_not_die_with_the_daemon():
    assert "--die-with-parent" not in told()


def test_the_only_writable_thing_of_the_host_is_its_own_folder():
    cell = Cell(root=CELL.root, hostname="a", command=CELL.command, run=Path("/run/corten/a"))
    assert after(told(cell), "--bind", 2) == [("/run/corten/a", "/run/corten")]
    assert after(told(), "--bind", 2) == []
    assert not {"--bind-try", "--dev-bind", "--dev-bind-try"} & set(told(cell))


def test_folders_of_single_files_are_closed_after_they_are_filled():
    mounts = (Mount(Path("/l/1/models/a"), "/models/a"), Mount(Path("/l/2/models/b"), "/models/b"))
    given_options = told(Cell(root=CELL.root, hostname="a", command=CELL.command, folders=("/models",), mounts=mounts))
    made = [at for at, text in enumerate(given_options) if text == "/models"]
    filled = [given_options.index("/models/a"), given_options.index("/models/b")]
    assert made[0] < min(filled)
    assert max(filled) < made[1]
    assert given_options[made[0] - 1] == "--tmpfs"
    assert given_options[made[1] - 1] == "--remount-ro"


def test_sizes_are_bounded_where_bubblewrap_can():
    bounds = Bounds(tmp_bytes=123, shm_bytes=456)
    assert after(told(bounds=bounds), "--size") == [("456",), ("123",)]
    assert after(told(bounds=bounds, features=Features(sized_tmpfs=False)), "--size") == []


def test_an_old_bubblewrap_is_not_asked_for_what_it_lacks():
    old = Features.of((0, 6, 1))
    assert not {"--size", "--disable-userns"} & set(told(features=old))
    assert Features.of((0, 8, 0)) == Features(sized_tmpfs=True, disable_userns=True)
    assert Features.of((1, 0)) == NEW


def test_a_hostname_has_at_most_63_characters():
    cell = Cell(root=CELL.root, hostname="x" * 64, command=CELL.command)
    assert after(told(cell), "--hostname") == [("x" * 63,)]


@given(st.dictionaries(st.text(st.characters(blacklist_characters="\0="), min_size=1), st.text(), max_size=5))
def test_the_environment_is_exactly_what_is_given(env):
    cell = Cell(root=CELL.root, hostname="a", command=CELL.command, env=env)
    given_options = told(cell)
    at = given_options.index("--clearenv")
    assignments = given_options[at + 1 : -2]
    pairs = {assignments[i + 1]: assignments[i + 2] for i in range(0, len(assignments), 3)}
    assert pairs == env
    assert set(assignments[::3]) <= {"--setenv"}


def test_secrets_are_read_only_files_in_memory_from_descriptors():
    cell = replace(CELL, secrets={"KEY": b"value"}, run=Path("/r"))
    given = options(cell, Bounds(), NEW, {"KEY": 7})
    at = given.index("/run/secrets")
    assert given[at - 1] == "--tmpfs"
    assert given[at + 1 : at + 6] == ("--perms", "0400", "--file", "7", "/run/secrets/KEY")
    assert given[at + 6 : at + 8] == ("--remount-ro", "/run/secrets")
    # After what is mounted on it.
    assert given.index("/run/corten") < len(given) - given[::-1].index("/run")
    assert "value" not in " ".join(given)
    assert "value" not in repr(cell)


def test_without_secrets_there_is_nothing_of_them():
    assert "/run/secrets" not in told(replace(CELL, run=Path("/r")))
