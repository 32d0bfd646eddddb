"""YAML as we write it is read as what it was made from."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.exporters.yaml_text import Raw, documents, to_yaml

yaml = pytest.importorskip("yaml")

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
# What YAML 1.1 takes for something else than a text.
TRAPS = ["no", "Yes", "on", "~", "null", "1e3", "0x1f", "1_000", "012", "2026-01-01", "1:30", ".5", "=", "<<", "- a", "a: b",
         "a #b", "#", "&a", "*a", "!t", "%", "@x", "`", "'", '"', "|", ">", "", " a", "a ", "é", "\n", "a\nb", "\t", "\x7f", "\x85",
         "\u2028", "\ufeff", "😀", "---", "...", "?", "{", "[", ",", "NaN", ".inf", "y", "N"]  # fmt: skip


@given(value=VALUES)
def test_any_value_is_read_as_itself(value):
    assert as_floats_are(yaml.safe_load(to_yaml(value))) == as_floats_are(value)


@pytest.mark.parametrize("text", TRAPS)
def test_a_text_stays_a_text_as_key_value_and_item(text):
    assert yaml.safe_load(to_yaml({text: [text, {text: text}]})) == {text: [text, {text: text}]}


def test_names_and_paths_stand_plain_and_in_the_order_given():
    assert to_yaml({"b": "apps/v1", "a": ["x-y.z", {"k": 1, "l": {}}]}) == (
        "b: apps/v1\na:\n- x-y.z\n- k: 1\n  l: {}\n"
    )


def test_several_documents_are_as_many():
    assert list(yaml.safe_load_all(documents([{"a": 1}, {"b": 2}]))) == [{"a": 1}, {"b": 2}]


def test_what_is_raw_goes_through_as_it_is():
    assert to_yaml({"replicas": Raw("{{ .Values.replicas }}")}) == "replicas: {{ .Values.replicas }}\n"


def test_what_yaml_cannot_say_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        to_yaml({"a": float("nan")})


def as_floats_are(value):
    """YAML 1.1 reads `1e+16` as a text where JSON reads a number; and lone surrogates are no text."""
    match value:
        case dict():
            return {as_floats_are(key): as_floats_are(inner) for key, inner in value.items()}
        case list():
            return [as_floats_are(inner) for inner in value]
        case str() if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?e[+-]?[0-9]+", value):
            return json.loads(value)
        case str():
            return value.encode("utf-8", "replace").decode()
        case _:
            return value
