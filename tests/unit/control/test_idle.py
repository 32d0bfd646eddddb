"""When a deployment goes to rest and when it wakes."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from corten.control.idle import LONGEST_S, SHORTEST_S, Quiet, Tier, decide, freeze_after_s, stop_after_s

ORDER = [Tier.AWAKE, Tier.FROZEN, Tier.STOPPED]
seconds = st.floats(0, 1e5, allow_nan=False)
quiets = st.builds(
    Quiet,
    tier=st.sampled_from(Tier),
    idle_s=seconds,
    waiting=st.integers(0, 5),
    busy=st.integers(0, 5),
    start_s=seconds,
    freeze_after_s=st.one_of(st.just(0.0), seconds),
    stop_after_s=st.one_of(st.just(0.0), seconds),
    rolling=st.booleans(),
)


@given(quiets)
def test_who_waits_is_never_left_waiting(quiet):
    assert decide(replace(quiet, waiting=quiet.waiting + 1)).tier is Tier.AWAKE


@given(quiets)
def test_nothing_is_taken_from_requests_in_hand_or_a_rollout(quiet):
    if quiet.busy or quiet.rolling:
        assert ORDER.index(decide(quiet).tier) <= ORDER.index(quiet.tier)


@given(quiets)
def test_nothing_wakes_without_a_request(quiet):
    if not quiet.waiting:
        assert ORDER.index(decide(quiet).tier) >= ORDER.index(quiet.tier)


@given(quiets, seconds)
def test_the_longer_nobody_asks_the_deeper_it_sleeps(quiet, more_s):
    longer = replace(quiet, idle_s=quiet.idle_s + more_s)
    assert ORDER.index(decide(longer).tier) >= ORDER.index(decide(quiet).tier)


@given(quiets)
def test_a_change_has_a_reason_and_is_followed_by_none(quiet):
    turn = decide(quiet)
    assert bool(turn.reason) == (turn.tier is not quiet.tier)
    assert decide(replace(quiet, tier=turn.tier)).tier is turn.tier


@given(quiets)
def test_one_is_stopped_after_it_is_frozen(quiet):
    assert stop_after_s(quiet) >= freeze_after_s(quiet)


def test_what_starts_slowly_stays_for_longer():
    def after(start_s):
        return freeze_after_s(Quiet(Tier.AWAKE, 0.0, start_s=start_s))

    assert [after(each) for each in (0.1, 20.0, 1000.0)] == [SHORTEST_S, 200.0, LONGEST_S]


def test_the_users_word_counts():
    quiet = Quiet(Tier.AWAKE, 3.0, start_s=30.0, freeze_after_s=2.0, stop_after_s=5.0)
    assert decide(quiet).tier is Tier.FROZEN
    assert decide(replace(quiet, tier=Tier.FROZEN, idle_s=6.0)).tier is Tier.STOPPED
