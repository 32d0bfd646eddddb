"""The shape of the code that import-linter cannot see."""

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "corten"


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


# What a server reads at its start: dataclasses would take it 3 ms to make (decision 0046).
STRUCTS = {("model.py", "msgspec"), ("schema.py", "msgspec")}


def test_core_imports_only_the_standard_library_and_errors():
    foreign = {
        (path.name, name)
        for path in (SOURCE / "core").glob("*.py")
        for name in imports_of(path)
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith(("corten.core", "corten.errors"))
    }
    assert foreign == STRUCTS


def test_the_server_in_the_image_loads_nothing_of_the_builder():
    code = (
        "import sys, corten.serve, corten.serve.app; "
        "print([m for m in sys.modules if m.split('.')[:2] in (['corten','builder'],['corten','store'],"
        "['corten','engine'],['corten','gateway'],['corten','control'],['corten','ops'],['corten','cli'])])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_no_argument_parser_and_no_verb():
    code = (
        "import sys, io; sys.stdout = io.StringIO(); from corten.cli.main import main; main(['--help']); "
        "sys.stdout = sys.__stdout__; print([m for m in sys.modules if m in ('argparse', 'msgspec', 'sqlite3', 'asyncio')"
        " or m.startswith(('corten.ops', 'corten.builder'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
