"""Every command the documentation shows is one the program takes; the README's two commands exist."""

import ast
import importlib
import os
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from corten.cli.main import VERBS, module_of
from corten.cli.parser import make

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
BLOCK = re.compile(r"^```(?:console|sh|bash)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands():
    """(page, words) of each line of a page that shows what to type, in a block or by its indentation."""
    for page in PAGES:
        text = page.read_text()
        for block in BLOCK.findall(text):
            for line in block.splitlines():
                if line.startswith("$ corten "):
                    yield page.relative_to(ROOT), line.removeprefix("$ ")
        for line in re.findall(r"^    (corten [a-z].*)", BLOCK.sub("", text), re.MULTILINE):
            yield page.relative_to(ROOT), line


@pytest.mark.parametrize(("page", "line"), list(dict.fromkeys(commands())), ids=lambda value: str(value)[:60])
def test_a_command_in_the_documentation_is_taken_by_the_program(page, line):
    own = re.split(r" (?:\||&&) ", re.sub(r"\$\([^)]*\)", "substituted", line))[0]
    _, verb, *words = shlex.split(own, comments=True)
    assert verb in dict(VERBS), f"{page}: {line}"
    make(verb, importlib.import_module(module_of(verb))).parse_args(words)


def named():
    """(where, words) of each `corten ...` in running text and in the hints of errors."""
    for page in [*PAGES, *ROOT.glob("*.md")]:
        for line in re.findall(r"`(?:sudo )?(corten [^`]*)`", page.read_text()):
            yield page.relative_to(ROOT), line
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                texts = [each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
                for line in re.findall(r"corten [a-z][^`]*", " ".join(text for text in texts if isinstance(text, str))):
                    yield path.relative_to(ROOT), line


def test_verbs_and_options_that_texts_and_hints_name_are_the_programs():
    options = {
        verb: {option for action in make(verb, module)._actions for option in action.option_strings}
        for verb, module in ((verb, importlib.import_module(module_of(verb))) for verb, _ in VERBS)
    }
    wrong, seen = [], 0
    for where, line in named():
        for verb, words in re.findall(r"\bcorten ([a-z0-9]+)((?:(?! -- |[|;()]|&&).)*)", line):
            seen += 1
            unknown = [
                word for word in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", words) if word not in options.get(verb, ())
            ]
            if verb not in options or unknown:
                wrong.append(f"{where}: {line}")
    assert not wrong
    assert seen > 200


def test_the_readme_shows_commands_of_the_program():
    assert sum(page.name == "README.md" for page, _ in commands()) >= 8


def test_the_two_commands_of_the_readme_are_targets_of_the_makefile():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"$ make {target}\n" in readme
        assert re.search(rf"^[a-z ]*\b{target}\b[a-z ]*:", makefile, re.MULTILINE)


def test_help_costs_no_more_than_80_ms_of_one_core():
    corten = Path(sys.executable).with_name("corten")

    def used_s(*command):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = code
        assert code == 0
        # Its own time, not the wall's: other work on the machine is not what is measured.
        return used.ru_utime + used.ru_stime

    times = [(used_s(corten, "--help"), used_s(sys.executable, "-c", "pass")) for _ in range(9)]
    helped_s, bare_s = map(statistics.median, zip(*times, strict=True))
    # Where Python alone takes a quarter of that, the machine is what is slow.
    assert helped_s <= max(0.080, 4 * bare_s)
