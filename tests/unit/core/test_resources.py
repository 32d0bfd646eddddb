import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.resources import LEAST_MEMORY_BYTES, memory_text, parse_cpus, parse_device, parse_gpus, parse_memory
from corten.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("512m", 512 << 20),
        ("2g", 2 << 30),
        ("1.5GiB", 3 << 29),
        ("536870912", 512 << 20),
        ("64 MB", 64 << 20),
    ],
)
def test_memory_is_written_as_for_podman(text, size_bytes):
    assert parse_memory(text) == size_bytes


@pytest.mark.parametrize("text", ["", "x", "-1g", "1.5.2g", "31m", "1e9", "2gg", "1" * 16])
def test_other_amounts_of_memory_are_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_memory(text)
    assert caught.value.code == "resources.malformed"


@pytest.mark.parametrize(("text", "cpus"), [("0", 0), ("2", 2), ("0.5", 0.5), ("1024", 1024)])
def test_processors_may_be_parts(text, cpus):
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", "-1", "0.01", "1025", "nan", "inf", "1,5"])
def test_other_numbers_of_processors_are_refused(text):
    with pytest.raises(UsageError):
        parse_cpus(text)


@given(st.integers(LEAST_MEMORY_BYTES, 1 << 40))
def test_what_people_are_told_is_near_what_it_is(size_bytes):
    number, unit = memory_text(size_bytes).split()
    assert float(number) * {"MiB": 1 << 20, "GiB": 1 << 30}[unit] == pytest.approx(size_bytes, rel=0.01)


def test_gpus_are_a_number_and_devices_names():
    assert [parse_gpus(text) for text in ("0", "2", "64")] == [0, 2, 64]
    names = ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-8a1f", "nvidia.com/gpu=all", "amd.com/gpu=0:1", "a/b_c.d=e"]
    assert [parse_device(name) for name in names] == names


@pytest.mark.parametrize("text", ["", "-1", "65", "all", "1.5", "\u0661"])
def test_other_numbers_of_gpus_are_refused(text):
    with pytest.raises(UsageError):
        parse_gpus(text)


@pytest.mark.parametrize(
    "text", ["", "/dev/nvidia0", "/dev/a:/dev/b:rwm", "gpu=0", "nvidia.com/gpu", "a/b=c=d", "a/b=c\n"]
)
def test_a_path_is_no_name_of_a_device(text):
    with pytest.raises(UsageError) as caught:
        parse_device(text)
    assert caught.value.code == "resources.malformed"
