"""What a replica wrote last is told as words, and what it lacks as advice."""

import json

import pytest

from corten.control.last_lines import advice, for_people


def test_an_error_in_the_log_is_told_by_its_message_and_where_it_was_raised():
    line = json.dumps(
        {
            "level": "critical",
            "message": "the model could not be loaded",
            "error": {
                "type": "ModuleNotFoundError",
                "message": "No module named 'yaml'",
                "traceback": ["  File a\n", "  File m.py, line 2\n    import yaml\n"],
            },
        }
    )
    assert for_people(line) == (
        "the model could not be loaded: ModuleNotFoundError: No module named 'yaml'\nFile m.py, line 2\n    import yaml"
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"level": "info", "message": "listening"}', "info: listening"),
        ('{"level": "info", "message": "x", "error": "odd"}', "info: x"),
        ("Segmentation fault", "Segmentation fault"),
        ('{"half', '{"half'),
        ("[1]", "[1]"),
        ("", ""),
    ],
)
def test_any_other_line_is_told_as_it_is(line, text):
    assert for_people(line) == text


def test_a_module_that_is_not_in_the_image_is_advised_by_its_distribution():
    error = {"type": "ModuleNotFoundError", "message": "No module named 'yaml.nodes'"}
    lines = ["listening", json.dumps({"level": "critical", "message": "not loaded", "error": error}), "Traceback"]
    assert advice(lines) == "`yaml` is not in the image: add `pyyaml`, with `-r` or to its requirements"
    assert advice(["Segmentation fault"]) == ""


def test_a_module_of_pythons_own_is_not_asked_of_the_index():
    assert "take a base with a whole one" in advice(["ModuleNotFoundError: No module named 'json'"])
