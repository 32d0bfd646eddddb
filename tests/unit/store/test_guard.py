"""Making and removing content take turns; making it many at a time does not."""

from __future__ import annotations

import pytest

from corten.errors import CortenError
from corten.store.guard import collecting, using


def test_any_number_may_make_content_at_once(tmp_path) -> None:
    with using(tmp_path / "store"), using(tmp_path / "store", wait_s=0):
        assert (tmp_path / "store").is_dir()


def test_nothing_is_removed_while_something_is_made(tmp_path) -> None:
    with using(tmp_path), pytest.raises(CortenError) as caught, collecting(tmp_path, wait_s=0):
        pass
    assert caught.value.code == "store.busy"
    assert "built" in caught.value.why


def test_nothing_is_made_while_something_is_removed(tmp_path) -> None:
    with collecting(tmp_path), pytest.raises(CortenError) as caught, using(tmp_path, wait_s=0):
        pass
    assert caught.value.code == "store.busy"
    assert "removed" in caught.value.why


def test_the_lock_is_free_again_after_an_error(tmp_path) -> None:
    with pytest.raises(ZeroDivisionError), collecting(tmp_path):
        raise ZeroDivisionError
    with collecting(tmp_path, wait_s=0):
        pass
