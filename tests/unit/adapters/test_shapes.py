"""Classes written for Cog and LitServe: told by their bases, loaded without either."""

import base64
import sys

import pytest

from corten.adapters.base import InputError, Source
from corten.adapters.cog import Cog
from corten.adapters.litserve import LitServe
from corten.builder.inspecting import inspect
from corten.core.model import ModelSpec
from corten.core.schema import Stream
from corten.errors import UsageError

PREDICTOR = """
from typing import Iterator, Optional
from cog import BaseModel, BasePredictor, ConcatenateIterator, Input, Path

class Output(BaseModel):
    text: str
    length: int

class Predictor(BasePredictor):
    def setup(self):
        with open("weights/greeting.txt") as file:
            self.greeting = file.read()

    def predict(
        self,
        name: str = Input(description="Whom to greet", min_length=2),
        times: int = Input(default=1, ge=1, le=3),
        mood: str = Input(default="glad", choices=["glad", "sad"]),
    ) -> Output:
        text = f"{self.greeting} {name} " * times + mood
        return Output(text=text, length=len(text))
"""
API = """
import litserve as ls

class Doubler(ls.LitAPI):
    def setup(self, device):
        self.factor = {"cpu": 2}[device]

    def decode_request(self, request):
        return request["input"] + request.get("offset", 0)

    def predict(self, x):
        return x * self.factor

    def encode_response(self, output):
        return {"output": output}

ls.LitServer(Doubler(), accelerator="auto").run(port=8000)
"""


@pytest.fixture
def write(tmp_path):
    def run(text, name="predict_it.py", entry=""):
        path = tmp_path / name
        path.write_text(text)
        return Source(path, entry=entry)

    return run


@pytest.fixture
def load(write, tmp_path, monkeypatch):
    """Load a class as the image would, and leave this process as it was."""

    def run(adapter, text):
        source = write(text)
        found = adapter.inspect(source)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        spec = ModelSpec("m", found.adapter, entry=found.entry, schema=found.schema)
        return adapter.load(spec, tmp_path, tmp_path)

    before = set(sys.modules)
    yield run
    for name in set(sys.modules) - before:
        if name in ("cog", "litserve", "predict_it"):
            del sys.modules[name]


def test_a_predictor_of_cog_is_told_by_its_base_and_needs_no_cog(write, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "greeting.txt").write_text("hello")
    _, found = inspect(write(PREDICTOR), cache=tmp_path / "cache")
    assert found.adapter == "cog"
    assert found.requirements == ()
    assert found.entry == "predict_it:Predictor"
    assert [file.name for file in found.weights] == ["weights/greeting.txt"]
    name, times, _ = found.schema.parameters
    assert (name.name, name.required, name.json_schema) == ("name", True, {"type": "string"})
    assert (times.required, times.json_schema["default"]) == (False, 1)


def test_a_predictor_answers_and_its_bounds_hold(load, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "greeting.txt").write_text("hello")
    model = load(Cog(), PREDICTOR)
    good, few, mood, missing = model.call(
        [{"name": "Ada", "times": 2}, {"name": "Ada", "times": 9}, {"name": "Ada", "mood": "angry"}, {}]
    )
    assert good == {"text": "hello Ada hello Ada glad", "length": 24}
    assert all(isinstance(refused, InputError) for refused in (few, mood, missing))
    assert few.path == "times"
    described = {parameter.name: parameter.json_schema for parameter in model.schema.parameters}
    assert described["times"]["maximum"] == 3
    assert described["mood"]["enum"] == ["glad", "sad"]


def test_files_come_and_go_as_data_uris_and_leave_nothing_behind(load, tmp_path):
    model = load(
        Cog(),
        "import pathlib\nfrom cog import BasePredictor, Path\n"
        "class P(BasePredictor):\n"
        "    def predict(self, image: Path) -> Path:\n"
        "        out = pathlib.Path('seen.txt')\n"
        "        out.write_text(str(image))\n"
        "        copy = Path('copy.bin')\n"
        "        copy.write_bytes(image.read_bytes()[::-1])\n"
        "        return copy\n",
    )
    uri = "data:text/plain;base64," + base64.b64encode(b"abc").decode()
    answer, other, broken = model.call(
        [{"image": uri}, {"image": "https://example.org/x"}, {"image": "data:;base64,!"}]
    )
    assert answer == "data:application/octet-stream;base64," + base64.b64encode(b"cba").decode()
    assert isinstance(other, InputError)
    assert isinstance(broken, InputError)
    from pathlib import Path

    assert not Path((tmp_path / "seen.txt").read_text()).exists()


