"""Values of secrets on disk: the owner's alone, by ids that do not depend on them."""

import stat

import pytest

from corten.control.vault import Vault
from corten.errors import CortenError


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / "secrets")


def test_what_is_kept_is_read_again(vault):
    ids = vault.keep({"A": b"one", "B": b"two"}, {})
    assert vault.read(ids) == {"A": b"one", "B": b"two"}


def test_it_is_the_owners_alone(vault):
    (one,) = vault.keep({"A": b"one"}, {}).values()
    assert stat.S_IMODE(vault.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((vault.folder / one).stat().st_mode) == 0o600


def test_the_same_value_keeps_its_id_and_another_gets_a_new_one(vault):
    first = vault.keep({"A": b"one", "B": b"two"}, {})
    second = vault.keep({"A": b"one", "B": b"three"}, first)
    assert second["A"] == first["A"]
    assert second["B"] != first["B"]
    assert vault.read(first)["B"] == b"two"


def test_ids_say_nothing_of_values(vault):
    assert vault.keep({"A": b"one"}, {}) != vault.keep({"A": b"one"}, {})


def test_what_nobody_wants_is_removed(vault):
    assert vault.sweep(()) == 0
    ids = vault.keep({"A": b"one", "B": b"two"}, {})
    assert vault.sweep({ids["A"]}) == 1
    assert vault.read({"A": ids["A"]}) == {"A": b"one"}
    with pytest.raises(CortenError) as caught:
        vault.read(ids)
    assert caught.value.code == "secret.lost"
    assert "`B`" in caught.value.what
