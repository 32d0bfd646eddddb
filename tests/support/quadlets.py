"""What `podman run` a quadlet is: strictly as podman-systemd.unit(5) of podman 4.5 says, and as podman's generator says.

The former is for machines without a generator. What is not in that manual is refused there: an unknown section or key, a
key twice that counts once, a value of another form.
"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

# CI has fetched one (.ci/run); else that of a podman of 4.4 or newer.
GENERATORS = (Path(__file__).parents[2] / ".tools/quadlet", Path("/usr/libexec/podman/quadlet"))

_ESCAPE = re.compile(r"\\(?:(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})|(.))")
ONCE = {
    "ContainerName": r"[a-zA-Z0-9][a-zA-Z0-9_.-]*",
    "Image": r"[^\s@]+(@sha256:[0-9a-f]{64}|:[\w.-]+)",
    "User": r"\d+",
    "Group": r"\d+",
    "ReadOnly": r"true|false",
    "NoNewPrivileges": r"true|false",
    "HealthCmd": r"\[.*\]",
    "HealthInterval": r"\d+s",
    "HealthTimeout": r"\d+s",
    "HealthRetries": r"\d+",
    "PodmanArgs": r"--.*",
}
REPEATED = {
    "AddDevice": r"[\w.-]+/[\w.-]+=[\w.:-]+|/dev/\S+",
    "DropCapability": r"all|CAP_\w+",
    "Environment": r".+=.*",
    "PublishPort": r"([\d.]+:)?\d+:\d+",
    "Secret": r"[\w.-]+(,\w+=\w+)*",
    "Tmpfs": r"/[^:]*(:[\w=,]+)?",
}
# Of systemd's own sections, what exporters may write (systemd.unit(5), systemd.service(5)).
OTHERS = {
    "Unit": {"Description", "Wants", "After"},
    "Service": {"Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec"},
    "Install": {"WantedBy"},
}


def generator():
    """The program that makes services of quadlets; None where there is none."""
    return next((path for path in GENERATORS if path.exists()), None)


def generated(text, folder, name):
    """The service podman's generator makes of a quadlet `name`. Raises AssertionError for what it does not take."""
    (folder / f"{name}.container").write_text(text)
    env = {**os.environ, "QUADLET_UNIT_DIRS": str(folder)}
    done = subprocess.run([generator(), "-dryrun", "-no-kmsg-log"], env=env, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "Loading source unit file" not in line]
    assert (done.returncode, said) == (0, []), done.stderr
    first, _, service = done.stdout.partition("\n")
    assert first == f"---{name}.service---"
    return service


def generated_run(service):
    """The words after `podman run`, without those about systemd, which is not there to hear of it."""
    (line,) = (line for line in service.split("\n") if line.startswith("ExecStart="))
    _, run, *words = _command(line.removeprefix("ExecStart="))
    assert run == "run"
    return [word for word in words if not re.match("-d$|--(sdnotify|cgroups|cidfile)=", word)]


def podman_run(text):
    """The words after `podman run`. Raises AssertionError for what the manual does not have."""
    found = container(text)
    words = ["--rm", "--replace", "--name", found["ContainerName"], "--user", f"{found['User']}:{found['Group']}"]
    words += ["--read-only"] if found["ReadOnly"] == "true" else []
    words += ["--security-opt=no-new-privileges"] if found["NoNewPrivileges"] == "true" else []
    for key, flag in (
        ("DropCapability", "--cap-drop"),
        ("Tmpfs", "--tmpfs"),
        ("PublishPort", "--publish"),
        ("AddDevice", "--device"),
        ("Secret", "--secret"),
    ):
        words += [word for value in found[key] for word in (flag, value)]
    words += [word for value in found["Environment"] for word in ("--env", _said(value))]
    assert json.loads(found["HealthCmd"])
    words += ["--health-cmd", found["HealthCmd"]]
    for key in ("Interval", "Timeout", "Retries"):
        words += [f"--health-{key.lower()}={found[f'Health{key}']}"]
    return [*words, *shlex.split(found["PodmanArgs"]), found["Image"]]


def container(text):
    """The section [Container]: a text for each key that counts once, a list for the others."""
    section, found = "", {key: [] for key in REPEATED}
    for line in text.split("\n"):
        if not line:
            continue
        if line.startswith("["):
            section = line[1:-1]
            assert line == f"[{section}]"
            assert section in {"Container", *OTHERS}, f"no section [{section}]"
            continue
        key, equals, value = line.partition("=")
        assert equals, line
        if section != "Container":
            assert key in OTHERS[section], f"no key {key} in [{section}]"
        elif key in REPEATED:
            assert re.fullmatch(REPEATED[key], value), line
            found[key].append(value)
        else:
            assert key in ONCE, f"no key {key}"
            assert key not in found, f"{key} twice"
            assert re.fullmatch(ONCE[key], value), line
            found[key] = value
    return found


def _command(text):
    """The words of a command as systemd reads them: quotes and escapes (systemd.syntax(7)), then specifiers and dollars."""
    raw = re.findall(r'"((?:[^"\\]|\\.)*)"|([^ "]+)', text)
    words = [re.sub(_ESCAPE, _character, quoted or plain) for quoted, plain in raw]
    return [word.replace("%%", "%").replace("$$", "$") for word in words]


def _character(escape):
    if digits := escape[1]:
        return chr(int(digits[1:], 16))
    return {"n": "\n", "t": "\t", "s": " "}.get(escape[2], escape[2])


def _said(value):
    """One word as systemd reads it: quotes (systemd.syntax(7)), specifiers and, in the command it becomes, dollars."""
    (word,) = shlex.split(value)
    assert not re.search(r"(?<!%)(%%)*%(?!%)", word), f"a specifier in {value}"
    return word.replace("%%", "%").replace("$$", "$")
