"""The static reader tells what a pickle holds, runs nothing of it, and ends on any bytes."""

import os
import pickle
import pickletools
import struct
import subprocess
import sys
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pickle_outcome import OUTCOMES, outcome

from corten.adapters.pickles import is_pickle, looks_like_pickle, read_pickle
from corten.adapters.standins import Array, Global, Made, Opaque
from corten.errors import CortenError, UsageError


@pytest.fixture
def read(tmp_path):
    def run(data: bytes, **options):
        path = tmp_path / "file"
        path.write_bytes(data)
        return read_pickle(path, **options)

    return run


def plain():
    """Values of builtin types, nested."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=20,
    )


@given(value=plain(), protocol=st.integers(0, 5))
@settings(deadline=None)
def test_builtin_values_are_read_as_the_pickle_module_reads_them(value, protocol, tmp_path_factory):
    path = tmp_path_factory.mktemp("p") / "file"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_pickle(path).root == value


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Read bytes with and without a pickle's head; fail for any other end than a value or an error of ours."""
    path = tmp_path_factory.mktemp("any") / "file"

    def run(data: bytes):
        for head in (b"", b"\x80\x04"):
            path.write_bytes(head + data)
            assert outcome(path) in OUTCOMES

    return run


@given(data=st.binary(max_size=400))
@settings(deadline=2000)
def test_any_bytes_give_a_value_or_an_error_of_ours(data, ends):
    ends(data)


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


@given(parts=st.lists(st.sampled_from(OPCODES) | st.binary(max_size=3), max_size=60))
@settings(deadline=2000)
def test_any_row_of_opcodes_gives_a_value_or_an_error_of_ours(parts, ends):
    ends(b"".join(parts) + b".")


@pytest.mark.parametrize(
    "data",
    [
        b"]\x94(h\x00h\x00e.",  # a list that holds itself
        b")" + b"\x85" * 20_000 + b".",  # tuples in tuples
        b"}" + b")" + b"\x85" * 20_000 + b"Ns.",  # the same as a key
        b"\x8f(" + b")" + b"\x85" * 20_000 + b"\x90.",  # and in a set
        b"\x8b\xff\xff\xff\x7f.",  # a number of 2 GiB
        b"\x8e" + b"\xff" * 8 + b".",
        b"Nr\xff\xff\xff\xff.",
        b"]" + b"\x94(h\x00h\x00h\x00e" * 5_000 + b".",
        b"I" + b"9" * 100_000 + b"\n.",  # int() of so many digits takes quadratic time
        b"(" * 20_000 + b".",
    ],
)
def test_a_bomb_does_not_go_off(data, ends):
    ends(data)


class Runs:
    """Unpickling this writes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


class Evaluates(Runs):
    def __reduce__(self):
        return eval, (f"__import__('pathlib').Path({str(self.marker)!r}).touch()",)


class Sneaks(Runs):
    def __reduce__(self):
        return subprocess.check_call, (["touch", str(self.marker)],)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [Runs, Evaluates, Sneaks])
def test_a_malicious_pickle_is_read_and_never_run(kind, protocol, tmp_path, read):
    marker = tmp_path / "marker"
    nested = OrderedDict(a=[({"deep": (kind(marker),)},)])
    contents = read(pickle.dumps(nested, protocol=protocol))
    named = {str(found) for found in contents.globals}
    assert named & {
        "posix.system",
        "builtins.eval",
        "__builtin__.eval",
        "subprocess.check_call",
        "commands.check_call",
    }
    assert not marker.exists()
    pickle.loads(pickle.dumps(nested, protocol=protocol))  # the file was a working weapon
    assert marker.exists()


def test_reading_imports_nothing_the_pickle_names(read):
    name = "this_module_does_not_exist"
    contents = read(b"\x80\x04\x8c" + bytes([len(name)]) + name.encode() + b"\x8c\x01C\x93)\x81.")
    assert contents.globals == {Global(name, "C")}
    assert name not in sys.modules


def test_long_data_is_stepped_over(read):
    data = read(pickle.dumps([b"x" * 1_000_000, "y" * 1_000_000, "short"])).root
    assert isinstance(data[0], Opaque)
    assert isinstance(data[1], Opaque)
    assert data[2] == "short"


def test_a_file_of_too_many_opcodes_is_refused(read):
    with pytest.raises(UsageError, match="more opcodes"):
        read(b"\x80\x04" + b"N0" * 2000 + b"N.", max_opcodes=1000)


def test_data_that_is_announced_but_absent_is_refused_before_it_is_read(read):
    with pytest.raises(UsageError, match="announced where the file has"):
        read(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x80\x04.", "takes a value where none is"),
        (b"\x80\x09N.", "protocol 9"),
        (b"\x80\x04h\x05.", "entry 5 of the memo"),
        (b"\x80\x04e.", "never began"),
        (b"\x80\x04\xff.", "0xff is no pickle opcode"),
        (b"\x80\x04}(Nu.", "a key has no value"),
        (b"\x80\x04X\x02\x00\x00\x00\xff\xff.", "not UTF-8"),
        (b"\x80\x04K\x01Q.", "outside the file"),
        (b"\x80\x04\x82\x01.", "extension registry"),
        (b"Iabc\n.", "a number is malformed"),
        (b"\x80\x04", "ends 1 bytes early"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(data, why, read):
    with pytest.raises(UsageError) as caught:
        read(data)
    assert why in caught.value.why
    assert "byte " in caught.value.why


def test_every_opcode_of_the_specification_is_known(read):
    for opcode in pickletools.opcodes:
        with pytest.raises(UsageError) as caught:  # each alone is no pickle, for lack of a value or of STOP
            read(b"\x80\x05" + opcode.code.encode("latin-1"))
        assert "is no pickle opcode" not in caught.value.why, opcode.name


def test_a_dictionary_subclass_tells_its_items(read):
    made = read(pickle.dumps(OrderedDict(a=1))).root
    assert isinstance(made, Made)
    assert made.state == {"a": 1}


@pytest.mark.parametrize(
    "head",
    [b"PK\x03\x04" + b"\0" * 12, b"\x93NUMPY\x01\x00", b"", b"\x80", b"hello", b"\x7fELF", b"\x80\x10abc", b"{}"],
)
def test_other_files_are_not_taken_for_pickles(head, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(head)
    assert not looks_like_pickle(head)
    assert not is_pickle(path)


def test_a_broken_compressed_file_is_an_error_of_ours(tmp_path):
    path = tmp_path / "model.joblib"
    path.write_bytes(b"\x78\x9c" + b"\xff" * 40)
    assert not is_pickle(path)
    with pytest.raises(CortenError) as caught:
        read_pickle(path)
    assert caught.value.code == "adapter.corrupt_model"


def test_a_compression_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "model.joblib"
    path.write_bytes(b"\x04\x22\x4d\x18" + b"\0" * 20)
    with pytest.raises(UsageError, match="LZ4"):
        read_pickle(path)


def test_array_values_need_all_their_bytes():
    from corten.adapters.standins import ElementType

    assert Array(ElementType("f", 8), (2,), data=b"\0" * 8).values() is None