def test_answers_in_parts_come_whole(load):
    model = load(
        Cog(),
        "from typing import Iterator\nfrom cog import BasePredictor, ConcatenateIterator\n"
        "class P(BasePredictor):\n"
        "    def predict(self, n: int) -> ConcatenateIterator[str]:\n"
        "        yield from (str(i) for i in range(n))\n",
    )
    assert model.call([{"n": 4}]) == ["0123"]
    assert model.schema.returns == {"type": "string"}
    assert model.schema.stream is Stream.TEXT
    assert list(model.verb.pieces({"n": 3})) == ["0", "1", "2"]


def test_an_api_of_litserve_is_told_by_its_base_and_its_keys_by_their_use(write, tmp_path):
    _, found = inspect(write(API, "api_it.py"), cache=tmp_path / "cache")
    assert found.adapter == "litserve"
    assert found.requirements == ()
    assert [(one.name, one.required) for one in found.schema.parameters] == [("input", True), ("offset", False)]


def test_an_api_answers_through_all_its_steps(load):
    model = load(LitServe(), API)
    good, bad = model.call([{"input": 3, "offset": 1}, {"input": None}])
    assert good == {"output": 8}
    assert isinstance(bad, TypeError)


STREAMING_API = """
import litserve as ls

class API(ls.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["n"]

    def predict(self, n):
        yield from range(n)

    def encode_response(self, pieces):
        for piece in pieces:
            yield {"output": piece}
"""


def test_an_api_that_yields_answers_piece_by_piece(load):
    model = load(LitServe(), STREAMING_API)
    assert model.schema.stream is Stream.LIST
    assert list(model.verb.pieces({"n": 2})) == [{"output": 0}, {"output": 1}]
    assert model.call([{"n": 2}]) == [[{"output": 0}, {"output": 1}]]


def test_an_async_api_is_awaited_at_each_step(load):
    text = STREAMING_API.replace("def predict", "async def predict").replace("yield from range(n)", "yield n")
    text = text.replace("def encode", "async def encode").replace("for piece", "async for piece")
    model = load(LitServe(), text)
    assert model.call([{"n": 7}]) == [[{"output": 7}]]
    model.loop.close()


def test_requirements_lose_the_server_that_is_replaced(write, tmp_path):
    (tmp_path / "requirements.txt").write_text("litserve==0.2.19\nnumpy==2.4.6\n")
    assert LitServe().inspect(write(API)).requirements == ("numpy==2.4.6",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from cog import BasePredictor, File\nclass P(BasePredictor):\n    def predict(self, a: File): ...\n", "File"),
        ("import cog\nclass P(cog.BasePredictor):\n    def predict(self, a: cog.File): ...\n", "File"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(text, said, write):
    with pytest.raises(UsageError) as refused:
        Cog().inspect(write(text))
    assert refused.value.code == "adapter.contract"
    assert said in refused.value.what


def test_an_api_that_does_not_tell_its_keys_is_refused(write):
    with pytest.raises(UsageError) as refused:
        LitServe().inspect(write(API.replace('request["input"] + request.get("offset", 0)', "request")))
    assert "which keys" in refused.value.what


def test_files_outside_the_folder_are_not_taken(write, tmp_path):
    text = PREDICTOR.replace("weights/greeting.txt", "../../etc/passwd")
    assert Cog().inspect(write(text)).weights == ()
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert Cog().inspect(write(PREDICTOR.replace("weights/greeting.txt", "link"))).weights == ()


def test_plain_classes_and_broken_files_have_no_such_shape(write):
    for text in ("class Model:\n    def predict(self, a: int): ...\n", "class BasePredictor: ...\n", "def broken(:"):
        source = write(text)
        assert not Cog().detect(source)
        assert not LitServe().detect(source)
