"""The adapter for plain classes: told from the text, loaded by its types, asked alone or in batches."""

import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.adapters.base import InputError, Source
from corten.adapters.py_call import PyModel
from corten.adapters.py_source import parse
from corten.adapters.pyclass import PyClass
from corten.core.model import ModelSpec
from corten.core.schema import Stream
from corten.errors import UsageError

MODEL = """
from __future__ import annotations
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

@dataclass
class Label:
    name: str
    score: float = 0.5

class Model:
    def __init__(self, models: Path = Path(__file__).parent / "model"):
        self.prefix = (models / "prefix.txt").read_text() if (models / "prefix.txt").exists() else ""

    def predict(self, text: str, top: int = 3, mode: Literal["a", "b"] | None = None) -> list[Label]:
        if text == "boom":
            raise KeyError("boom")
        return [Label(self.prefix + text)] * top
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Inspect a folder's `model.py` and load it as an image would; gives the inspection and the loaded model."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(entry="", name="model.py"):
        for module in [name for name in sys.modules if name in ("model", "helper", "pkg") or name.startswith("pkg.")]:
            del sys.modules[module]
        adapter = PyClass()
        found = adapter.inspect(Source(tmp_path / name, entry=entry))
        spec = ModelSpec("m", "pyclass", entry=found.entry)
        return found, adapter.load(spec, tmp_path / "model", tmp_path)

    yield run
    for module in ("model", "helper", "pkg", "pkg.inner"):
        sys.modules.pop(module, None)


def inspect(folder, name="model.py", **more):
    return PyClass().inspect(Source(folder / name, **more))


def test_a_typed_class_is_served_by_its_types(sources, load):
    sources({"model.py": MODEL, "model/prefix.txt": "> "})
    found, model = load()
    assert found.entry == "model:Model"
    assert found.schema == model.schema
    assert [file.name for file in found.weights] == ["prefix.txt"]
    assert [parameter.name for parameter in model.schema.parameters] == ["text", "top", "mode"]
    assert [parameter.required for parameter in model.schema.parameters] == [True, False, False]
    assert model.schema.returns["items"]["title"] == "Label"
    assert model.call([{"text": "x", "top": 1}]) == [[{"name": "> x", "score": 0.5}]]


@pytest.mark.parametrize(
    ("call", "path", "message"),
    [
        ({"text": 1}, "text", "expected a string, got an integer"),
        ({"text": "x", "top": "3"}, "top", "expected an integer, got a string"),
        ({"text": "x", "mode": "c"}, "mode", "expected one of 'a', 'b', got 'c'"),
        ({}, "", "missing required field `text`; it takes `text`, `top`, `mode`"),
        ({"text": "x", "txet": "y"}, "", "unknown field `txet`"),
        ([], "", "expected an object"),
    ],
)
def test_what_does_not_fit_is_said_with_its_path(call, path, message, sources, load):
    sources({"model.py": MODEL})
    (refused,) = load()[1].call([call])
    assert isinstance(refused, InputError)
    assert refused.path == path
    assert message in refused.message


def test_one_bad_call_fails_alone(sources, load):
    sources({"model.py": MODEL})
    good, raised, refused = load()[1].call([{"text": "a", "top": 0}, {"text": "boom"}, {"text": None}])
    assert good == []
    assert isinstance(raised, KeyError)
    assert isinstance(refused, InputError)


BATCH = """
from dataclasses import dataclass
@dataclass
class Call:
    text: str
    top: int
class Model:
    def predict(self, text: str, top: int = 3) -> list[str]: raise AssertionError
    def predict_batch(self, calls: list[Call]) -> list[list[str]]:
        assert all(isinstance(call, Call) for call in calls)
        return [[f"{len(calls)} {call.text}"] * call.top for call in calls]
