"""A class typed into a notebook is cut out with what it uses, and the cut runs alone."""

import linecache
import sys
import types

import pytest

from corten.errors import UsageError
from corten.ops.class_source import standalone_source


@pytest.fixture
def notebook(monkeypatch):
    """Run cells as a notebook does, in a `__main__` of their own; gives its names."""
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    cells = []

    def run(*texts):
        for text in texts:
            name = f"<cell {len(cells)}>"
            cells.append(name)
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
            exec(compile(text, name, "exec", dont_inherit=True), vars(main))  # noqa: S102  # what a notebook does
        return vars(main)

    yield run
    for name in cells:
        del linecache.cache[name]


def rebuilt(source):
    """The names a module of this source has."""
    module = types.ModuleType("rebuilt")
    sys.modules["rebuilt"] = module
    try:
        exec(compile(source, "rebuilt", "exec", dont_inherit=True), vars(module))  # noqa: S102
    finally:
        del sys.modules["rebuilt"]
    return vars(module)


def test_helpers_imports_constants_and_types_of_other_cells_come_along(notebook):
    names = notebook(
        "import re\nimport json as j\nfrom collections import Counter as C\nfrom dataclasses import dataclass",
        "WORDS = '[a-z]+'\nLIMITS = {'most': (1, 2.5, None)}\nunused = open",
        "@dataclass\nclass Label:\n    name: str\n",
        "def split(text):\n    return re.findall(WORDS, text)",
        "class Model:\n    top = LIMITS['most'][0]\n    def predict(self, text: str) -> 'Label':\n"
        "        return Label(j.dumps(C(split(text)).most_common(self.top)))",
    )
    source = standalone_source(names["Model"])
    assert "unused" not in source
    made = rebuilt(source)
    assert made["Model"]().predict("a b a").name == '[["a", 2]]'


def test_of_a_class_typed_twice_the_newer_one_is_taken(notebook):
    names = notebook("class Model:\n    def predict(self): return 1", "class Model:\n    def predict(self): return 2")
    assert rebuilt(standalone_source(names["Model"]))["Model"]().predict() == 2


def test_base_classes_of_the_notebook_come_first(notebook):
    names = notebook(
        "class Base:\n    def predict(self): return self.value",
        "class Model(Base):\n    value = 3\n    def own(self): ...",
    )
    assert rebuilt(standalone_source(names["Model"]))["Model"]().predict() == 3


def test_functions_that_call_each_other_end(notebook):
    names = notebook(
        "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)",
        "class Model:\n    def predict(self, n: int): return even(n)",
    )
    assert rebuilt(standalone_source(names["Model"]))["Model"]().predict(4) is True


def test_training_code_of_the_same_cell_stays_behind(notebook):
    names = notebook("class Model:\n    def predict(self): return 1\nprint('training')\nmodel = Model()")
    assert "training" not in standalone_source(names["Model"])


@pytest.mark.parametrize("value", ["open('/dev/null')", "object()", "[print]", "lambda: 1", "float('nan')"])
def test_what_cannot_be_written_down_is_named(value, notebook, recwarn):
    names = notebook(f"THING = {value}", "class Model:\n    def predict(self): return THING")
    with pytest.raises(UsageError) as caught:
        standalone_source(names["Model"])
    assert caught.value.code == "package.no_source"
    if hasattr(names["THING"], "close"):
        names["THING"].close()


def test_a_class_without_any_source_is_an_error(notebook):
    names = notebook("Model = type('Model', (), {'predict': print})\nModel.__module__ = '__main__'")
    with pytest.raises(UsageError, match="Model"):
        standalone_source(names["Model"])
