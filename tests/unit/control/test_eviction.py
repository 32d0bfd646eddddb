"""Who gives memory back first."""

from hypothesis import given
from hypothesis import strategies as st

from corten.control.eviction import LEAST_IDLE_S, Kind, Sleeper, victim

sleepers = st.lists(
    st.builds(Sleeper, st.sampled_from("abcdef"), st.sampled_from(Kind), st.floats(0, 100)),
    unique_by=lambda one: (one.deployment, one.kind),
)


@given(sleepers)
def test_what_is_only_kept_to_be_quick_goes_before_what_is_awake_and_the_longest_unasked_first(found):
    chosen = victim(found)
    if chosen is None:
        assert all(one.kind is Kind.IDLE and one.idle_s < LEAST_IDLE_S for one in found)
        return
    assert chosen in found
    assert chosen.kind == min(one.kind for one in found if one.kind is not Kind.IDLE or one.idle_s >= LEAST_IDLE_S)
    assert chosen.idle_s == max(one.idle_s for one in found if one.kind is chosen.kind)


def test_one_that_is_awake_is_in_use_for_a_second_after_it_was_asked():
    assert victim([Sleeper("a", Kind.IDLE, 0.99)]) is None
    assert victim([Sleeper("a", Kind.IDLE, 1.0)]) is not None


@given(sleepers)
def test_one_after_the_other_all_that_can_be_spared_goes(found):
    left = list(found)
    while (chosen := victim(left)) is not None:
        left.remove(chosen)
    assert all(one.kind is Kind.IDLE and one.idle_s < LEAST_IDLE_S for one in left)
