"""The playground and the reference in a real browser, on the real server."""

from __future__ import annotations

import json
import shutil

import pytest
from browser import Browser
from served import Served

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="chromedriver is not installed"),
]

MARKUP = "<img src=x onerror=window.bad=1>"
LABELS = f"""
from dataclasses import dataclass


@dataclass
class Label:
    name: str
    score: float


class Toy:
    def predict(self, text: str, top: int = 2) -> list[Label]:
        return [Label(text, 0.75), Label({MARKUP!r}, 0.25)][:top]
"""
READY = "return !document.getElementById('send').disabled"
ANSWER = "return document.querySelector('#answer pre')?.textContent"


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def labels():
    example = {"inputs": {"text": "hello", "top": 2}}
    spec = {"adapter": "pyclass", "entry": "toy_class:Toy", "name": MARKUP, "example": example}
    with Served(spec, files={"toy_class.py": LABELS}) as server:
        server.until()
        yield server


def url(server, path=""):
    return f"http://127.0.0.1:{server.port}/{path}"


def text_of(browser, selector):
    return browser.run(f"return document.querySelector({json.dumps(selector)}).textContent")


def test_the_form_is_filled_with_the_example_and_answers_by_keyboard(browser, labels):
    browser.open(url(labels))
    browser.until(READY)
    assert browser.run("return document.getElementById('field-0').value") == "hello"
    browser.type("#field-0", "it's \ue009\ue007")
    answer = json.loads(browser.until(ANSWER))
    assert [label["name"] for label in answer["outputs"]] == ["it's ", MARKUP]
    assert '-d \'{"text":"it\'\\\'\'s ","top":2}\'' in text_of(browser, "#curl")
    assert browser.messages() == []


BOUNDS = """
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta


@dataclass
class Ask:
    top: Annotated[int, Meta(ge=2)]
    share: Annotated[float, Meta(gt=0, lt=1)]
    below: Annotated[int, Meta(lt=0)]
    any: float


class Toy:
    def predict(self, ask: Ask, least: Annotated[float, Meta(gt=3)]) -> list[float]:
        return [ask.top, ask.share, ask.below, ask.any, least]
"""


def test_a_form_without_an_example_begins_with_what_the_model_takes(browser):
    with Served({"adapter": "pyclass", "entry": "toy_class:Toy"}, files={"toy_class.py": BOUNDS}) as server:
        server.until()
        browser.open(url(server))
        browser.until(READY)
        lines = browser.run("return document.getElementById('field-0').value.split('\\n').length")
        assert browser.run("return document.getElementById('field-0').rows") == lines == 6
        browser.click("#send")
        assert json.loads(browser.until(ANSWER)) == {"outputs": [2, 0.5, -1, 0, 4]}


def test_names_and_answers_are_text_and_nothing_else(browser, labels):
    browser.open(url(labels))
    browser.until(READY)
    browser.click("#send")
    browser.until(ANSWER)
    assert MARKUP in text_of(browser, "#answer table")
    assert text_of(browser, "h1") == MARKUP
    browser.open(url(labels, "docs"))
    browser.until("return document.querySelectorAll('details').length > 10")
    assert browser.run("return [document.images.length, window.bad ?? null]") == [0, None]


def test_code_in_descriptions_is_drawn_as_code(browser, labels):
    browser.open(url(labels, "docs"))
    browser.until("return document.querySelectorAll('details').length > 10")
    assert "`" not in text_of(browser, "main")
    drawn = browser.run("return [...document.querySelectorAll('td + td code')].map((one) => one.textContent)")
    assert "Prefer: respond-async" in drawn


def test_what_is_wrong_is_told_beside_the_form_and_at_the_field(browser, labels):
    browser.open(url(labels))
    browser.until(READY)
    browser.run("document.getElementById('field-1').type = 'text'; return 1")
    browser.run("document.getElementById('field-1').value = 'x'; return 1")
    browser.click("#send")
    browser.until(ANSWER)
    assert text_of(browser, "#trouble").startswith("top: ")
    assert browser.run("return document.getElementById('field-1').getAttribute('aria-invalid')") == "true"


def test_the_request_may_be_written_as_json_and_goes_back_into_the_form(browser, labels):
    browser.open(url(labels))
    browser.until(READY)
    browser.run("document.querySelector('input[value=json]').click(); return 1")
    browser.type("#body", '{"text": "b", "top": 1}')
    browser.run("document.querySelector('input[value=form]').click(); return 1")
    assert browser.run("return document.getElementById('field-0').value") == "b"
    browser.run("document.querySelector('input[value=json]').click(); return 1")
    browser.type("#body", '{"text": ')
    browser.click("#send")
    assert browser.until("return document.getElementById('trouble').textContent").startswith("Not JSON")


