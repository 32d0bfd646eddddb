"""What is known of a request on its way."""

from types import SimpleNamespace

import pytest

from corten.serve.call import Call


@pytest.mark.parametrize(
    ("attempt", "headers"), [("1", (("x-corten-again", "1"),)), ("2", ()), ("7", ()), (None, ()), ("x", ())]
)
def test_the_gateway_is_to_ask_another_replica_after_the_first_attempt_only(attempt, headers):
    given = {} if attempt is None else {"x-envoy-attempt-count": attempt}
    assert Call(SimpleNamespace(headers=given), 0.0, SimpleNamespace()).second_chance == headers


def test_who_does_not_wait_for_the_answer_gets_no_second_one():
    class Patient(Call):
        patient = True

    given = SimpleNamespace(headers={"x-envoy-attempt-count": "1"})
    assert Patient(given, 0.0, SimpleNamespace()).second_chance == ()
