"""Pickles that joblib and scikit-learn really wrote: read without either, whole, cut and damaged."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pickle_outcome import OUTCOMES, outcome

from corten.adapters.pickles import is_pickle, read_pickle
from corten.adapters.standins import Global, as_array
from corten.errors import UsageError

pytestmark = pytest.mark.examples


@given(data=st.data())
@settings(deadline=2000)
def test_a_damaged_model_file_gives_a_value_or_an_error_of_ours(data, forest_bytes, tmp_path_factory):
    damaged = bytearray(forest_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(damaged)
    assert outcome(path) in OUTCOMES


@pytest.fixture(scope="module")
def forest_bytes(trained, tmp_path_factory):
    import joblib

    path = tmp_path_factory.mktemp("forest") / "forest.joblib"
    joblib.dump(trained["forest"], path)
    return path.read_bytes()


def test_every_truncation_of_a_model_file_is_an_error_with_its_byte(forest_bytes, tmp_path):
    path = tmp_path / "short"
    for length in range(2, len(forest_bytes), 997):
        path.write_bytes(forest_bytes[:length])
        with pytest.raises(UsageError, match="byte ") as caught:
            read_pickle(path)
        assert caught.value.code == "adapter.corrupt_model"


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_a_compressed_joblib_file_reads_like_the_plain_one(compress, trained, saved):
    import joblib

    plain_file = saved(trained["pipeline"], "plain", dump=joblib.dump)
    packed = saved(trained["pipeline"], "packed", dump=joblib.dump, compress=compress)
    assert is_pickle(packed.path)
    ours, theirs = read_pickle(packed.path), read_pickle(plain_file.path)
    assert ours.globals == theirs.globals
    assert ours.root.cls == theirs.root.cls == Global("sklearn.pipeline", "Pipeline")
    assert ours.format != theirs.format


def test_arrays_are_read_with_their_values(saved):
    import joblib
    import numpy as np

    values = {
        "floats": np.arange(6, dtype="f8").reshape(2, 3),
        "big endian": np.array([1, 2], dtype=">i4"),
        "texts": np.array(["ab", "c"]),
        "objects": np.array(["x", None, 3], dtype=object),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        "single": np.array(7, dtype="u2"),
        "large": np.zeros(100_000),
        "record": np.zeros(3, dtype=[("a", "f4"), ("b", "i8")]),
    }
    for dump in (None, joblib.dump):
        root = read_pickle(saved(values, dump=dump).path).root
        read = {name: as_array(value) for name, value in root.items()}
        assert read["floats"].values() == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
        assert read["floats"].shape == (2, 3)
        assert read["big endian"].values() == (1, 2)
        assert read["texts"].values() == ("ab", "c")
        assert read["objects"].values() == ("x", None, 3)
        assert read["flags"].values() == (True, False)
        assert read["empty"].shape == (0, 3)
        assert read["single"].values() == (7,)
        assert read["large"].values() is None
        assert read["large"].shape == (100_000,)
        assert read["record"].dtype.size_bytes == 12