def test_what_may_be_left_out_and_is_empty_is_left_out(browser):
    text = """
import datetime
from typing import Literal, Optional

class Toy:
    def predict(self, text: str, when: Optional[datetime.datetime] = None, how: Optional[Literal["a", "b"]] = None, end: str = "!") -> list:
        return [text, when, how, end]
"""
    with Served({"adapter": "pyclass", "entry": "toy_class:Toy"}, files={"toy_class.py": text}) as server:
        server.until()
        browser.open(url(server))
        browser.until(READY)
        browser.click("#send")
        assert json.loads(browser.until(ANSWER)) == {"outputs": ["", None, None, "!"]}
        browser.run("document.getElementById('field-2').value = '\"b\"'; return 1")
        browser.run("document.getElementById('field-3').value = ''; return 1")
        browser.click("#send")
        browser.until("return document.querySelector('#answer pre').textContent.includes('b')")
        assert json.loads(browser.run(ANSWER)) == {"outputs": ["", None, "b", ""]}


def test_every_control_has_its_label(browser, labels):
    browser.open(url(labels))
    browser.until(READY)
    unlabelled = (
        "return [...document.querySelectorAll('input, textarea, select')]"
        ".filter((one) => !one.labels.length).map((one) => one.outerHTML)"
    )
    assert browser.run(unlabelled) == []


def test_a_model_of_rows_is_asked_in_json(browser):
    with Served({"entry": "double"}) as server:
        server.until()
        browser.open(url(server))
        browser.until(READY)
        assert json.loads(browser.run("return document.getElementById('body').value")) == {"inputs": [[0, 0, 0]]}
        browser.type("#body", '{"inputs": [[1, 2, 3]]}')
        browser.click("#send")
        assert json.loads(browser.until(ANSWER)) == {"outputs": [[2, 4, 6]]}


def test_a_model_with_named_columns_has_a_field_for_each(browser):
    example = {"inputs": {"inputs": [[39, 1.5, 3]]}}
    with Served({"entry": "columns:age,height,visits", "example": example}) as server:
        server.until()
        browser.open(url(server))
        browser.until(READY)
        fields = "return [...document.querySelectorAll('#fields input')].map((one) => [one.labels[0].firstChild.data, one.value])"
        assert browser.run(fields) == [["age", "39"], ["height", "1.5"], ["visits", "3"]]
        browser.type("#field-1", "")
        browser.click("#send")
        assert json.loads(browser.until(ANSWER)) == {"outputs": [[39, None, 3]]}


def test_the_page_waits_for_a_model_that_loads(browser):
    with Served({"entry": "load-slowly:1"}) as server:
        server.until("/livez")
        browser.open(url(server))
        assert browser.until("return document.getElementById('trouble').textContent") == "The model is loading …"
        browser.until(READY)
        assert text_of(browser, "#trouble") == ""


def test_nothing_but_the_servers_own_script_may_run(browser, labels):
    browser.open(url(labels))
    browser.until(READY)
    browser.run(
        "const script = document.createElement('script'); script.textContent = 'window.bad = 1';"
        "document.body.append(script); return 1"
    )
    assert browser.run("return window.bad ?? null") is None
    assert any("Content Security Policy" in message for message in browser.messages())


SEES = """
from typing import Literal

from PIL import Image


class Sees:
    def predict(self, image: Image.Image, turn: Literal[0, 90, 180] = 0, size: int = 64) -> Image.Image:
        return image.convert("RGB").rotate(turn).resize((size, size))
"""


@pytest.mark.frameworks
def test_an_image_is_chosen_shown_sent_and_the_answer_shown(browser, tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 20), (200, 60, 20)).save(tmp_path / "red.png")
    with Served({"adapter": "pyclass", "entry": "sees:Sees"}, files={"sees.py": SEES}) as server:
        server.until()
        browser.open(url(server))
        browser.until(READY)
        browser.type("#field-0", str(tmp_path / "red.png"))
        assert browser.until("return document.querySelector('.file img')?.naturalWidth") == 40
        assert "-F 'image=@red.png'" in text_of(browser, "#curl")
        browser.click("#send")
        assert browser.until("return document.querySelector('#answer img')?.naturalWidth") == 64
        assert "image/png" in text_of(browser, "#answer pre")
        browser.open(url(server, "docs"))
        browser.until("return document.querySelectorAll('details').length > 10")
        assert "multipart/form-data" in text_of(browser, "#routes")
        assert "image/* in base64" in text_of(browser, "#routes")
        assert browser.messages() == []


SPEAKS = """
from collections.abc import Iterator


class Speaks:
    def predict(self, text: str) -> Iterator[str]:
        for word in text.split():
            if word == "stop":
                raise ValueError("told to stop")
            yield word + " "
"""


def test_pieces_are_drawn_as_they_come_and_an_error_after_them_is_told(browser):
    with Served({"adapter": "pyclass", "entry": "speaks:Speaks"}, files={"speaks.py": SPEAKS}) as server:
        server.until()
        browser.open(url(server))
        browser.until(READY)
        browser.type("#field-0", "a few words stop no more")
        browser.click("#send")
        assert browser.until("return document.querySelector('#trouble').textContent") == "told to stop"
        assert text_of(browser, "#answer pre") == "a few words "
        assert "curl -N" in text_of(browser, "#curl")
        assert browser.messages() == []
