"""Later replicas get bytecode, and only bytecode that no replica has written."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.core.home import Home
from corten.engine.base import ReplicaSpec
from corten.engine.embedded import Embedded, Sandbox
from corten.store.layout import Layout
from corten.testing.tiny_image import TinyImage

pytestmark = pytest.mark.bwrap

# Says what it imported, as a server does, and more that is not true; tells what it got; and lays poisoned bytecode where it
# may write: its own folder.
CODE = """
import asyncio, json, os, sys, time
def tried(path):
    try:
        open(path, "ab").close()
        return "written"
    except OSError as error:
        return type(error).__name__
cached = asyncio.__spec__.cached
print(json.dumps({"cached": cached, "there": os.path.exists(cached), "write": tried(cached),
                  "prefix": sys.pycache_prefix, "poisoned": hasattr(json, "poison"),
                  "dont": sys.dont_write_bytecode}), flush=True)
if listed := os.environ.get("CORTEN_TRACE_IMPORTS"):
    import importlib.util, marshal
    own = "/run/corten/cache" + json.__file__.removesuffix(".py") + ".cpython-%d%d.pyc" % sys.version_info[:2]
    poison = compile("poison = 1\\n" + open(json.__file__).read(), json.__file__, "exec")
    os.makedirs(os.path.dirname(own))
    with open(own, "wb") as f:
        f.write(importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(poison))
    os.symlink("/etc", "/run/corten/cache/usr/lib/etc")
    names = [m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)]
    names += ["/usr/../run/corten/evil.py", "/app/main.py", "/run/corten/evil.py", "/usr/lib/nothing.py", "\\0", "é" * 9000]
    with open("/run/corten/" + listed, "w") as f:
        f.write("\\n".join(names))
open("/run/corten/done", "w").close()
time.sleep(600)
"""


@pytest.fixture
def home() -> Iterator[Home]:
    folder = Path(tempfile.mkdtemp(prefix="corten-pyc-"))
    folder.chmod(0o755)
    yield Home(folder)
    shutil.rmtree(folder)


def told(engine: Embedded, spec: ReplicaSpec) -> dict[str, object]:
    done = Path(engine.start(spec).address).with_name("done")
    deadline_s = time.monotonic() + 30
    while not done.exists():
        assert engine.list()[-1].running, engine.logs(spec.id)
        assert time.monotonic() < deadline_s, engine.logs(spec.id)
        time.sleep(0.02)
    return json.loads(engine.logs(spec.id)[-1])


def published(home: Home) -> list[Path]:
    return [path for path in (home.trees / "pyc").glob("*") if not path.name.startswith(".")]


def test_the_second_replica_runs_bytecode_compiled_from_the_root(home: Home) -> None:
    if not TinyImage.possible():
        pytest.skip("needs /usr/bin/python3 and ldd to make an image from")
    image = TinyImage(Layout(home.store)).build(["/usr/bin/python3", "/app/main.py"], code={"main.py": CODE})
    engine = Embedded(home, sandbox=Sandbox.BWRAP)
    try:
        first = told(engine, ReplicaSpec("a-r1-first", "a", 1, image))
        assert (first["prefix"], first["there"]) == (None, False)
        deadline_s = time.monotonic() + 60
        while not published(home):
            assert time.monotonic() < deadline_s, [*(home.trees / "pyc").rglob("log")]
            engine.list()
            time.sleep(0.1)
        second = told(engine, ReplicaSpec("a-r1-second", "a", 1, image))
        assert second["prefix"] == "/var/cache/python"
        assert second["there"] is True
        assert second["write"] in ("OSError", "PermissionError")  # read-only, and not its own
        assert second["poisoned"] is False
        assert second["dont"] is True
        (made,) = published(home)
        assert {path.stat().st_uid for path in made.rglob("*")} == {home.root.stat().st_uid}
        assert not [path for path in made.rglob("*") if path.is_symlink() or "evil" in path.name or "main" in path.name]
        assert [*(home.trees / "pyc/.making").iterdir()] == []
    finally:
        for seen in engine.list():
            engine.remove(seen.id)


def test_a_deployment_that_cares_for_bytecode_itself_is_left_alone(home: Home) -> None:
    if not TinyImage.possible():
        pytest.skip("needs /usr/bin/python3 and ldd to make an image from")
    image = TinyImage(Layout(home.store)).build(["/usr/bin/python3", "/app/main.py"], code={"main.py": CODE})
    engine = Embedded(home, sandbox=Sandbox.BWRAP)
    spec = ReplicaSpec("a-r1-own", "a", 1, image, env={"PYTHONDONTWRITEBYTECODE": "1"})
    try:
        assert told(engine, spec)["prefix"] is None
    finally:
        engine.remove(spec.id)
