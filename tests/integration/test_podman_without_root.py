"""podman of a user who is not root: the same containers, and nobody in them but the user himself."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from corten.store.layout import Layout
from corten.testing.tiny_image import TinyImage

pytestmark = pytest.mark.podman

USER = "nobody"
WAIT = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(os.getuid(), pathlib.Path(os.environ["KEY_FILE"]).read_text(), flush=True)
pathlib.Path(os.environ["CORTEN_LISTEN"].removeprefix("unix:")).touch()
time.sleep(600)
"""
# Run as the user, with what Corten imports beside it: neither its environment nor the repository need be his to read.
STORY = """
import dataclasses, json, os, sys, time
from pathlib import Path
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.security import of_replica
from corten.engine.base import ReplicaSpec
from corten.engine.containers import Podman
from corten.ops.security import replica_seen

home, image = Home(Path(sys.argv[1])), Digest.parse(sys.argv[2])
engine = Podman.from_env(home, dict(os.environ))
started = engine.start(ReplicaSpec("a-r1-x", "a", 1, image, secrets={"KEY": b"value"}))
deadline_s = time.monotonic() + 30
while not Path(started.address).exists():
    assert time.monotonic() < deadline_s, engine.logs("a-r1-x")
    time.sleep(0.05)
told = {"describe": dict(engine.describe()), "log": list(engine.logs("a-r1-x"))}
told["socket"] = os.stat(started.address).st_uid
told["rules"] = {one.rule: one.verdict.value for one in of_replica(replica_seen("a-r1-x", started.pid, egress=False, given=("KEY",)))}
engine.freeze("a-r1-x")
told["frozen"] = engine.list()[0].frozen
engine.thaw("a-r1-x")
engine.terminate("a-r1-x")
while (seen := engine.list()[0]).running:
    assert time.monotonic() < deadline_s
    time.sleep(0.05)
told["exit_code"] = seen.exit_code
engine.remove("a-r1-x")
told["left"] = [path.name for path in Path("/dev/shm").glob("corten-secrets-*") if path.owner() == "nobody"]
told["left"] += [path.name for path in home.run.iterdir() if path.name != "podman.sock"]
print(json.dumps(told))
"""


@pytest.fixture
def place():
    """A folder that is the user's, with Corten in it."""
    absent = [name for name in ("newuidmap", "runuser", "unshare") if not shutil.which(name)]
    if os.geteuid() or absent or not TinyImage.possible():
        pytest.skip(f"takes root, to become somebody else, and {', '.join(absent) or 'a Python below /usr'}")
    if Path("/usr/bin/python3").resolve().name != f"python3.{sys.version_info[1]}":
        pytest.skip("the user's Python is another one than ours")
    folder = Path(tempfile.mkdtemp(prefix="corten-user-", dir="/var/tmp"))
    for name in ("corten", "msgspec", "backports", "isal"):
        found = importlib.util.find_spec(name).submodule_search_locations[0]
        shutil.copytree(found, folder / "lib" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "run").mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_the_user_is_who_runs_it_and_nobody_in_there(place):
    layout = Layout(place / "home/store")
    image = TinyImage(layout).build(["/usr/bin/python3", "-c", WAIT], code={"corten.json": "{}"})
    (place / "ids").write_text(f"{USER}:100000:65536\n")
    subprocess.run(["chown", "-R", f"{USER}:", place], check=True)
    folders = {
        "HOME": place,
        "XDG_RUNTIME_DIR": place / "run",
        "XDG_DATA_HOME": place / "data",
        "PYTHONPATH": place / "lib",
    }
    words = [
        "runuser",
        "-u",
        USER,
        "--",
        "env",
        "-i",
        f"PATH={os.environ['PATH']}",
        *(f"{key}={path}" for key, path in folders.items()),
    ]
    # Of this test alone: which numbers the user may hand out stands in a file of the system.
    mounted = f'mount --bind {place}/ids /etc/subuid && mount --bind {place}/ids /etc/subgid && cd / && exec "$@"'
    command = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        mounted,
        "sh",
        *words,
    ]
    done = subprocess.run(
        [*command, "/usr/bin/python3", "-c", STORY, place / "home", str(image)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["log"] == ["65532 value"]
    assert told["socket"] == 65534
    assert told["describe"]["user"] == "uid 65532, outside your own"
    rules = told["rules"]
    assert rules.pop("processes are limited") in ("pass", "cannot")  # without root, cgroups of version 1 limit nothing
    assert set(rules.values()) == {"pass"}
    assert "secrets are files in memory, readable by it alone" in rules
    assert (told["frozen"], told["exit_code"], told["left"]) == (True, 0, [])
