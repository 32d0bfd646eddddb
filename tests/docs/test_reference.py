"""What the program says of itself and what the documentation says of it are the same."""

import ast
import re
from dataclasses import fields
from enum import Enum
from pathlib import Path

from corten.builder.source import Table
from corten.cli.reference import render

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "corten").rglob("*.py"))
ERRORS = {"CortenError", "UsageError", "NotFoundError", "RemoteError", "EngineError", "UnhealthyError", "PolicyError"}


def codes_in_source():
    """Every code that is given to one of our errors, found as the first argument of its call."""
    found = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            first = node.args[0]
            if name in ERRORS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.setdefault(first.value, path.relative_to(ROOT))
    return found


def test_the_reference_of_the_command_line_is_what_the_program_says():
    assert (ROOT / "docs/reference/cli.md").read_text() == render(), (
        "run: python -m corten.cli.reference > docs/reference/cli.md"
    )


def test_every_error_code_has_a_page_that_tells_what_to_do():
    missing = []
    for code, source in codes_in_source().items():
        page = ROOT / "docs/errors" / f"{code}.md"
        if not page.exists() or "## What to do" not in page.read_text():
            missing.append(f"{code} ({source})")
    assert not missing, f"no page in docs/errors (with `## What to do`) for: {', '.join(missing)}"


def test_every_error_page_belongs_to_a_code_that_can_be_raised():
    text = "\n".join(path.read_text() for path in SOURCES)
    stale = [page.stem for page in (ROOT / "docs/errors").glob("*.*.md") if f'"{page.stem}"' not in text]
    assert not stale


def test_every_family_of_errors_is_told_what_it_is_about():
    told = (ROOT / "docs/errors/README.md").read_text()
    families = {page.stem.partition(".")[0] for page in (ROOT / "docs/errors").glob("*.*.md")}
    assert families == set(re.findall(r"`([a-z]+)`(?=[ `a-z]* \|)", told))


def test_error_codes_are_a_family_and_a_word():
    wrong = [code for code in codes_in_source() if not re.fullmatch(r"[a-z]+\.[a-z_]+", code)]
    assert not wrong


def test_relative_links_in_the_documentation_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
    ]
    assert not broken


def test_every_page_is_in_the_list_of_its_kind():
    for folder, kinds in (("docs", ("tutorial", "how-to", "explanation", "reference")), ("docs/decisions", (".",))):
        listed = (ROOT / folder / "README.md").read_text()
        pages = [page for kind in kinds for page in (ROOT / folder / kind).glob("*.md") if page.name != "README.md"]
        assert [page.name for page in pages if f"{page.relative_to(ROOT / folder)})" not in listed] == []


def test_every_setting_of_a_project_is_documented_with_its_default():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", (ROOT / "docs/reference/settings.md").read_text(), re.MULTILINE)
    assert sorted(key for key, _ in rows) == sorted(field.name for field in fields(Table))
    wrong = [key for key, told in rows if not _is_told(getattr(Table(), key), told)]
    assert not wrong


def _is_told(default, told):
    match default:
        case bool():
            return told == f"`{str(default).lower()}`"
        case int() | float():
            return told.partition(",")[0] == f"{default:g}" if default < 1e6 else told == str(default)
        case Enum():
            return told == f'`"{default.value}"`'
        case str() if default:
            return told == f'`"{default}"`'
        case _:
            return not default  # told in words
