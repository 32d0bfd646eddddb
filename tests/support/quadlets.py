"""What `podman run` a quadlet is, strictly as podman-systemd.unit(5) of podman 4.5 says: for a podman without generator.

What is not in that manual is refused here: an unknown section or key, a key twice that counts once, a value of another form.
"""

import json
import re
import shlex

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


def _said(value):
    """One word as systemd reads it: quotes (systemd.syntax(7)), specifiers and, in the command it becomes, dollars."""
    (word,) = shlex.split(value)
    assert not re.search(r"(?<!%)(%%)*%(?!%)", word), f"a specifier in {value}"
    return word.replace("%%", "%").replace("$$", "$")
