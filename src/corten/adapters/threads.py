"""How many threads a call of the model may take: as many as there are processors, or as the container may use of them.

A library that starts a thread for each processor of the machine, in a container that may use one, is stopped by the
kernel most of the time (CFS bandwidth control), each of its threads waiting for the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

THREADS_VARIABLE = "CORTEN_THREADS"
MOST_THREADS = 1024
# What OpenMP, OpenBLAS, MKL, BLIS, numexpr and Rust's rayon (tokenizers, polars) read when they are loaded.
_LIBRARIES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
_ROOT = Path("/")


def threads(environment: Mapping[str, str]) -> int:
    """What the environment says, else the processors this process may use, rounded down; at least 1."""
    return _chosen(environment) or max(1, int(processors()))


def limit_threads(environment: MutableMapping[str, str], share: int = 1) -> int:
    """Tell the libraries, before they are loaded, how many threads each of `share` processes may have.

    What is set already stays; `OMP_NUM_THREADS` is for all of them, or OpenBLAS would take the number set here for it
    instead. Gives the number.
    """
    count = _chosen(environment) or max(1, int(processors() / share))
    for name in (THREADS_VARIABLE, *_LIBRARIES):
        environment.setdefault(name, str(count))
    return count


def processors(root: Path = _ROOT) -> float:
    """How many processors this process may use: its affinity, and its cgroups' quotas where there are any."""
    return min([float(len(os.sched_getaffinity(0))), *_quotas(root)])


def _chosen(environment: Mapping[str, str]) -> int:
    chosen = environment.get(THREADS_VARIABLE) or environment.get("OMP_NUM_THREADS", "")
    return int(chosen) if chosen.isascii() and chosen.isdigit() and 0 < int(chosen) < MOST_THREADS else 0


def _quotas(root: Path) -> Iterator[float]:
    """Of the cgroup of this process and all above it, in processors (cgroups(7), version 2 and 1)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = controllers.split(",")
        if not controllers:
            # In a container with a cgroup namespace the path is `/`, and its own limits are at the mount's root.
            for folder in _upwards(mounted, path):
                yield from _quota_v2(folder)
        elif "cpu" in names:
            for base in (mounted / "cpu", mounted / controllers):
                for folder in _upwards(base, path):
                    yield from _quota_v1(folder)


def _upwards(base: Path, path: str) -> Iterator[Path]:
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:length])


def _quota_v2(folder: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        yield int(quota) / int(period)  # `max` is no number


def _quota_v1(folder: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
        if quota > 0 and period > 0:
            yield quota / period
