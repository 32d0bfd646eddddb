"""The public names of `corten` stay what they are, whatever was imported before."""

import json
import subprocess
import sys

import pytest

import corten
from corten.adapters.base import InputError

VERBS = [name for name in corten.__all__ if name not in ("__version__", "CortenError", "InputError")]


@pytest.fixture(scope="module")
def types():
    """The types of the public names, in a process that imported all parts below them before it touched any."""
    code = (
        "import pkgutil, importlib, json, corten\n"
        "for module in pkgutil.iter_modules(corten.__path__):\n"
        "    if module.name != '__main__': importlib.import_module('corten.' + module.name)\n"
        f"print(json.dumps({{name: type(getattr(corten, name)).__name__ for name in {VERBS!r}}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_is_a_function_even_after_the_parts_below_it_were_imported(name, types):
    assert types[name] == "function"


def test_what_a_model_raises_about_its_input_has_a_public_name():
    assert corten.InputError is InputError


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = corten.nothing
