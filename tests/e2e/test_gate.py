"""`corten build --test`: an image gets its name only when it started, answered and answered as recorded."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from stories import CORTEN, until

import corten as api
from corten.core.home import Home
from corten.core.model import Example
from corten.errors import UnhealthyError

pytestmark = [pytest.mark.network, pytest.mark.bwrap]

SHOUT = "class Shout:\n    def predict(self, text: str) -> str:\n        return text.upper()\n"
LATE = "import importlib\nimportlib.import_module('nowhere_to_be_found')\n" + SHOUT
SLOW = "import time\ntime.sleep(1)\n" + SHOUT
HANGS = "import time\ntime.sleep(600)\n" + SHOUT


def write(folder, text):
    path = folder / "shout.py"
    path.write_text(text)
    return f"{path}:Shout"


def named(corten):
    index = json.loads((corten.home / "store/index.json").read_text())
    names = {one.get("annotations", {}).get("org.opencontainers.image.ref.name"): one for one in index["manifests"]}
    return names.get("shout", {}).get("digest")


def replicas(corten):
    """Pids in sandboxes made of this home's trees: nothing else tells whose a sandboxed process is."""
    found = []
    for mounts in Path("/proc").glob("[0-9]*/mountinfo"):
        try:
            if f"{corten.home}/trees" in mounts.read_text():
                found.append(int(mounts.parent.name))
        except OSError:
            continue
    return found


def gate_folders(corten):
    return [path.name for path in Home(corten.home).run.glob("*gate-*")]


def test_what_passes_gets_its_name_its_figures_and_a_statement(corten, folder):
    budgets = ("--max-image-mb", "110", "--max-cold-start-s", "60")
    built = corten.run("build", write(folder, SHOUT), "--test", *budgets, "--json", "-r", "idna").json
    gate = built["gate"]
    assert named(corten) == built["digest"]
    assert 0.05 < gate["ready_s"] < 60
    assert 10e6 < gate["peak_rss_bytes"] < 500e6
    assert gate["replay"] == "answered"
    assert {"openapi.json", "metrics", "readyz"} <= set(gate["checks"])
    unused = {one["name"]: one["size_bytes"] for one in gate["unused"]}
    assert unused["idna"] > 100_000
    assert not unused.keys() & {"msgspec", "numpy"}  # the server's: numpy is not loaded, and cannot be left out
    store = (corten.home / "store/index.json").read_text()
    assert "https://in-toto.io/attestation/test-result/v0.1" in store
    assert gate_folders(corten) == []
    assert replicas(corten) == []


@pytest.mark.parametrize(
    ("text", "words", "error"),
    [
        (LATE, ("--test",), (6, "gate.failed", "nowhere_to_be_found")),
        (SLOW, ("--max-cold-start-s", "0.5"), (6, "gate.too_slow", "budget is 0.5 s")),
        (SLOW, ("--max-cold-start-s", "60", "--max-image-mb", "5"), (7, "build.over_budget", "Debian 12")),
    ],
)
def test_what_fails_changes_nothing_and_says_why(corten, folder, text, words, error):
    before = corten.run("build", write(folder, SHOUT), "--json").json["digest"]
    exit_code, code, told = error
    failed = corten.run("build", write(folder, text), *words, "--json", code=exit_code).json["error"]
    assert failed["code"] == code
    assert told in failed["what"] + failed["why"]
    assert named(corten) == before
    assert gate_folders(corten) == []
    assert replicas(corten) == []


def test_another_answer_than_the_recorded_one_fails(corten, folder):
    source = write(folder, SHOUT)
    home = Home(corten.home)
    good = api.build(source, home=home, test=True, example=Example({"text": "a"}, "A"))
    assert good.gate.replay == "recorded"
    with pytest.raises(UnhealthyError) as caught:
        api.build(source, home=home, test=True, example=Example({"text": "a"}, "B"))
    assert caught.value.code == "gate.failed"
    assert named(corten) == str(good.digest)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_test_cut_short_leaves_nothing_the_next_one_does_not_clear_away(corten, folder, number):
    environment = {**os.environ, "CORTEN_HOME": str(corten.home)}
    words = [str(CORTEN), "build", write(folder, HANGS), "--test"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: replicas(corten), "the replica runs")
            process.send_signal(number)
            process.wait(timeout=30)
            if number != signal.SIGKILL:
                assert (gate_folders(corten), replicas(corten)) == ([], [])
        finally:
            process.kill()
    corten.run("build", write(folder, SHOUT), "--test")
    assert gate_folders(corten) == []
    assert replicas(corten) == []
