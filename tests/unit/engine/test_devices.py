"""Which GPUs a replica gets."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.resources import Resources
from corten.engine.devices import by_name, check_devices, choose, gpus_here, refuse_devices
from corten.errors import EngineError


def test_gpus_are_found_by_their_drivers_files(tmp_path):
    for name in ("nvidia1", "nvidia0", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert gpus_here(tmp_path) == (0, 1, 10)
    assert gpus_here(tmp_path / "nowhere") == ()


@given(st.integers(1, 8), st.lists(st.integers(1, 8), max_size=24))
def test_no_gpu_has_two_more_than_another(there, counts):
    gpus, used = range(there), []
    for count in counts:
        if count > there:
            with pytest.raises(EngineError):
                choose(gpus, used, count)
            continue
        chosen = choose(gpus, used, count)
        assert len(set(chosen)) == count
        used += chosen
    having = Counter(used)
    assert not used or max(having.values()) - min(having[gpu] for gpu in gpus) <= 1


def test_all_have_names():
    assert [*by_name((0, 2), Resources(gpus=2, devices=("a/b=c",)))] == [
        "nvidia.com/gpu=0",
        "nvidia.com/gpu=2",
        "a/b=c",
    ]


def test_without_containers_there_are_none():
    refuse_devices(Resources(1 << 30, 2))
    for resources in (Resources(gpus=1), Resources(devices=("a/b=c",))):
        with pytest.raises(EngineError) as caught:
            refuse_devices(resources)
        assert caught.value.code == "engine.no_device"


@pytest.mark.parametrize(
    ("told", "resources"),
    [
        ({"devices": "none"}, Resources(gpus=1)),
        ({"devices": "none"}, Resources(devices=("a/b=c",))),
        ({"devices": "those asked for", "gpus": "0"}, Resources(gpus=1)),
        ({"devices": "those asked for", "gpus": "1"}, Resources(gpus=2)),
        ({"devices": "those asked for", "cdi": "a/b=d e/f=g"}, Resources(devices=("a/b=c",))),
        ({"devices": "those asked for", "cdi": ""}, Resources(devices=("a/b=c",))),
        ({"devices": "those asked for", "cdi": "none: Docker 20 takes none"}, Resources(devices=("a/b=c",))),
    ],
)
def test_what_an_engine_has_not_is_refused_by_what_it_tells_of_itself(told, resources):
    with pytest.raises(EngineError) as caught:
        check_devices(told, resources)
    assert caught.value.code == "engine.no_device"
    assert caught.value.hint


def test_each_is_said_where_there_are_several():
    for count, said in ((1, "replicas cannot get a GPU"), (2, "replicas cannot get 2 GPUs each")):
        with pytest.raises(EngineError) as caught:
            check_devices({"gpus": "0"}, Resources(gpus=count))
        assert caught.value.what == said


def test_a_name_that_is_not_described_is_told_with_those_that_are():
    with pytest.raises(EngineError) as caught:
        check_devices({"cdi": "a/b=d e/f=g"}, Resources(devices=("a/b=c",)))
    assert "there are a/b=d, e/f=g" in caught.value.why


@pytest.mark.parametrize(
    "told",
    [
        {"devices": "those asked for", "gpus": "2"},
        {"devices": "those asked for", "cdi": "a/b=c x/y=z", "gpus": "2"},
        {"sandbox": "a plugin's"},
    ],
)
def test_what_it_may_have_is_left_to_it(told):
    check_devices(told, Resources(gpus=2, devices=("a/b=c",)))
