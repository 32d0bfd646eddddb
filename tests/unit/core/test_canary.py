"""How a canary is written, and what a gateway's counts say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.canary import Canary, parse_canary, parse_sticky
from corten.core.traffic import Traffic
from corten.errors import UsageError


@pytest.mark.parametrize(
    ("text", "canary"),
    [
        ("off", Canary()),
        ("", Canary()),
        ("auto", Canary((5, 25, 50), judged=True)),
        ("1,10,50", Canary((1, 10, 50), judged=True)),
        ("7", Canary((7,), judged=True)),
        ("10%", Canary((10,))),
    ],
)
def test_a_canary_is_told_by_its_shares(text, canary):
    assert parse_canary(text) == canary


@pytest.mark.parametrize("text", ["0", "100", "-1", "50,10", "10,10", "10,20%", "x", "5,", "1.5", "²", "auto ", "5,,6"])
def test_what_is_no_canary_is_refused_with_what_would_be(text):
    with pytest.raises(UsageError) as caught:
        parse_canary(text)
    assert caught.value.code == "canary.malformed"
    assert "auto" in caught.value.why


@given(text=st.text(max_size=12))
def test_any_text_is_a_canary_with_rising_shares_or_refused(text):
    try:
        steps = parse_canary(text).steps
    except UsageError:
        return
    assert list(steps) == sorted({share for share in steps if 0 < share < 100})


def test_what_came_since_an_earlier_look_is_the_difference():
    earlier = Traffic(10, 1, 2, 10, ((0.1, 8), (1.0, 10)))
    now = Traffic(25, 4, 2, 24, ((0.1, 18), (1.0, 24)))
    assert now.since(earlier) == Traffic(15, 3, 0, 14, ((0.1, 10), (1.0, 14)))


def test_a_gateway_that_counts_anew_is_believed_from_its_start():
    assert Traffic(3, 1).since(Traffic(10, 0)) == Traffic(3, 1)


def test_quantiles_are_bounds_and_what_is_slower_than_the_last_bound_has_none():
    traffic = Traffic(100, timed=100, within=((0.1, 50), (1.0, 98)))
    assert traffic.quantile_s(0.5) == 0.1
    assert traffic.quantile_s(0.95) == 1.0
    assert traffic.quantile_s(0.99) is None
    assert traffic.slower_than(1.0) == 2
    assert Traffic().quantile_s(0.5) is None


def test_a_header_to_be_sticky_by_is_named_as_http_2_has_it():
    assert parse_sticky("X-User-Id") == "x-user-id"
    assert parse_sticky("") == ""


@pytest.mark.parametrize("text", ["a b", "x:y", "-a", "a\n", "ü", "x" * 65, ":authority"])
def test_what_is_no_header_is_refused(text):
    with pytest.raises(UsageError) as refused:
        parse_sticky(text)
    assert refused.value.code == "canary.bad_header"
