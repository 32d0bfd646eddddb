"""How a number of replicas is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.scale import parse_replicas
from corten.errors import UsageError


@pytest.mark.parametrize(("text", "ends"), [("1", (1, 1)), ("3", (3, 3)), ("1..4", (1, 4)), (" 2..2 ", (2, 2))])
def test_a_number_or_a_range(text, ends):
    assert parse_replicas(text) == ends


@pytest.mark.parametrize("text", ["", "0", "65", "4..1", "1...4", "1..", "..4", "-1", "1.5", "many", "1..65", "²"])
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_replicas(text)
    assert caught.value.code == "scale.malformed"


@given(text=st.text(max_size=8))
def test_any_text_is_a_range_within_what_one_machine_runs_or_refused(text):
    try:
        least, most = parse_replicas(text)
    except UsageError:
        return
    assert 1 <= least <= most <= 64