"""


def test_a_class_that_joins_calls_gets_those_that_fit_together(sources, load):
    sources({"model.py": BATCH})
    first, refused, second = load()[1].call([{"text": "a", "top": 1}, {"text": 3}, {"text": "b"}])
    assert first == ["2 a"]
    assert second == ["2 b"] * 3
    assert isinstance(refused, InputError)


def test_calls_are_dicts_where_no_type_is_said(sources, load):
    sources({
        "model.py": "class Model:\n def predict(self, a: int, b: int = 2) -> int: ...\n"
        " def predict_batch(self, calls): return [call['a'] * call['b'] for call in calls]\n"
    })  # fmt: skip
    assert load()[1].call([{"a": 3}, {"a": 3, "b": 5}]) == [6, 15]


@pytest.mark.parametrize(
    "item",
    [
        "@dataclass\nclass Call:\n    a: int\n    b: int = 2\n",
        "class Call(msgspec.Struct):\n    a: int\n    b: int = 2\n",
        "class Call(TypedDict):\n    a: int\n    b: int\n",
    ],
)
def test_predict_batch_alone_takes_its_arguments_from_its_annotation(item, sources, load):
    text = "from dataclasses import dataclass\nfrom typing import TypedDict\nimport msgspec\n" + item
    take = "call['a'] * call['b']" if "TypedDict" in item else "call.a * call.b"
    text += f"class Model:\n def predict_batch(self, calls: list[Call]) -> list[int]:\n  return [{take} for call in calls]\n"
    sources({"model.py": text})
    found, model = load()
    assert model.call([{"a": 3, "b": 5}]) == [15]
    assert [parameter.name for parameter in model.schema.parameters] == ["a", "b"]
    assert [parameter.name for parameter in found.schema.parameters] == ["a", "b"]
    assert model.schema.returns == {"type": "integer"}


@pytest.mark.parametrize(
    ("answer", "told"), [("[1]", "1 results for 2"), ("None", "a NoneType for 2"), ("iter([])", "a list_iterator")]
)
def test_a_batch_of_the_wrong_length_fails_whole(answer, told, sources, load):
    sources({
        "model.py": "class Model:\n def predict(self, a: int): ...\n def predict_batch(self, calls): return " + answer
    })  # fmt: skip
    with pytest.raises(TypeError, match=told):
        load()[1].call([{"a": 1}, {"a": 2}])


def test_an_exception_in_a_batch_stands_for_its_call(sources, load):
    sources({
        "model.py": "class Model:\n def predict(self, a: int): ...\n"
        " def predict_batch(self, calls): return [ValueError('x'), 2]"
    })  # fmt: skip
    failed, fine = load()[1].call([{"a": 1}, {"a": 2}])
    assert isinstance(failed, ValueError)
    assert fine == 2


def test_setup_runs_after_init_and_both_may_take_the_models_folder(sources, load):
    sources({
        "model.py": "class Model:\n def __init__(self): self.seen = ['init']\n"
        " def setup(self, models): self.seen.append(models.name)\n def predict(self): return self.seen"
    })  # fmt: skip
    assert load()[1].call([{}]) == [["init", "model"]]


def test_results_become_json_whatever_they_are_made_of():
    import datetime as dt
    import enum
    from typing import Any

    np = pytest.importorskip("numpy")

    class Colour(enum.Enum):
        RED = "red"

    class Model:
        def predict(self) -> Any:
            return {
                "array": np.arange(3),
                "number": np.float32(0.5),
                1: {Colour.RED},
                "bytes": b"\x00",
                "day": dt.date(2020, 1, 2),
                "struct": msgspec.defstruct("P", [("x", int)])(3),
            }

    (result,) = PyModel(Model()).call([{}])
    assert msgspec.json.decode(msgspec.json.encode(result)) == {
        "array": [0, 1, 2],
        "number": 0.5,
        "1": ["red"],
        "bytes": "AA==",
        "day": "2020-01-02",
        "struct": {"x": 3},
    }


def test_rich_argument_types_are_made_from_json():
    import datetime as dt
    from pathlib import Path

    class Model:
        def predict(self, data: bytes, day: dt.date, tags: set[str], pair: tuple[int, str]) -> str:
            return f"{data!r} {day:%d} {sorted(tags)} {pair}"

    call = {"data": "aGk=", "day": "2020-01-02", "tags": ["b", "a", "b"], "pair": [1, "x"]}
    assert PyModel(Model()).call([call]) == ["b'hi' 02 ['a', 'b'] (1, 'x')"]

    class Odd:
        def predict(self, place: Path) -> str: ...

    assert isinstance(PyModel(Odd()).call([{"place": "x"}])[0], Exception)


def test_types_that_hold_themselves_have_a_schema_without_references():
    class Tree(msgspec.Struct):
        children: list["Tree"]

    class Model:
        def predict(self, tree: dict) -> int: ...

    Model.predict.__annotations__["tree"] = Tree
    globals()["Tree"] = Tree
    try:
        (parameter,) = PyModel(Model()).schema.parameters
    finally:
        del globals()["Tree"]
    assert "$ref" not in str(parameter.json_schema)
    assert parameter.json_schema["properties"]["children"]["type"] == "array"


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("class A:\n def predict(self, x): ...\nclass B:\n def predict(self, x): ...", "adapter.no_class", "2 classes"),
        ("class A:\n def run(self): ...", "adapter.no_class", "no classes"),
        ("x = 1", "adapter.no_class", "no classes"),
        ("class A:\n def predict(self", "adapter.syntax", "not valid Python"),
        (
            "class A:\n async def predict(self, x): ...\n def predict_batch(self, calls): ...",
            "adapter.contract",
            "is `async`",
        ),
        (
            "class A:\n def predict(self, x): yield x\n def predict_batch(self, calls): ...",
            "adapter.contract",
            "generator",
        ),
        ("class A:\n def predict(self, *x): ...", "adapter.contract", "takes `*`"),
        ("class A:\n def predict(self, **x): ...", "adapter.contract", "takes `*`"),
        ("class A:\n def predict(self, x, /): ...", "adapter.contract", "takes `*`"),
        ("class A:\n def __init__(self, path): ...\n def predict(self, x): ...", "adapter.contract", "needs `path`"),
        ("class A:\n def setup(self, path): ...\n def predict(self, x): ...", "adapter.contract", "needs `path`"),
        ("class A:\n def predict_batch(self, a, b): ...", "adapter.contract", "one argument"),
        ("\x00", "adapter.syntax", "not "),
        ("(" * 5000, "adapter.syntax", "not "),
        ("from . import x\nclass A:\n def predict(self, x): ...", "adapter.relative_import", "leads out"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_reason(body, code, told, sources):
    with pytest.raises(UsageError) as caught:
        inspect(sources({"model.py": body}))
    assert caught.value.code == code
    assert told in caught.value.what
    assert caught.value.where


STREAMS = """
from __future__ import annotations
from collections.abc import AsyncIterator, Iterator

