"""The daemon as a service of a real systemd: a user's instance of it, with a /run of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stories import CORTEN, Load, ask, until

MANAGER = "/usr/lib/systemd/systemd"
BECOME = (
    "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system $XDG_RUNTIME_DIR && chmod 700 $XDG_RUNTIME_DIR && "
    f"exec {MANAGER} --user --log-target=null"
)
pytestmark = [
    pytest.mark.load,
    pytest.mark.envoy,
    pytest.mark.network,
    pytest.mark.examples,
    pytest.mark.systemd,
]


class Machine:
    """A systemd of the user's in a mount namespace of its own; commands are run beside it."""

    def __init__(self, corten, folder):
        self.corten = corten
        self.env = {
            **os.environ,
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_RUNTIME_DIR": "/run/user/0",
            "CORTEN_HOME": str(corten.home),
            "NO_COLOR": "1",
        }
        self.process = None

    def boot(self):
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BECOME]
        self.process = subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(
            lambda: self.run("systemctl", "--user", "is-system-running", code=None) in ("running", "degraded"), "boot"
        )

    def power_off(self):
        if self.process:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def run(self, *words, code=0):
        command = ["nsenter", "-t", str(self.process.pid), "-m", *map(str, words)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120, check=False)
        assert code is None or done.returncode == code, done.stderr
        return done.stdout.strip()

    def main_pid(self):
        units = self.run("systemctl", "--user", "list-units", "--plain", "--no-legend", "corten*")
        return int(self.run("systemctl", "--user", "show", "-P", "MainPID", units.split()[0])) if units else 0


@pytest.fixture
def machine(corten, folder):
    if os.geteuid() != 0:
        pytest.skip("a /run of its own is made by mounting one")
    machine = Machine(corten, folder)
    machine.boot()
    yield machine
    machine.run(CORTEN, "stop", "--all", code=None)
    machine.run(CORTEN, "service", "uninstall", "--user", code=None)
    machine.power_off()


def test_the_service_keeps_the_daemon_and_brings_everything_back_after_a_boot(corten, machine, port, digits_model):
    body = {"inputs": digits_model["rows"][:1].tolist()}
    url = corten.up(digits_model["paths"][0], "--port", port)["url"]
    on_demand = corten.run("status", "--json").json
    with Load(url, body) as load:
        told = machine.run(CORTEN, "service", "install", "--user")
        assert told.endswith(".service active")
        first = machine.main_pid()
        assert first not in (0, on_demand["daemon"]["pid"])
        # Dies, and nobody asks for anything: it is back by itself.
        os.kill(first, signal.SIGKILL)
        until(lambda: machine.main_pid() not in (0, first), "another daemon")
    assert load.report["failed"] == 0, load.report
    adopted = corten.run("status", "--json").json
    pids = [one["deployments"][0]["replicas"][0]["pid"] for one in (on_demand, adopted)]
    assert pids[0] == pids[1]
    assert adopted["daemon"]["pid"] == machine.main_pid()

    # As after a power cut: no process of it is left.
    machine.power_off()
    for pid in (adopted["daemon"]["pid"], adopted["gateway"]["pid"], pids[0]):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    machine.boot()

    def answers():
        try:
            return ask(url, body)[0] == 200
        except OSError:
            return False

    until(answers, "it answers again though no command was run", deadline_s=60)


def test_uninstalling_leaves_what_is_deployed(corten, machine, port, digits_model):
    url = corten.up(digits_model["paths"][0], "--port", port)["url"]
    machine.run(CORTEN, "service", "install", "--user")
    pid = machine.main_pid()
    assert machine.run(CORTEN, "service", "uninstall", "--user").endswith("not installed")
    until(lambda: not Path(f"/proc/{pid}").exists(), "the service's daemon is gone")
    assert ask(url, {"inputs": digits_model["rows"][:1].tolist()})[0] == 200
    assert machine.run(CORTEN, "service", "uninstall", "--user", code=3) == ""


def test_the_unit_is_one_systemd_accepts(corten, folder):
    file = folder / "corten.service"
    env = {"PATH": os.environ["PATH"], "CORTEN_ENVOY": '/opt/50% "off" $HOME/envoy'}
    file.write_text(corten.run("service", "print", env=env).out)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in done.stderr.splitlines() if "corten.service" in line] == []
    assert sys.executable in file.read_text()
