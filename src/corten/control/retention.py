"""Which images and secrets the control plane still needs, read beside a running daemon and without one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any, Final
from urllib.parse import quote

from corten.control.database import translate
from corten.core.digest import Digest
from corten.core.home import Home

_TIMEOUT_S: Final = 5.0
_IN_FORCE: Final = """
    EXISTS (SELECT 1 FROM deployments d WHERE d.name = r.deployment AND r.number IN (d.wanted, d.serving))
    OR EXISTS (SELECT 1 FROM replicas p WHERE p.deployment = r.deployment AND p.revision = r.number
               AND p.state <> 'exited')
    OR EXISTS (SELECT 1 FROM rollouts o WHERE o.deployment = r.deployment AND o.state = 'progressing'
               AND r.number IN (o.origin, o.target))
"""
_KEPT: Final = f"""
    number > (SELECT max(number) FROM revisions n WHERE n.deployment = r.deployment) - :keep OR {_IN_FORCE}
"""  # noqa: S608 -- all of it is ours
_IMAGES: Final = f"SELECT DISTINCT image FROM revisions r WHERE {_KEPT}"  # noqa: S608
_SECRETS: Final = f"SELECT DISTINCT value FROM revisions r, json_each(settings, '$.secret_ids') WHERE {_KEPT}"  # noqa: S608

_USERS: Final = f"SELECT DISTINCT image, deployment FROM revisions r WHERE {_IN_FORCE}"  # noqa: S608


def images_in_use(home: Home, keep: int) -> frozenset[Digest]:
    """Images of each deployment's `keep` newest revisions, of those it wants or serves, and of every replica
    that has not ended.

    Raises CortenError `state.*` when the state cannot be read: nobody may then think that nothing is in use.
    """
    return frozenset(Digest.parse(image) for (image,) in _rows(home, _IMAGES, keep=keep))


def secrets_in_use(home: Home, keep: int) -> frozenset[str]:
    """The secrets of the same revisions, by their ids. Raises as `images_in_use` does."""
    return frozenset(value for (value,) in _rows(home, _SECRETS, keep=keep))


def users_of_images(home: Home) -> frozenset[tuple[Digest, str]]:
    """Images with the deployments that want or serve them, roll them out, or have a replica of them that has not ended.

    A revision that could only be gone back to does not count. Raises as `images_in_use` does.
    """
    return frozenset((Digest.parse(image), name) for image, name in _rows(home, _USERS))


def _rows(home: Home, sql: str, **given: int) -> list[tuple[Any, ...]]:
    path = home.state / "corten.db"
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_TIMEOUT_S)) as state:
            # A file that has not got its tables yet is of a daemon that is just starting: nothing was deployed.
            if not state.execute("SELECT 1 FROM sqlite_master WHERE name = 'revisions'").fetchone():
                return []
            return state.execute(sql, given).fetchall()
    except sqlite3.Error as error:
        raise translate(path, error) from error
