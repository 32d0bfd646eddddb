"""`--secret`: one option, whose right side is a file here and an entry of a Secret in a cluster."""

import os

import pytest

from corten.cli.running import secret_values, secret_variables
from corten.errors import UsageError


def test_a_file_of_this_machine_is_read_as_it_is(tmp_path):
    (tmp_path / "key").write_bytes(b"a\0b\n")
    assert secret_values([("A", str(tmp_path / "key")), ("B", str(tmp_path / "key"))]) == {
        "A": b"a\0b\n",
        "B": b"a\0b\n",
    }


def test_standard_input_is_read_once():
    reading, writing = os.pipe()
    os.write(writing, b"piped")
    os.close(writing)
    before = os.dup(0)
    try:
        os.dup2(reading, 0)
        assert secret_values([("A", "-")]) == {"A": b"piped"}
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(reading)
    with pytest.raises(UsageError, match="once"):
        secret_values([("A", "-"), ("B", "-")])


@pytest.mark.parametrize("path", ["", "nowhere", ".", "db/password", "a\0b"])
def test_what_cannot_be_read_says_what_would_do(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        secret_values([("A", path)])
    assert caught.value.code == "secret.unreadable"
    assert "--engine kubernetes" in caught.value.hint


def test_a_name_is_given_once(tmp_path):
    (tmp_path / "key").write_bytes(b"x")
    with pytest.raises(UsageError, match="twice"):
        secret_values([("A", str(tmp_path / "key"))] * 2)


def test_no_more_is_read_than_shows_that_it_is_too_much():
    assert len(secret_values([("A", "/dev/zero")])["A"]) == (64 << 10) + 1


def test_in_a_cluster_it_is_an_entry_of_a_secret():
    (found,) = secret_variables([("A", "db/password")])
    assert (found.variable, found.secret, found.key) == ("A", "db", "password")


@pytest.mark.parametrize("place", ["db", "db/", "/etc/key", "./key", "../a/b", "DB/key", "-", "db/a/b"])
def test_a_file_is_not_sent_to_a_cluster(place):
    with pytest.raises(UsageError) as caught:
        secret_variables([("A", place)])
    assert "kubectl create secret" in caught.value.hint
