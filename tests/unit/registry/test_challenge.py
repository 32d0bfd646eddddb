from hypothesis import given
from hypothesis import strategies as st

from corten.registry.challenge import Challenge, parse_challenges


def test_a_bearer_challenge_has_realm_service_and_scope():
    header = 'Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push"'
    assert parse_challenges(header) == (
        Challenge(
            "bearer",
            {"realm": "https://auth.example/token", "service": "r.example", "scope": "repository:a/b:pull,push"},
        ),
    )


def test_several_challenges_may_stand_in_one_header():
    found = parse_challenges('Negotiate, Basic realm="a \\"b\\"", charset=UTF-8, Bearer realm=x')
    assert [one.scheme for one in found] == ["negotiate", "basic", "bearer"]
    assert found[1].parameters == {"realm": 'a "b"', "charset": "UTF-8"}


@given(st.text(max_size=200))
def test_any_header_is_read_without_an_error(text):
    assert all(one.scheme for one in parse_challenges(text))
