from __future__ import annotations

import os

import pytest

from corten.adapters.threads import limit_threads, processors, threads


def root(tmp_path, cgroup, **files):
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return tmp_path


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def test_without_cgroups_it_is_the_affinity(tmp_path):
    assert processors(tmp_path) == 8


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 2),
        ("0::/a\n", {"sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ("0::/../x\n", {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ("0::/a\n", {"sys/fs/cgroup/a/cpu.max": "nonsense\n"}, 8),
        (
            "4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            "4:cpu:/x\n",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            8,
        ),
    ],
    ids=["v2", "v2-above", "v2-namespace", "v2-outside", "v2-broken", "v1", "v1-unlimited"],
)
def test_the_smallest_quota_on_the_way_up_counts(tmp_path, cgroup, files, expected):
    assert processors(root(tmp_path, cgroup, **files)) == expected


def test_the_number_can_be_chosen():
    assert threads({"CORTEN_THREADS": "3"}) == 3


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "9999", "\u0662"])
def test_a_choice_that_cannot_be_meant_is_none(monkeypatch, text):
    monkeypatch.setattr("corten.adapters.threads.processors", lambda: 2.5)
    assert threads({"CORTEN_THREADS": text}) == 2


@pytest.mark.parametrize(("available", "share", "expected"), [(8.0, 1, 8), (8.0, 3, 2), (0.5, 1, 1), (2.0, 4, 1)])
def test_libraries_are_told_their_share(monkeypatch, available, share, expected):
    monkeypatch.setattr("corten.adapters.threads.processors", lambda: available)
    environment = {"OPENBLAS_NUM_THREADS": "7"}
    assert limit_threads(environment, share) == expected
    assert environment["OPENBLAS_NUM_THREADS"] == "7", "what somebody chose stays"
    assert environment["OMP_NUM_THREADS"] == environment["CORTEN_THREADS"] == str(expected)


def test_openmps_number_is_that_of_all_libraries_and_ours_goes_first():
    environment = {"OMP_NUM_THREADS": "1"}
    assert limit_threads(environment) == 1
    assert environment["OPENBLAS_NUM_THREADS"] == environment["CORTEN_THREADS"] == "1"
    assert threads({"OMP_NUM_THREADS": "2", "CORTEN_THREADS": "3"}) == 3
