"""`corten build` and `push` beside good Dockerfiles in BuildKit and buildah: one run, the same wheels. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import start
import transfer
from builders import (
    Base,
    Buildah,
    Builder,
    BuildKit,
    BuildKitPip,
    Corten,
    FailedError,
    Took,
    make_base,
    make_tools,
)
from loopback import DebianMirror, Index
from works import WORKS, Work

PARTS = ("sk", "ort", "transfer", "start")
# What is changed, how often, and whether a push of it is timed.
STEPS = (("nothing", 3, False), ("code", 3, True), ("weights", 3, True), ("dependency", 1, True))
# What a Dockerfile's cold build is: its base was there before.
ON_BASE = "cold, base there"
# What Corten's cold build is: there is nothing yet. A Dockerfile's base comes out of its registry, over loopback.
NOTHING_THERE = "cold, base fetched"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, default=[], help="a part (default: all)")
    parser.add_argument("--rows", default="", help="of the builds: words of rivals' names, such as buildkit,buildah")
    parser.add_argument("--base", type=Path, help="a rival's root file system as a tar (default: made by mmdebstrap)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="corten-bench-", dir="/var/tmp"))
    folder.chmod(0o755)  # replicas of root run as another user
    result: dict = {"processors": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2), "parts": {}}
    try:
        for part in options.only or PARTS:
            say(f"== {part}")
            result["parts"][part] = run_part(part, folder / part, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result["bars"] = [bar for part in result["parts"].values() for bar in part["bars"]]
    sys.stderr.write(report(result))
    json.dump(result, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0 if all(bar["met"] for bar in result["bars"]) else 1


def run_part(part: str, folder: Path, options: argparse.Namespace) -> dict:
    folder.mkdir()
    try:
        match part:
            case "transfer":
                return transfer.measure(folder)
            case "start":
                return start.measure(folder)
            case _:
                work = next(kind for kind in WORKS if kind.name == part)
                return builds(work(folder), folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def builds(work: Work, folder: Path, options: argparse.Namespace) -> dict:
    for name in ("wheels", "mirror"):
        (folder / name).mkdir()
    upstream = os.environ.get("CORTEN_DEBIAN_MIRROR", "https://deb.debian.org")
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        index = stack.enter_context(Index(folder / "wheels"))
        mirror = stack.enter_context(DebianMirror(folder / "mirror", upstream))
        corten = Corten(folder / "corten", index, mirror)
        rows: list[Builder] = [corten]
        stack.callback(corten.close)
        say("wheels and Debian packages")
        corten.gather_wheels(work)
        for row in rivals(folder, index, options, missing):
            rows.append(row)
            stack.callback(row.close)
        figures = {row.name: measured for row in rows if (measured := Row(row, work, missing))}
        for phase in phases():
            for row in [*figures.values()]:
                if not row.attempt(phase):
                    del figures[row.builder.name]
        found = {name: row.figures for name, row in figures.items()}
        found["corten"]["attached_bytes"] = corten.attached_bytes(work)
    return {"rows": found, "missing": missing, "bars": bars(work, found)}


def rivals(folder: Path, index: Index, options: argparse.Namespace, missing: dict[str, str]) -> Iterator[Builder]:
    wanted = [
        kind
        for kind in (BuildKit, BuildKitPip, Buildah)
        if not options.rows or any(word in kind.name for word in options.rows.split(","))
    ]
    if not wanted:
        return
    try:
        say("the base of the Dockerfiles")
        base = Base(options.base, make_tools(folder)) if options.base else make_base(folder)
    except (FailedError, OSError) as error:
        missing |= {kind.name: str(error) for kind in wanted}
        return
    for kind in wanted:
        try:
            yield kind(folder / kind.name.replace(" + ", "-"), index, base)
        except (FailedError, OSError) as error:
            missing[kind.name] = str(error)


class Row:
    """What is known of a builder; each phase adds to it."""

    def __init__(self, builder: Builder, work: Work, missing: dict[str, str]) -> None:
        self.builder = builder
        self.work = work
        self.missing = missing
        self.figures: dict = {"build": {}, "push": {}}
        self._digests: list[str] = []
        self._last = ""

    def attempt(self, phase: Callable[[Row], None]) -> bool:
        """Whether it could: a rival that cannot is left out, with its reason; Corten has to."""
        began_s = time.perf_counter()
        try:
            self._last = ""
            phase(self)
            if self._last:
                say(f"  {self.builder.name:16} {self._last} (with preparations {time.perf_counter() - began_s:.1f} s)")
        except (FailedError, OSError) as error:
            if isinstance(self.builder, Corten):
                raise
            self.missing[self.builder.name] = str(error)
            return False
        return True

    def cold(self) -> None:
        if len(self._digests) >= self.builder.repeats_cold:
            return
        self.work.reset()
        self.builder.clear(self.work)
        self.builder.prepare(self.work)
        self._keep("cold", settled(lambda: self.builder.build(self.work)))
        self._digests.append(self.builder.digest(self.work))
        if len(self._digests) > 1:
            self.figures["same_digest"] = len(set(self._digests)) == 1

    def cold_on_base(self) -> None:
        if isinstance(self.builder, Corten):
            self.builder.clear_but_base(self.work)
            self._keep(ON_BASE, settled(lambda: self.builder.build(self.work)))

    def cold_without_base(self) -> None:
        if isinstance(self.builder, BuildKit):
            self.builder.clear(self.work)
            self.builder.forget_base()
            self.builder.prepare(self.work)
            self._keep(NOTHING_THERE, settled(lambda: self.builder.build(self.work)))
            self.builder.remember_base()

    def build(self, step: str, repeat: int) -> None:
        match step:
            case "code":
                self.work.edit_code(repeat + 1)
            case "weights":
                self.work.edit_weights(repeat + 1)
            case "dependency":
                self.work.edit_dependencies(more=True)
        self.builder.prepare(self.work)
        self._keep(step, settled(lambda: self.builder.build(self.work)))

    def push(self, step: str) -> None:
        before = self.builder.registry.size_bytes()
        took = settled(lambda: self.builder.push(self.work))
        self.figures["push"][step] = {**asdict(took), "bytes": self.builder.registry.size_bytes() - before}
        self._last = f"push {step}: {took.wall_s:.2f} s"
        if step == "cold":
            self.figures["size"] = asdict(self.builder.size(self.work))

    def _keep(self, step: str, took: Took) -> None:
        self.figures["build"].setdefault(step, []).append(asdict(took))
        self._last = f"build {step}: {took.wall_s:.2f} s"


def phases() -> Iterator[Callable[[Row], None]]:
    """Each in turn by all builders, so that whatever else the machine does meets all of them."""
    yield Row.cold_without_base
    yield Row.cold
    yield Row.cold_on_base
    yield Row.cold_without_base
    yield Row.cold
    yield Row.cold_on_base
    yield lambda row: row.push("cold")
    for step, repeats, pushed in STEPS:
        for repeat in range(repeats):
            yield lambda row, step=step, repeat=repeat: row.build(step, repeat)
        if pushed:
            yield lambda row, step=step: row.push(step)


def settled(work: Callable[[], Took]) -> Took:
    """With nothing left to write from what came before."""
    os.sync()
    return work()


def best(row: dict, step: str) -> float:
    return min(one["wall_s"] for one in row["build"][step])


def bars(work: Work, rows: dict) -> list[dict]:
    ours = rows["corten"]
    found = [bar(work, f"{step} built, s", best(ours, step), 0.3) for step in ("nothing", "code", "weights")]
    changed = {"code": len(work.code.encode()), "weights": work.weights_bytes}
    found += [
        bar(work, f"{step} pushed beyond what changed, kB", round((ours["push"][step]["bytes"] - size) / 1e3, 1), 100)
        for step, size in changed.items()
    ]
    found.append(bar(work, "base, MB", round(ours["size"]["base_bytes"] / 1e6, 1), 20))
    found.append(bar(work, "another digest the second time", int(not ours["same_digest"]), 0))
    if work.name == "sk":
        whole = (ours["size"]["stored_bytes"] + ours["attached_bytes"]) / 1e6
        found.append(bar(work, "image with what is attached, MB", round(whole, 1), 110))
    if rival := rows.get(BuildKit.name):
        # Like with like (docs/decisions/0025): the base is there for both, or for neither.
        alike = (("nothing there", "cold", NOTHING_THERE, 0.5, 0.2), ("base there", ON_BASE, "cold", 0.7, 0.25))
        for step, own, other, most_built, most_pushed in alike:
            built = [best(ours, own), best(rival, other)]
            pushed = [
                seconds + row["push"]["cold"]["wall_s"] for seconds, row in zip(built, (ours, rival), strict=True)
            ]
            name = f"cold, {step}: build{{}}, of {BuildKit.name}"
            found.append(bar(work, name.format(""), round(built[0] / built[1], 2), most_built))
            found.append(bar(work, name.format(" + push"), round(pushed[0] / pushed[1], 2), most_pushed))
    return found


def bar(work: Work, name: str, value: float, most: float) -> dict:
    return {"name": f"{work.name}: {name}", "value": value, "most": most, "met": value <= most}


def report(result: dict) -> str:
    lines = [f"\n{result['processors']} processors, load before: {result['load_before']}"]
    for part, found in result["parts"].items():
        lines += ["", part, *(build_table(found) if "rows" in found else plain(found["figures"]))]
        lines += [f"  not measured: {name}: {why}" for name, why in found.get("missing", {}).items()]
    lines.append("")
    for one in result["bars"]:
        limit = f"≥ {one['least']}" if "least" in one else f"≤ {one['most']}"
        lines.append(f"  {'✓' if one['met'] else '✗'} {one['name']:60} {one['value']:>9} (bar {limit})")
    return "\n".join(lines) + "\n"


def build_table(found: dict) -> list[str]:
    rows = found["rows"]

    def line(title: str, told: Callable[[dict], str]) -> str:
        return f"{title:26}" + "".join(f"{told(row):>18}" for row in rows.values())

    steps = ("cold", ON_BASE, NOTHING_THERE, *(name for name, _, _ in STEPS))
    yes = {True: "yes", False: "no", None: "-"}
    lines = [f"{'seconds (of processors)':26}" + "".join(f"{name:>18}" for name in rows)]
    lines += [line(f"build: {step}", lambda row, step=step: cell(row["build"].get(step))) for step in steps]
    for step in rows["corten"]["push"]:
        lines.append(line(f"push: {step}", lambda row, step=step: cell([row["push"][step]])))
        lines.append(line("", lambda row, step=step: f"{row['push'][step]['bytes'] / 1e6:.3f} MB"))
    for key in ("stored_bytes", "unpacked_bytes", "base_bytes"):
        title = f"image: {key.removesuffix('_bytes')}"
        lines.append(line(title, lambda row, key=key: f"{row['size'][key] / 1e6:.1f} MB"))
    lines.append(line("same digest twice", lambda row: yes[row.get("same_digest")]))
    return lines


def cell(taken: list[dict] | None) -> str:
    """The best of them: seconds by the clock, and of processors."""
    if not taken:
        return "-"
    took = min(taken, key=lambda one: one["wall_s"])
    cpu = "" if took["cpu_s"] is None else f" ({took['cpu_s']:.2f})"
    return f"{took['wall_s']:.2f}{cpu}"


def plain(figures: dict) -> list[str]:
    return [f"  {name:44} {value}" for name, value in figures.items()]


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
