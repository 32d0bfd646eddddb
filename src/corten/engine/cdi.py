"""Which devices the Container Device Interface has described here, by name, as far as can be told without an engine.

(github.com/cncf-tags/container-device-interface, SPEC.md.) The specifications are read for their names alone: an engine
that is asked for a device it does not know says so only when the image has been built and loaded.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

# Its SPEC.md's; podman's and Docker's default.
CDI_FOLDERS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))
SUFFIXES: Final = (".json", ".yaml")
# YAML as NVIDIA's toolkit writes it, a key a line. Whatever else is called `name` in there counts as a device: who is
# not sure of one leaves it to the engine.
_KIND: Final = re.compile(r"""^kind:\s*["']?([^"'\s#]+)""", re.MULTILINE)
_NAME: Final = re.compile(r"""^[-\s]*["']?name["']?:\s*["']?([^"'\s#,}]+)""", re.MULTILINE)


def described(folders: Iterable[Path]) -> frozenset[str] | None:
    """The names `VENDOR/CLASS=NAME` in all specifications of these folders; None where one cannot be read."""
    found: set[str] = set()
    for folder in folders:
        try:
            paths = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
            for path in paths:
                names = [*_names(path.read_text(), path.suffix)]
                if not names:
                    return None
                found.update(names)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, KeyError):
            return None
    return frozenset(found)


def _names(text: str, suffix: str) -> Iterator[str]:
    if suffix == ".json":
        document = json.loads(text)
        yield from (f"{document['kind']}={one['name']}" for one in document["devices"])
    elif kind := _KIND.search(text):
        yield from (f"{kind[1]}={name}" for name in _NAME.findall(text))


def podmans_folders(env: Mapping[str, str], root: Path = Path("/")) -> tuple[Path, ...]:
    """Where podman looks: at the usual places, or wherever a containers.conf(5) says."""
    told: list[Path] = []
    for path in _settings(env, root):
        with suppress(OSError, ValueError, TypeError, AttributeError):
            named = tomllib.loads(path.read_text()).get("engine", {}).get("cdi_spec_dirs", [])
            told += (Path(each) for each in named)
    return tuple(dict.fromkeys((*CDI_FOLDERS, *told)))


def _settings(env: Mapping[str, str], root: Path) -> Iterator[Path]:
    own = Path(env.get("XDG_CONFIG_HOME") or Path(env.get("HOME", "/root")) / ".config")
    for folder in (root / "usr/share/containers", root / "etc/containers", own / "containers"):
        yield folder / "containers.conf"
        yield from sorted((folder / "containers.conf.d").glob("*.conf"))
    yield from (Path(env[name]) for name in ("CONTAINERS_CONF", "CONTAINERS_CONF_OVERRIDE") if env.get(name))
