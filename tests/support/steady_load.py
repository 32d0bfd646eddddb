"""Requests at a steady rate (open loop) from a process of its own, while something else happens."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
import asyncio, json, sys
from corten.testing.load import Load

async def main(port, path, body, rate):
    headers = {"content-type": "application/json"}
    load = Load(int(port), path, body.encode(), rate_per_s=float(rate), headers=headers).start()
    while not load.ok + load.failed:
        await asyncio.sleep(0.01)
    print("begun", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(json.dumps((await load.stop()).as_dict()))

asyncio.run(main(*sys.argv[1:]))
"""


class SteadyLoad:
    """From the first answer until the end of the block; then there is a `report` (`corten.testing.load.Report`)."""

    report: dict

    def __init__(self, port: int, path: str, body: str = "{}", *, rate_per_s: float) -> None:
        self._words = [sys.executable, "-c", _PROGRAM, str(port), path, body, str(rate_per_s)]

    def __enter__(self):
        self._process = subprocess.Popen(self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "begun\n"
        return self

    def __exit__(self, *_: object) -> None:
        out, _ = self._process.communicate(timeout=120)
        self.report = json.loads(out)
