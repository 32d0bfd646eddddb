"""Found by a daemon whose PYTHONPATH leads here: it dies at each line of its journal, once the line is written and synced.

Only while the file named by CORTEN_BENCH_DYING exists; each death adds a byte to it. Nothing of Corten is changed: it is
SQLite's connection that counts.
"""

import os
import signal
import sqlite3
import sys
from pathlib import Path

MARK = Path(os.environ.get("CORTEN_BENCH_DYING", "/nowhere"))


class Dying(sqlite3.Connection):
    wrote = False

    def execute(self, sql, values=()):
        found = super().execute(sql, values)
        if sql.startswith("INSERT INTO events"):
            self.wrote = True
        elif self.wrote and (sql == "COMMIT" or not self.in_transaction) and MARK.exists():
            with MARK.open("ab") as stream:
                stream.write(b".")
            os.kill(os.getpid(), signal.SIGKILL)
        return found


def connect(*args, **kwargs):
    return plain_connect(*args, factory=Dying, **kwargs)


if "corten.control.daemon" in sys.orig_argv:
    plain_connect, sqlite3.connect = sqlite3.connect, connect
