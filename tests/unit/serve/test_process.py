"""What a server does about garbage: none is looked for while a model loads, and what is there afterwards stays."""

from __future__ import annotations

import gc
import weakref

import pytest

from corten.serve.process import begin, has_little, settle

ROUND = 100_000  # containers made since the last round, while loading
MANY = 3 * ROUND


class Ring:
    """Garbage for the collector alone: it holds itself."""

    def __init__(self):
        self.itself = self


@pytest.fixture(autouse=True)
def collector():
    """Leave the collector as it was: it is the whole process's."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_was_imported_is_not_looked_through():
    begin()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000, "the interpreter's own modules alone are more"
    assert gc.get_threshold()[0] == ROUND


def test_a_small_model_made_little_and_a_large_one_did_not():
    begin()
    assert has_little()
    small = [[] for _ in range(ROUND // 2)]
    assert has_little()
    large = [[] for _ in range(MANY)]
    assert not has_little()
    assert len(small) < len(large), "both were kept"


def test_what_is_freed_again_is_not_counted_as_made():
    begin()
    for _ in range(MANY):
        [[]]  # noqa: B018 - made to be freed
    assert has_little()


def test_settling_ends_garbage_and_keeps_the_rest_out_of_the_collectors_way():
    begin()
    garbage = weakref.ref(Ring())
    kept = [[] for _ in range(1000)]
    before = gc.get_freeze_count()
    assert garbage() is not None
    settle()
    assert garbage() is None
    assert gc.get_freeze_count() >= before + len(kept)
    assert gc.get_threshold()[0] < ROUND
    assert not any(found is kept for found in gc.get_objects()), "nobody looks at it again"