class Words:
    def predict(self, n: int) -> Iterator[str]:
        yield from "abc"[:n]

class Wraps:
    def predict(self, n: int) -> Iterator[str]:
        return iter("abc"[:n])

class Awaits:
    async def predict(self, n: int) -> AsyncIterator[str]:
        for letter in "abc"[:n]:
            yield letter

class Untyped:
    def predict(self, n):
        for letter in "abc"[:n]:
            yield letter
"""


@pytest.mark.parametrize("name", ["Words", "Wraps", "Awaits", "Untyped"])
def test_a_generator_answers_piece_by_piece_and_whole_answers_are_lists(name, sources, load):
    sources({"model.py": STREAMS})
    found, model = load(name)
    assert model.call([{"n": 2}, {"n": 0}]) == [["a", "b"], []]
    for schema in (found.schema, model.schema):
        assert schema.stream is Stream.LIST
        assert schema.returns == ({} if name == "Untyped" else {"type": "string"})


def test_closing_the_pieces_closes_the_models_own_generator(sources, load):
    sources(
        {
            "model.py": "class A:\n def predict(self, n: int):\n  try:\n   yield from range(n)\n  finally:\n   self.done = n"
        }
    )
    _, model = load()
    pieces = model.verb.pieces({"n": 3})
    assert next(pieces) == 0
    pieces.close()
    assert model.verb._function.__self__.done == 3


def test_async_methods_run_on_a_loop_of_the_models_own(sources, load):
    sources(
        {
            "model.py": "import asyncio\nclass A:\n async def setup(self):\n  self.loop = asyncio.get_running_loop()\n"
            " async def predict(self, x: int) -> bool:\n  return self.loop is asyncio.get_running_loop()"
        }
    )
    _, model = load()
    assert model.call([{"x": 1}]) == [True]
    assert model.loop.run_until_complete(model.acall([{"x": 1}, {"x": 2}])) == [True, True]
    model.loop.close()


CHATS = """
from collections.abc import Iterator

class Chats:
    def chat(self, messages: list[dict], temperature: float = 1.0, **more) -> Iterator[str]:
        yield from (message["content"] for message in messages)
        yield str(more)
"""


def test_a_class_that_only_chats_is_asked_by_the_arguments_of_its_chat(sources, load):
    sources({"model.py": CHATS})
    found, model = load()
    assert [one.name for one in found.schema.parameters] == [one.name for one in model.schema.parameters]
    assert model.call([{"messages": [{"content": "hi"}], "seed": 3}]) == [["hi", "{'seed': 3}"]]


KINDS = """
from enum import Enum
from typing import Annotated
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from PIL import Image

class Color(Enum):
    RED = "red"
    BLUE = "blue"

