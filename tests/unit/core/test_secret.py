"""What a secret may be called and how large it may be; nothing that is refused shows a value."""

import pytest

from corten.core.secret import MOST_BYTES, check_secrets
from corten.errors import UsageError


def test_texts_become_bytes_and_bytes_stay():
    assert check_secrets({"A": "\u00e9\n", "_b1": b"\0\xff"}, {"OTHER": "x"}) == {"A": b"\xc3\xa9\n", "_b1": b"\0\xff"}


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A/B", "../A", "A\n", "CORTEN_X", "A" * 129, "\u00e4"])
def test_a_name_has_to_be_a_variables(name):
    with pytest.raises(UsageError) as caught:
        check_secrets({name: "hunter2"}, {})
    assert caught.value.code == "secret.bad_name"
    assert "hunter2" not in str(caught.value.as_dict())


@pytest.mark.parametrize("env", [{"KEY": "x"}, {"KEY_FILE": "/x"}])
def test_a_variable_is_not_given_twice(env):
    with pytest.raises(UsageError) as caught:
        check_secrets({"KEY": "hunter2"}, env)
    assert caught.value.code == "secret.bad_name"


@pytest.mark.parametrize(
    "secrets", [{"A": ""}, {"A": b"x" * (MOST_BYTES + 1)}, {f"A{number}": b"x" * MOST_BYTES for number in range(9)}]
)
def test_a_value_has_a_size(secrets):
    with pytest.raises(UsageError) as caught:
        check_secrets(secrets, {})
    assert caught.value.code == "secret.bad_value"


def test_the_largest_are_taken():
    assert len(check_secrets({f"A{number}": b"x" * MOST_BYTES for number in range(8)}, {})) == 8
