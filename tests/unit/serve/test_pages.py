from __future__ import annotations

from pathlib import Path

import corten
from corten.builder.interpreter import debian_python
from corten.builder.runtime import entries
from corten.serve.dialect import DIALECTS

PACKAGE = Path(corten.__file__).parent
PAGES = PACKAGE / "serve" / "static"


def test_the_pages_go_into_every_image():
    names = {entry.name.rpartition("/corten/")[2] for entry in entries(PACKAGE, debian_python("3.13", "2.41"))}
    assert {f"serve/static/{path.name}" for path in PAGES.iterdir()} <= names


def test_every_place_has_its_module():
    assert {f"{module}.py" for module in DIALECTS.values()} <= {path.name for path in (PACKAGE / "serve").iterdir()}


def test_nothing_is_put_into_a_page_as_markup():
    script = (PAGES / "corten.js").read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", ".srcdoc"):
        assert way not in script