class Model:
    def predict(
        self,
        image: Image.Image,
        size: Annotated[int, Meta(ge=1, le=9)],
        names: Annotated[list[str], Meta(min_length=1)],
        color: Color,
        array: NDArray[np.float32],
    ) -> np.ndarray: ...
"""


def test_richer_types_are_told_from_the_text_too(sources):
    schema = inspect(sources({"model.py": KINDS})).schema
    found = {one.name: one.json_schema for one in schema.parameters}
    assert found["image"]["contentMediaType"] == "image/*"
    assert found["size"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert found["names"] == {"type": "array", "items": {"type": "string"}, "minItems": 1}
    assert found["color"] == {"title": "Color", "enum": ["red", "blue"]}
    assert found["array"] == {"type": "array"}


def test_a_generator_within_predict_is_no_generator(sources):
    body = "class A:\n def predict(self, x: int):\n  def inner(): yield x\n  return list(inner())"
    assert inspect(sources({"model.py": body})).entry == "model:A"


def test_of_a_class_and_its_base_the_class_is_served(sources):
    body = "class Base:\n def predict(self, x: int) -> int: ...\nclass Model(Base):\n pass\n"
    assert inspect(sources({"model.py": body}), entry="Model").schema.parameters[0].name == "x"


def test_a_class_is_chosen_by_name_and_a_wrong_name_gets_the_right_ones(sources):
    folder = sources({"model.py": "class A:\n def predict(self): ...\nclass B:\n def predict(self): ...\n"})
    assert inspect(folder, entry="B").entry == "model:B"
    with pytest.raises(UsageError, match="classes with one: A, B"):
        inspect(folder, entry="C")


@pytest.mark.parametrize("name", ["my-model.py", "json.py", "corten.py", "1st.py"])
def test_a_file_that_cannot_be_imported_by_its_name_is_refused(name, sources):
    with pytest.raises(UsageError) as caught:
        inspect(sources({name: "class A:\n def predict(self): ...\n"}), name)
    assert caught.value.code == "adapter.module_name"


def test_code_follows_imports_within_the_folder_and_nothing_else_goes_along(sources):
    folder = sources({
        "model.py": "import helper, json\nfrom pkg.inner import f\nclass A:\n def predict(self): ...\n",
        "helper.py": "import other\n",
        "other.py": "",
        "unused.py": "",
        "pkg/__init__.py": "from . import inner\n",
        "pkg/inner.py": "from .deep.x import y\ndef f(): ...\n",
        "pkg/deep/__init__.py": "",
        "pkg/deep/x.py": "y = 1\n",
        "pkg/words.txt": "data",
        "pkg/.env": "SECRET=1",
        "pkg/__pycache__/inner.pyc": "",
        ".git/config": "",
        "tests/test_model.py": "",
        "requirements.txt": "numpy\n",
    })  # fmt: skip
    names = [file.name for file in inspect(folder).code]
    assert names == [
        "helper.py", "model.py", "other.py", "pkg/__init__.py", "pkg/deep/__init__.py", "pkg/deep/x.py", "pkg/inner.py",
        "pkg/words.txt",
    ]  # fmt: skip


def test_a_class_in_a_package_keeps_its_package(sources):
    folder = sources({
        "pkg/__init__.py": "",
        "pkg/model.py": "from .helper import x\nclass A:\n def predict(self): ...\n",
        "pkg/helper.py": "x = 1\n",
    })  # fmt: skip
    found = inspect(folder, "pkg/model.py")
    assert found.entry == "pkg.model:A"
    assert [file.name for file in found.code] == ["pkg/__init__.py", "pkg/helper.py", "pkg/model.py"]


def test_imports_that_go_round_end(sources):
    folder = sources(
        {"model.py": "import a\nclass A:\n def predict(self): ...\n", "a.py": "import b", "b.py": "import a"}
    )
    assert [file.name for file in inspect(folder).code] == ["a.py", "b.py", "model.py"]


def test_a_link_out_of_the_folder_is_refused(sources, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.py"
    outside.write_text("x = 1")
    folder = sources({"model.py": "import helper\nclass A:\n def predict(self): ...\n"})
    (folder / "helper.py").symlink_to(outside)
    with pytest.raises(UsageError, match=r"helper\.py") as caught:
        inspect(folder)
    assert caught.value.code == "adapter.unsafe_path"


IMPORTS = """
import json, os.path, corten
import msgspec
import no_such_module_here
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import only_for_types
try:
    import faster
