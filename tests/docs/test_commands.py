"""Every command the documentation shows is one the program takes; the README's two commands exist."""

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
    """(page, words) of each `$ corten ...` line in a block of a page."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for line in block.splitlines():
                if line.startswith("$ corten "):
                    yield page.relative_to(ROOT), line.removeprefix("$ ")


@pytest.mark.parametrize(("page", "line"), list(commands()), ids=lambda value: str(value)[:60])
def test_a_command_in_the_documentation_is_taken_by_the_program(page, line):
    _, verb, *words = shlex.split(re.sub(r"\$\([^)]*\)", "substituted", line), comments=True)
    assert verb in dict(VERBS), f"{page}: {line}"
    if "|" not in words:
        make(verb, importlib.import_module(module_of(verb))).parse_args(words)


def test_the_readme_shows_commands_of_the_program():
    assert sum(page.name == "README.md" for page, _ in commands()) >= 8


def test_the_two_commands_of_the_readme_are_targets_of_the_makefile():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"$ make {target}\n" in readme
        assert re.search(rf"^[a-z ]*\b{target}\b[a-z ]*:", makefile, re.MULTILINE)


def test_help_costs_no_more_than_80_ms_of_one_core():
    corten = Path(sys.executable).with_name("corten")

    def once():
        process = subprocess.Popen([corten, "--help"], stdout=subprocess.DEVNULL)
        _, code, used = os.wait4(process.pid, 0)
        process.returncode = code
        assert code == 0
        # Its own time, not the wall's: other work on the machine is not what is measured.
        return used.ru_utime + used.ru_stime

    assert statistics.median(once() for _ in range(9)) <= 0.080
