"""A build that fails at one place where something is written: run as a program, it tries every such place once.

::

    python build_faults.py HOME PROJECT full|kill

A place is a line of Corten that makes, writes, syncs, renames or links something, together with the line that called it.
For each the build runs in a fork: there the first call fails with ENOSPC, or the process is killed. One JSON line is
printed a place: how the build ended, whether the store is whole, and whether the next build succeeded.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import sys
import threading
import traceback
from pathlib import Path

from corten.core.digest import Digest
from corten.core.home import Home
from corten.errors import CortenError
from corten.ops.build import build
from corten.store.layout import Layout

CALLS = ("write", "fsync", "rename", "link", "mkdir", "open")
PACKAGE = f"{os.sep}corten{os.sep}"


class Faults:
    """Notes where calls come from, and lets the first one from `wanted` fail in the way of `fault`."""

    def __init__(self, wanted="", fault=None):
        self.places = []
        self._wanted, self._fault = wanted, fault
        self._lock = threading.Lock()

    def patch(self):
        for name in CALLS:
            setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name, call):
        def wrapper(*args, **options):
            if _touches_the_disk(name, args):
                self._note(name)
            return call(*args, **options)

        return wrapper

    def _note(self, name):
        frames = []
        frame = sys._getframe(2)
        while frame and len(frames) < 2:
            if PACKAGE in frame.f_code.co_filename:
                frames.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
            frame = frame.f_back
        place = f"{name} {' < '.join(frames)}"
        with self._lock:
            new = frames and place not in self.places
            if new:
                self.places.append(place)
            hit = new and place == self._wanted
        if hit:
            self._fault()


def _touches_the_disk(name, args):
    match name:
        case "open":
            return len(args) > 1 and args[1] & os.O_CREAT
        case "write":
            return stat.S_ISREG(os.fstat(args[0]).st_mode)  # no pipe to a child
        case _:
            return True


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work):
    """Run in a fork; gives (exit code or -signal, what it returned or the error's code)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            told = work()
            code = 0
        except CortenError as error:
            told, code = error.code, error.exit_code
        except BaseException:
            told, code = traceback.format_exc(), 99
        with os.fdopen(writing, "w") as pipe:
            json.dump(told, pipe)
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), json.loads(text) if text else None


def whole(home):
    """What is wrong with a store: blobs that are not their names, names that lead to nothing."""
    layout = Layout(home.store)
    blobs = home.store / "blobs" / "sha256"
    wrong = [path.name for path in blobs.iterdir() if Digest.of_file(path).hex != path.name]
    for name, entry in layout.images():
        try:
            layout.verify(entry.digest) if name else None
        except CortenError as error:
            wrong.append(str(error))
    return wrong


def main(home, project, fault):
    code = project / "shout.py"
    text = code.read_text()

    def change(number):
        """Another image than ever before, and no lock: everything a first build writes but wheels and packages."""
        code.write_text(f"{text}\nNUMBER = {number}\n")
        (project / "corten.lock").unlink(missing_ok=True)

    def run(faults=None):
        if faults:
            faults.patch()
        digest = str(build(project, home=home, weights_image=True).digest)
        return {"digest": digest, "places": faults.places if faults else []}

    change(0)
    exit_code, told = forked(lambda: run(Faults()))
    assert exit_code == 0, told
    for number, place in enumerate(told["places"], start=1):
        change(number)
        exit_code, said = forked(lambda place=place: run(Faults(place, {"full": full, "kill": kill}[fault])))
        wrong = whole(home)
        again, after = forked(run)
        named = str(Layout(home.store).resolve("shout").digest)
        print(
            json.dumps(
                {
                    "place": place,
                    "exit": exit_code,
                    "said": said if isinstance(said, str) else "",
                    "wrong": wrong,
                    "again": again,
                    "after": after if again else "",
                    "named": again == 0 and named == after["digest"],
                    "left": [path.name for path in project.iterdir() if path.name.startswith(".")],
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main(Home(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3])