except ImportError:
    faster = None
def later():
    import hypothesis
class A:
    def predict(self): ...
"""


def test_requirements_are_inferred_from_imports_with_the_versions_here(sources):
    from importlib.metadata import version

    found = inspect(sources({"model.py": IMPORTS}))
    assert found.requirements == (
        f"hypothesis=={version('hypothesis')}",
        f"msgspec=={version('msgspec')}",
        "no-such-module-here",
    )
    assert len(found.warnings) == 1
    assert "no_such_module_here" in found.warnings[0]


def test_declared_requirements_are_taken_as_they_are(sources):
    folder = sources({
        "model.py": IMPORTS,
        "requirements.txt": "# ours\n-r more.txt\nnumpy>=2  # arrays\n\nscipy==1.17.1 --hash=sha256:00\n",
        "more.txt": "torch ; python_version > '3'\n",
    })  # fmt: skip
    assert inspect(folder).requirements == ("torch ; python_version > '3'", "numpy>=2", "scipy==1.17.1")
    (folder / "requirements.txt").unlink()
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["rich"]\n')
    assert inspect(folder).requirements == ("rich",)
    (folder / "pyproject.toml").unlink()
    assert inspect(folder, requirements=("attrs",)).requirements == ()  # the builder adds them itself


@pytest.mark.parametrize("line", ["-e .", "--no-index", "-r absent.txt"])
def test_what_only_pip_understands_is_refused_with_its_line(line, sources):
    folder = sources({"model.py": IMPORTS, "requirements.txt": f"numpy\n{line}\n"})
    with pytest.raises(UsageError) as caught:
        inspect(folder)
    assert caught.value.where.endswith("requirements.txt:2")


def test_only_files_called_py_are_taken(sources):
    folder = sources({"model.py": MODEL, "model.txt": MODEL})
    assert PyClass().detect(Source(folder / "model.py"))
    assert not PyClass().detect(Source(folder / "model.txt"))
    assert not PyClass().detect(Source(folder))


def test_declared_files_keep_their_place_and_hidden_ones_stay(sources):
    folder = sources({"model.py": MODEL, "model/a/w.bin": "1", "model/.cache": "2", "data/x.txt": "3"})
    found = PyClass().inspect(msgspec.structs.replace(Source(folder / "model.py"), extra_files=(folder / "data",)))
    assert [file.name for file in found.weights] == ["a/w.bin", "data/x.txt"]


@pytest.mark.parametrize(("name", "what"), [("/dev/zero", "no file or folder"), ("gone.bin", "not there")])
def test_a_declared_file_that_cannot_be_one_is_told_from_one_that_is_missing(sources, name, what):
    folder = sources({"model.py": MODEL})
    with pytest.raises(UsageError) as caught:
        PyClass().inspect(msgspec.structs.replace(Source(folder / "model.py"), extra_files=(folder / name,)))
    assert caught.value.code == "adapter.missing_weights"
    assert what in caught.value.what
    assert caught.value.hint


def test_reading_a_source_does_not_run_it(sources):
    folder = sources({"model.py": "raise SystemExit(3)\nclass A:\n def predict(self): ...\n"})
    assert inspect(folder).entry == "model:A"


def test_warnings_of_the_compiler_are_not_ours_to_print(sources, recwarn):
    inspect(sources({"model.py": "class A:\n def predict(self): return '\\d' is 1\n"}))
    assert list(recwarn) == []


@given(text=st.text(max_size=200))
def test_any_text_parses_or_is_an_error_of_ours(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.py"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        code = type(parse(path)).__name__
    except UsageError as error:
        code = error.code
    assert code in {"Module", "adapter.syntax"}


@pytest.mark.parametrize(("release", "line"), [("3.2.0", "xgboost-cpu==3.2.0"), ("1.7.6", "xgboost==1.7.6")])
def test_of_a_package_that_is_installed_here_the_build_without_cuda_is_inferred(release, line, tmp_path, monkeypatch):
    site = tmp_path / "site"
    info = site / f"xgboost-{release}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: xgboost\nVersion: {release}\n")
    (info / "RECORD").write_text("xgboost/__init__.py,,\n")
    (site / "xgboost").mkdir()
    (site / "xgboost" / "__init__.py").touch()
    monkeypatch.syspath_prepend(site)
    (tmp_path / "model.py").write_text("import xgboost\nclass M:\n    def predict(self, x: int) -> int: return x\n")
    found = inspect(tmp_path)
    assert line in found.requirements
    assert not found.warnings
