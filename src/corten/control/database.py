"""Opening the control plane's SQLite file: checked, migrated, backed up, or refused with the command that mends it."""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corten.errors import CortenError

_BUSY_MS = 5_000

# Numbered by position: the n-th script leads from version n to n + 1 (`PRAGMA user_version`). Only ever add to it.
MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE settings (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;

    CREATE TABLE deployments (
        name TEXT PRIMARY KEY,
        generation INTEGER NOT NULL,
        replicas INTEGER NOT NULL CHECK (replicas >= 0),
        wanted INTEGER,
        serving INTEGER,
        deleting INTEGER NOT NULL DEFAULT 0 CHECK (deleting IN (0, 1)),
        created_s REAL NOT NULL,
        FOREIGN KEY (name, wanted) REFERENCES revisions (deployment, number) DEFERRABLE INITIALLY DEFERRED,
        FOREIGN KEY (name, serving) REFERENCES revisions (deployment, number) DEFERRABLE INITIALLY DEFERRED
    ) STRICT;

    CREATE TABLE revisions (
        deployment TEXT NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
        number INTEGER NOT NULL CHECK (number >= 1),
        image TEXT NOT NULL,
        settings TEXT NOT NULL,
        created_s REAL NOT NULL,
        PRIMARY KEY (deployment, number)
    ) STRICT;

    CREATE TABLE rollouts (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        deployment TEXT NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
        origin INTEGER,
        target INTEGER NOT NULL,
        origin_replicas INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('progressing', 'done', 'failed')),
        reason TEXT NOT NULL DEFAULT '',
        started_s REAL NOT NULL,
        ended_s REAL
    ) STRICT;
    CREATE UNIQUE INDEX one_rollout_at_a_time ON rollouts (deployment) WHERE state = 'progressing';

    CREATE TABLE replicas (
        id TEXT PRIMARY KEY,
        deployment TEXT NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
        revision INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('starting', 'ready', 'draining', 'stopping', 'exited')),
        address TEXT NOT NULL DEFAULT '',
        pid INTEGER NOT NULL DEFAULT 0,
        started_s REAL NOT NULL,
        changed_s REAL NOT NULL,
        ready_s REAL,
        routed INTEGER NOT NULL DEFAULT 0 CHECK (routed IN (0, 1)),
        settled INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1)),
        reason TEXT NOT NULL DEFAULT '',
        restarts INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at_s REAL NOT NULL,
        deployment TEXT NOT NULL,
        step TEXT NOT NULL,
        phase TEXT NOT NULL,
        message TEXT NOT NULL,
        data TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_of_a_deployment ON events (deployment, seq);
    """,
    # A canary: the share of the requests the new revision has, the shares to come, and what the gateway had counted of
    # both revisions when this share came into force (JSON).
    """
    ALTER TABLE rollouts ADD COLUMN share INTEGER NOT NULL DEFAULT 100 CHECK (share BETWEEN 1 AND 100);
    ALTER TABLE rollouts ADD COLUMN steps TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE rollouts ADD COLUMN judged INTEGER NOT NULL DEFAULT 0 CHECK (judged IN (0, 1));
    ALTER TABLE rollouts ADD COLUMN counted TEXT NOT NULL DEFAULT '';
    """,
    # Between how many replicas the requests decide (0: `replicas` says), and how many requests each may have in flight.
    """
    ALTER TABLE deployments ADD COLUMN least INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE deployments ADD COLUMN most INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE deployments ADD COLUMN concurrency INTEGER NOT NULL DEFAULT 8;
    """,
    # Where the gateway takes requests is more than a port (JSON).
    """
    UPDATE settings SET key = 'front', value = '{"port":' || value || '}' WHERE key = 'port';
    """,
    # Who may ask a deployment and how often (JSON); whose tokens are valid. The private halves of keys are files.
    """
    ALTER TABLE deployments ADD COLUMN access TEXT NOT NULL DEFAULT '{}';

    CREATE TABLE keys (
        kid TEXT PRIMARY KEY,
        jwk TEXT NOT NULL,
        created_s REAL NOT NULL,
        retired_s REAL
    ) STRICT;

    CREATE TABLE tokens (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        deployments TEXT NOT NULL,
        kid TEXT NOT NULL REFERENCES keys (kid),
        created_s REAL NOT NULL,
        expires_s REAL NOT NULL,
        revoked_s REAL
    ) STRICT;

    CREATE TABLE issuers (
        name TEXT PRIMARY KEY,
        audience TEXT NOT NULL,
        jwks TEXT NOT NULL
    ) STRICT;
    """,
    # Rest: how many replicas of the wanted revision stay frozen while none is wanted awake, of which earlier revision
    # one does and since when, and the settings of it (JSON). How a rollout goes. A replica may be frozen, which takes
    # another CHECK and so another table.
    """
    ALTER TABLE deployments ADD COLUMN resting INTEGER NOT NULL DEFAULT 0 CHECK (resting >= 0);
    ALTER TABLE deployments ADD COLUMN fallback INTEGER;
    ALTER TABLE deployments ADD COLUMN fallback_s REAL NOT NULL DEFAULT 0;
    ALTER TABLE deployments ADD COLUMN rest TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE rollouts ADD COLUMN swap INTEGER NOT NULL DEFAULT 0 CHECK (swap IN (0, 1));
    ALTER TABLE replicas RENAME TO replicas_before;
    CREATE TABLE replicas (
        id TEXT PRIMARY KEY,
        deployment TEXT NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
        revision INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('starting', 'ready', 'draining', 'frozen', 'stopping', 'exited')),
        address TEXT NOT NULL DEFAULT '',
        pid INTEGER NOT NULL DEFAULT 0,
        started_s REAL NOT NULL,
        changed_s REAL NOT NULL,
        ready_s REAL,
        routed INTEGER NOT NULL DEFAULT 0 CHECK (routed IN (0, 1)),
        settled INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1)),
        reason TEXT NOT NULL DEFAULT '',
        restarts INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    INSERT INTO replicas SELECT * FROM replicas_before;
    DROP TABLE replicas_before;
    """,
    # A new revision in the shadow: of how many percent of the requests it gets copies (0: it gets requests), and what
    # comparing its answers gave (JSON).
    """
    ALTER TABLE rollouts ADD COLUMN mirror INTEGER NOT NULL DEFAULT 0 CHECK (mirror BETWEEN 0 AND 100);
    ALTER TABLE rollouts ADD COLUMN compared TEXT NOT NULL DEFAULT '{}';
    """,
    # Requests that were in the hands of a replica when it ended, and how often.
    """
    CREATE TABLE suspects (
        deployment TEXT NOT NULL,
        request TEXT NOT NULL,
        ends INTEGER NOT NULL CHECK (ends >= 1),
        seen_s REAL NOT NULL
    ) STRICT;
    """,
)


class Statements:
    """What is asked of the file, with SQLite's complaints translated; one transaction a change."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @contextmanager
    def _transaction(self, *, synced: bool = True) -> Iterator[None]:
        """All or nothing, for ever. What is not `synced` outlives the daemon, and is lost with the machine's power."""
        if not synced:
            self._run("PRAGMA synchronous = NORMAL")
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        finally:
            if not synced:
                self._run("PRAGMA synchronous = FULL")

    def _run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, values)
        except sqlite3.Error as error:
            raise translate(self._path, error) from error

    def _one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._run(sql, *values).fetchone()
        return row

    def _all(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        try:
            return self._run(sql, *values).fetchall()
        except sqlite3.Error as error:
            raise translate(self._path, error) from error


def open_database(path: Path) -> sqlite3.Connection:
    """Open (or make) the file, check it, keep a copy of it, bring it to the newest version.

    Raises CortenError: state.corrupt (damaged), state.too_new (written by a newer Corten), state.unusable (the disk).
    """
    existed = path.exists() and path.stat().st_size > 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Settings hold what users put into `env`: nobody else may read the file, from its first byte on.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, timeout=_BUSY_MS / 1000, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error
    try:
        _configure(connection)
        if existed:
            _check(connection, path)
            _back_up(connection, path)
        _migrate(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise translate(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def backup_of(path: Path) -> Path:
    """Where the copy of the last good file lies."""
    return path.with_name(path.name + ".bak")


def translate(path: Path, error: sqlite3.Error) -> CortenError:
    """What SQLite said, as the error a reader can act on."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return corrupt(path, str(error))
    return _unusable(path, error)


def corrupt(path: Path, why: str) -> CortenError:
    """The error for a damaged file, with the command that puts the last good copy back."""
    file, copy = shlex.quote(str(path)), backup_of(path)
    aside = f"mv {file} {file}.broken; rm -f {file}-wal {file}-shm"
    back = f"cp -p {shlex.quote(str(copy))} {file}"
    hint = f"{aside}; {back}" if copy.exists() else f"{aside} (then deploy again; images are kept)"
    return CortenError("state.corrupt", "the control plane's state is damaged", where=str(path), why=why, hint=hint)


def _unusable(path: Path, error: Exception) -> CortenError:
    full = "disk is full" in str(error) or getattr(error, "errno", None) == 28
    return CortenError(
        "state.disk_full" if full else "state.unusable",
        "the control plane's state cannot be written or read",
        where=str(path),
        why=str(error),
        hint=f"free some space, see `df {path.parent}`" if full else f"check owner and mode: `ls -la {path.parent}`",
    )


def _configure(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    # WAL alone may lose the last commits on power loss; an acknowledged deploy must not be lost.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA cell_size_check = ON")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)")]
    if found != ["ok"]:
        raise corrupt(path, "; ".join(found))
    dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
    if dangling is not None:
        raise corrupt(path, f"a row of `{dangling[0]}` refers to a missing `{dangling[2]}`")


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    beside = path.with_name(path.name + ".bak.new")
    beside.unlink(missing_ok=True)
    os.close(os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    copy = sqlite3.connect(beside)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    with beside.open("rb") as stream:
        os.fsync(stream.fileno())
    beside.replace(backup_of(path))


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise CortenError(
            "state.too_new",
            "the control plane's state was written by a newer Corten",
            where=str(path),
            why=f"its version is {version}, this Corten knows up to {len(MIGRATIONS)}",
            hint=f"upgrade Corten, or put the copy back: cp -p {backup_of(path)} {path}",
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        # One transaction a step, so that a kill in the middle leaves the version before.
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
