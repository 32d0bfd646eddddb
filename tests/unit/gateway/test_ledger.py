import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.gateway.xds import Ledger, version_of

KEY = ("endpoints", "iris/r1")
OTHER = ("endpoints", "iris/r2")
GOOD, BETTER, BAD = [{"n": 1}], [{"n": 2}], [{"bad": True}]


@pytest.fixture
def ledger():
    return Ledger()


def test_nothing_is_answered_before_something_is_published(ledger):
    assert ledger.ask(KEY, "", "one") is None


def test_a_poll_that_is_behind_is_answered_and_one_that_is_not_is_held(ledger):
    version = ledger.publish({KEY: GOOD})[KEY]
    assert ledger.ask(KEY, "", "one") == (version, GOOD)
    assert ledger.ask(KEY, version, "one") is None
    assert ledger.accepted(KEY, version)


def test_the_same_content_is_no_change(ledger):
    assert ledger.publish({KEY: GOOD, OTHER: GOOD}).keys() == {KEY, OTHER}
    assert ledger.publish({KEY: list(GOOD), OTHER: BETTER}).keys() == {OTHER}


def test_after_a_restart_of_the_daemon_polls_with_the_version_to_come_are_held(ledger):
    version = version_of(GOOD)
    assert ledger.ask(KEY, version, "one") is None
    ledger.publish({KEY: GOOD})
    assert ledger.ask(KEY, version, "one") is None
    assert ledger.accepted(KEY, version)


def test_what_is_refused_twice_is_refused_and_not_sent_again(ledger):
    bad = ledger.publish({KEY: BAD})[KEY]
    for _ in range(2):
        assert not ledger.refused(KEY)
        assert ledger.ask(KEY, "", "one") == (bad, BAD)
    assert ledger.ask(KEY, "", "one") is None
    assert ledger.refused(KEY)
    assert not ledger.accepted(KEY, bad)


def test_a_refused_version_can_be_offered_once_more(ledger):
    bad = ledger.publish({KEY: BAD})[KEY]
    for _ in range(3):
        ledger.ask(KEY, "", "one")
    ledger.offer_again(KEY)
    assert ledger.ask(KEY, "", "one") == (bad, BAD)
    assert ledger.ask(KEY, "", "one") is None
    assert ledger.refused(KEY)


def test_what_is_published_after_a_refusal_is_sent(ledger):
    ledger.publish({KEY: BAD})
    for _ in range(3):
        ledger.ask(KEY, "", "one")
    good = ledger.publish({KEY: GOOD})[KEY]
    assert not ledger.refused(KEY)
    assert ledger.ask(KEY, "", "one") == (good, GOOD)


def test_an_answer_lost_once_is_no_refusal(ledger):
    good = ledger.publish({KEY: GOOD})[KEY]
    ledger.ask(KEY, "", "one")
    assert ledger.ask(KEY, "", "one") == (good, GOOD)
    assert ledger.ask(KEY, good, "one") is None
    assert not ledger.refused(KEY)


def test_a_new_process_of_envoy_has_refused_nothing(ledger):
    bad = ledger.publish({KEY: BAD})[KEY]
    for _ in range(3):
        ledger.ask(KEY, "", "one")
    assert ledger.refused(KEY)
    assert ledger.ask(KEY, "", "two") == (bad, BAD)
    assert not ledger.refused(KEY)


def test_a_subscription_that_begins_while_another_is_answered_is_no_refusal(ledger):
    """A cluster that is built anew subscribes again under its old name."""
    first = ledger.publish({KEY: GOOD})[KEY]
    ledger.ask(KEY, "", "one")
    ledger.ask(KEY, first, "one")
    second = ledger.publish({KEY: BETTER})[KEY]
    ledger.ask(KEY, first, "one")
    for _ in range(2):
        assert ledger.ask(KEY, "", "one") == (second, BETTER)
        assert ledger.ask(KEY, second, "one") is None
    assert not ledger.refused(KEY)
    assert ledger.accepted(KEY, second)


def test_dropped_keys_are_held_and_can_come_back(ledger):
    version = ledger.publish({KEY: GOOD})[KEY]
    ledger.ask(KEY, "", "one")
    ledger.drop([KEY])
    assert ledger.ask(KEY, version, "one") is None
    assert ledger.publish({KEY: GOOD}) == {KEY: version}
    assert ledger.ask(KEY, "", "one") == (version, GOOD)


def test_offering_again_what_is_unknown_or_not_refused_does_nothing(ledger):
    ledger.offer_again(KEY)
    ledger.publish({KEY: GOOD})
    ledger.offer_again(KEY)
    assert not ledger.refused(KEY)


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 1)), max_size=40), st.integers())
def test_whatever_is_published_and_lost_envoy_ends_with_the_newest_it_can_take(changes, seed):
    """Envoy is played: it refuses what is `bad`, restarts now and then; single answers get lost."""
    ledger, chance = Ledger(), random.Random(seed)
    have, node, accepted = "", 0, {}

    def poll(*, lose=False):
        nonlocal have
        answer = ledger.ask(KEY, have, str(node))
        if answer and not lose and not answer[1][0]["bad"]:
            have = answer[0]
            accepted[have] = True
        return answer

    for number, luck in changes:
        content = [{"n": number, "bad": number % 3 == 2}]
        ledger.publish({KEY: content})
        if luck < 0.1:
            have, node = "", node + 1
        if luck > 0.9:
            poll(lose=True)
        polls = 0
        while poll() is not None:
            polls += 1
            assert polls < 5, "the same is sent for ever"
        if content[0]["bad"]:
            assert ledger.refused(KEY)
        else:
            assert have == version_of(content)
            assert ledger.accepted(KEY, have)
            assert not ledger.refused(KEY)
        if chance.random() < 0.2:
            poll()
