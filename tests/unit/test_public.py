"""The public names of `corten` stay what they are, whatever was imported before."""

import subprocess
import sys

import pytest

import corten


@pytest.mark.parametrize("name", [name for name in corten.__all__ if name not in ("__version__", "CortenError")])
def test_a_verb_is_a_function_even_after_the_parts_below_it_were_imported(name):
    code = (
        "import pkgutil, importlib, corten\n"
        "for module in pkgutil.iter_modules(corten.__path__):\n"
        "    if module.name != '__main__': importlib.import_module('corten.' + module.name)\n"
        f"print(callable(getattr(corten, {name!r})), type(getattr(corten, {name!r})).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["True", "function"], done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = corten.nothing
