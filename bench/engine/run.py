"""Faults in the middle of operations, with requests coming all the time: how many failed.

`python bench/engine/run.py [--faults a,b] [--operations a,b] [--traffic a,b] [--out FILE]` prints a table on stderr and JSON
on stdout, and ends with 1 when a bar is missed. Real processes, real Envoy, an open-loop load; a home of its own that is gone
at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults import FAULTS
from place import RATE_PER_S, Place, site, until

from corten.control.client import LOST
from corten.core.canary import Canary
from corten.core.rest import Rest
from corten.errors import CortenError
from corten.ops.change import promote, restart
from corten.ops.stop import stop
from corten.testing.load import Report

SLOWEST_S = 3.0
BEFORE_S, AFTER_S = 1.0, 1.0
FROZEN, STOPPED = Rest(freeze_after_s=0.3, stop_after_s=3600), Rest(freeze_after_s=0.3, stop_after_s=0.35)
Step = Callable[[Place], object]


def redeploy(place: Place) -> None:
    restart(place.name, home=place.home)


def canary(place: Place) -> None:
    place.deploy(2, canary=Canary((50,)), mark="canary")


def go_on(place: Place) -> None:
    time.sleep(0.5)
    with contextlib.suppress(StopIteration):
        promote(place.name, home=place.home)


def four(place: Place) -> None:
    place.deploy(4)


def two(place: Place) -> None:
    place.deploy(2)


@dataclass(frozen=True)
class Operation:
    """Steps with requests coming, on what `before` left. `asleep`: nobody is there, and the requests begin with it."""

    steps: Sequence[Step] = ()
    before: Step = two
    asleep: str = ""


OPERATIONS = {
    "nothing": Operation([lambda _: time.sleep(2)]),
    "redeploy": Operation([redeploy]),
    "canary": Operation([canary, go_on]),
    "scale up": Operation([four]),
    "scale down": Operation([two], before=four),
    "wake, frozen": Operation(before=lambda place: place.deploy(2, rest=FROZEN), asleep="frozen"),
    "wake, stopped": Operation(before=lambda place: place.deploy(2, rest=STOPPED), asleep="stopped"),
}
# The limits: how many requests may fail, and why it cannot be otherwise.
KILLING = ("SIGKILL", "SIGSTOP", "OOM")
BEGUN = "a stream that has begun cannot be asked of another replica: as many as were under way"
EACH_LINE = "daemon killed at each line"
ALONE = "there is one replica, and nobody in whose place it could be asked"


def limit(fault: str, operation: str, traffic: str) -> tuple[float, str]:
    if fault == "5xx" and OPERATIONS[operation].asleep:
        return float("inf"), ALONE
    if traffic == "stream" and fault in KILLING:
        return RATE_PER_S["stream"], BEGUN
    return 0, ""


@dataclass(frozen=True)
class Cell:
    fault: str
    operation: str
    traffic: str
    report: Report
    healed: bool
    trouble: str = ""

    @property
    def met(self) -> bool:
        most, _ = limit(self.fault, self.operation, self.traffic)
        # Five daemons die one after the other before the first request is answered; an only replica has to be found
        # stopped, and another started.
        alone = OPERATIONS[self.operation].asleep and self.fault in (EACH_LINE, "SIGSTOP")
        patient = self.fault == "slow" or alone
        slowest_s = 10 * SLOWEST_S if patient else SLOWEST_S
        return self.healed and self.report.failed <= most and self.report.latency_s(1.0) <= slowest_s

    def as_dict(self) -> dict[str, object]:
        where = {"fault": self.fault, "operation": self.operation, "traffic": self.traffic}
        where["limit"] = limit(self.fault, self.operation, self.traffic)[1]
        return {**where, "met": self.met, "healed": self.healed, "trouble": self.trouble, **self.report.as_dict()}

    def line(self) -> str:
        report = self.report
        why = f"{dict(report.reasons)} {report.failures[0].detail[:160]}" if report.failures else ""
        return (
            f"{'MISS' if not self.met else 'lim ' if report.failed else 'ok  '} {self.traffic:7} {self.fault:14} {self.operation:13} {report.failed:4} of "
            f"{report.ok + report.failed:5} failed, slowest {report.latency_s(1.0):6.3f} s "
            f"{why} {'' if self.healed else 'NOT HEALED'} {self.trouble}\n"
        )


async def play(place: Place, fault: str, operation: str) -> Cell:
    chosen = OPERATIONS[operation]
    place.notes.clear()
    await asyncio.to_thread(chosen.before, place)
    asleep = chosen.asleep
    ready = (lambda: place.one().state == asleep) if asleep else place.well
    if not await asyncio.to_thread(until, ready):
        raise SystemExit(f"not {asleep or 'well'} before {fault} during {operation}: {place.one()}")
    async with place.load() as load:
        await asyncio.sleep(0 if asleep else BEFORE_S)
        await asyncio.to_thread(both, place, fault, chosen)
        healed = await asyncio.to_thread(until, place.well)
        await asyncio.sleep(AFTER_S)
    if not healed:
        place.notes.append((place.home.state / "daemon.log").read_text()[-2000:])
    return Cell(fault, operation, place.traffic, load.report, healed, "; ".join(place.notes)[:2300])


def both(place: Place, fault: str, operation: Operation) -> None:
    """The operation, and a moment after it began the fault."""

    def operate() -> None:
        for step in operation.steps:
            insist(place, step)

    chosen = FAULTS[fault]
    thread = threading.Thread(target=operate)
    with contextlib.ExitStack() as stack:
        if chosen.early:
            stack.enter_context(chosen.inject(place))
        thread.start()
        if not chosen.early:
            time.sleep(0.03 if operation.asleep else 0.3)
            stack.enter_context(chosen.inject(place))
        thread.join(120)
        time.sleep(1)


def insist(place: Place, step: Step) -> None:
    """Do it as a user would: told that the daemon is gone, one looks whether it had begun, and if not, asks again."""
    before = generation(place)
    for _ in range(20):
        try:
            step(place)
        except CortenError as error:
            place.notes.append(f"{error.code}: {error}" if error.code != LOST else error.code)
            if error.code != LOST:
                return
            if generation(place) > before:
                until(lambda: place.one().state in ("serving", "canary"))
                return
        else:
            return


def generation(place: Place) -> int:
    found = [0]

    def look() -> bool:
        found[0] = place.one().generation
        return True

    until(look)
    return found[0]


def table(cells: Sequence[Cell]) -> str:
    """Failed requests, of all that were sent."""
    lines = []
    for traffic in dict.fromkeys(cell.traffic for cell in cells):
        mine = [cell for cell in cells if cell.traffic == traffic]
        operations = list(dict.fromkeys(cell.operation for cell in mine))
        lines += ["", f"| {traffic} | " + " | ".join(operations) + " |", "|---|" + "--:|" * len(operations)]
        for fault in dict.fromkeys(cell.fault for cell in mine):
            row = {cell.operation: cell for cell in mine if cell.fault == fault}
            told = [row[each].report for each in operations]
            lines.append(
                f"| {fault} | " + " | ".join(f"{each.failed} / {each.ok + each.failed}" for each in told) + " |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--operations", default=";".join(OPERATIONS), help="separated by semicolons")
    parser.add_argument("--traffic", default=",".join(RATE_PER_S))
    parser.add_argument("--out", type=Path, help="where to put the JSON (default: stdout)")
    chosen = parser.parse_args()
    cells: list[Cell] = []
    began_s = time.monotonic()
    with site() as here:
        for traffic in chosen.traffic.split(","):
            place = here.place(traffic)
            for fault in chosen.faults.split(","):
                if fault == "disk full" and not here.small:
                    continue
                with FAULTS[fault].around(place):
                    for operation in chosen.operations.split(";"):
                        cells.append(asyncio.run(play(place, fault, operation)))
                        sys.stderr.write(cells[-1].line())
                        sys.stderr.flush()
            stop(place.name, home=here.home)
    missed = [cell for cell in cells if not cell.met]
    failed, asked = sum(c.report.failed for c in cells), sum(c.report.failed + c.report.ok for c in cells)
    sys.stderr.write(table(cells))
    sys.stderr.write(
        f"\n{failed} of {asked} requests failed; {len(missed)} of {len(cells)} cells missed a bar; "
        f"{(time.monotonic() - began_s) / 60:.0f} minutes\n"
    )
    told = json.dumps([cell.as_dict() for cell in cells], indent=1)
    chosen.out.write_text(told) if chosen.out else print(told)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
