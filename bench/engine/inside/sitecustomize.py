"""Found by a daemon whose PYTHONPATH leads here.

While the file named by CORTEN_BENCH_DYING exists, it dies at each line of its journal, once the line is written and synced;
each death adds a byte to the file. Nothing of Corten is changed for that: it is SQLite's connection that counts. With
CORTEN_BENCH_HANDOVER_S, a gateway that was replaced has so long for its last answers, so that the next can be replaced.
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
    if handover := os.environ.get("CORTEN_BENCH_HANDOVER_S"):
        from corten.gateway import hot

        vars(hot).update(LONGEST_ANSWER_S=int(handover), _OVERLAP_S=1)
