import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import RemoteError
from corten.registry.retry import AgainError, Retries, retry_after_s

FINAL = RemoteError("registry.refused", "busy")


def failing(times, after_s=0.0):
    left = [times]

    def attempt():
        if left[0]:
            left[0] -= 1
            raise AgainError(FINAL, after_s)
        return "done"

    return attempt


def test_three_more_attempts_are_made_and_no_fourth():
    pauses = []
    assert Retries(lambda: 1.0, pauses.append).run(failing(3)) == "done"
    assert pauses == [0.5, 2.0, 6.0]
    with pytest.raises(RemoteError):
        Retries(lambda: 1.0, pauses.append).run(failing(4))


def test_nothing_is_tried_again_once_all_is_given_up():
    made = []

    def attempt():
        made.append(1)
        raise AgainError(FINAL)

    with pytest.raises(RemoteError):
        Retries(lambda: 0.0, lambda _: True).run(attempt)
    assert len(made) == 1


@given(st.floats(0, 1, exclude_max=True))
def test_chance_spreads_pauses_over_half_of_their_length(chance):
    pauses = []
    Retries(lambda: chance, pauses.append).run(failing(3))
    assert all(full / 2 <= pause <= full for pause, full in zip(pauses, (0.5, 2.0, 6.0), strict=True))


def test_a_longer_pause_that_was_asked_for_is_kept_but_not_any_length():
    pauses = []
    Retries(lambda: 0.0, pauses.append).run(failing(1, after_s=20))
    assert pauses == [20]
    with pytest.raises(RemoteError):
        Retries(lambda: 0.0, pauses.append).run(failing(1, after_s=61))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), ("", 0.0), ("-1", 0.0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("9" * 50, 0.0), ("²", 0.0)],
)
def test_retry_after_is_seconds_or_nothing(text, seconds):
    assert retry_after_s(text) == seconds
