"""The loader makes what models need and refuses the rest before anything of it is imported or called."""

import io
import os
import pickle
import struct
import subprocess

import pytest

from corten.adapters.allowlist import Verdict, judge
from corten.adapters.standins import Global
from corten.adapters.unpickle import load_pickle
from corten.errors import PolicyError

pytestmark = pytest.mark.examples


class Gadget:
    """Unpickling this calls `function(*args)`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def by_name(module, name, *args):
    """A protocol 4 pickle that calls a global by name, for those that cannot be pickled here."""

    def text(value):
        data = value.encode()
        return b"\x8c" + bytes([len(data)]) + data

    pushed = b"".join(text(arg) for arg in args)
    return b"\x80\x04" + text(module) + text(name) + b"\x93(" + pushed + b"tR."


GADGETS = [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("os", "popen"), ("subprocess", "Popen"),
    ("subprocess", "run"), ("builtins", "eval"), ("builtins", "exec"), ("builtins", "getattr"), ("builtins", "open"),
    ("builtins", "__import__"), ("builtins", "compile"), ("builtins", "type"), ("builtins", "map"),
    ("__builtin__", "eval"), ("commands", "getoutput"), ("importlib", "import_module"), ("runpy", "run_path"),
    ("code", "interact"), ("pty", "spawn"), ("pdb", "run"), ("timeit", "timeit"), ("cProfile", "run"),
    ("webbrowser", "open"), ("shutil", "rmtree"), ("socket", "create_connection"), ("ctypes", "CDLL"),
    ("operator", "attrgetter"), ("operator", "methodcaller"), ("types", "FunctionType"), ("types", "CodeType"),
    ("marshal", "loads"), ("pickle", "loads"), ("_pickle", "loads"), ("joblib", "load"),
    ("joblib.numpy_pickle", "load"), ("joblib.memory", "Memory"), ("numpy", "load"), ("numpy", "fromfile"),
    ("numpy", "save"), ("numpy.lib.npyio", "load"), ("numpy.f2py", "compile"), ("numpy.testing._private.utils", "runstring"),
    ("numpy.ctypeslib", "load_library"), ("pandas", "eval"), ("pandas", "read_pickle"), ("pandas.io.pickle", "read_pickle"),
    ("scipy.stats._distn_infrastructure", "rv_continuous"), ("scipy.io", "savemat"), ("sklearn", "os"),
    ("sklearn.utils", "os.system"), ("sklearn.base", "os.system"), ("sklearn.datasets", "load_files"),
    ("sklearn.datasets", "dump_svmlight_file"), ("sklearn.externals._packaging.version", "parse"),
    ("sklearn.utils._testing", "check_output"), ("sklearn.utils.fixes", "parse_version"),
    ("sklearn.pipeline", "clone"), ("sklearn.base", "warnings"),
    ("sklearn.ensemble._forest", "Parallel"), ("sklearn.ensemble._forest", "issparse"),
    ("sklearn.metrics._classification", "warnings"), ("sklearn.metrics._plot.confusion_matrix", "unique_labels"),
    ("xgboost.tracker", "RabitTracker"), ("collections", "namedtuple"),
    ("functools", "reduce"), ("itertools", "starmap"), ("_io", "FileIO"), ("io", "open"), ("sys", "exit"),
    ("asyncio.unix_events", "_UnixSubprocessTransport.start"), ("torch", "load"), ("__main__", "Thing"), ("mymodule", "Thing"),
    ("builtins", "object.__subclasses__"), ("numpy", "ndarray.tofile"), ("sklearn.ensemble._forest", "__builtins__"),
    ("", ""), ("builtins", ""), ("sklеarn.base", "BaseEstimator"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), GADGETS)
def test_a_global_no_model_needs_is_refused_by_name(module, name, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(by_name(module, name, "x"))
    with pytest.raises(PolicyError) as caught:
        load_pickle(path)
    assert caught.value.code == "adapter.refused_global"
    assert name in caught.value.what


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("shape", ["alone", "in a list", "in an estimator", "in an object array", "in joblib"])
def test_a_gadget_never_fires(protocol, shape, tmp_path, trained):
    import copy

    import joblib
    import numpy as np

    marker = tmp_path / "marker"
    gadget = Gadget(os.system, f"touch {marker}")
    model = copy.copy(trained["linear"])
    model.extra_ = gadget
    value = {
        "alone": gadget,
        "in a list": [1, [gadget]],
        "in an estimator": model,
        "in an object array": np.array([gadget, 1], dtype=object),
        "in joblib": {"a": np.zeros(3), "b": np.array([gadget], dtype=object)},
    }[shape]
    path = tmp_path / "model"
    if shape == "in joblib":
        joblib.dump(value, path, protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(value, protocol=protocol))
    with pytest.raises(PolicyError, match="system"):
        load_pickle(path)
    assert not marker.exists()


@pytest.mark.parametrize("compress", [0, ("zlib", 1), ("gzip", 1), ("bz2", 1), ("xz", 1)])
def test_a_gadget_in_a_compressed_joblib_file_never_fires(compress, tmp_path):
    import joblib

    marker = tmp_path / "marker"
    joblib.dump([Gadget(subprocess.call, ["touch", str(marker)])], tmp_path / "model", compress=compress)
    with pytest.raises(PolicyError, match=r"subprocess\.call"):
        load_pickle(tmp_path / "model")
    assert not marker.exists()


def test_only_the_first_of_stacked_pickles_is_loaded(tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / "model"
    path.write_bytes(pickle.dumps([1]) + pickle.dumps(Gadget(os.system, f"touch {marker}")))
    assert load_pickle(path) == [1]
    assert not marker.exists()


def test_memo_confusion_does_not_hide_a_global(tmp_path):
    # PUT over an entry of the memo after a scanner has looked at it: the loader looks when it resolves.
    data = b"\x80\x02X\x05\x00\x00\x00mathsq\x00X\x02\x00\x00\x00osq\x01X\x06\x00\x00\x00systemq\x020h\x01h\x02\x93."
    path = tmp_path / "model"
    path.write_bytes(data)
    with pytest.raises(PolicyError, match=r"os\.system"):
        load_pickle(path)


def test_bytes_of_old_protocols_load_and_other_codecs_do_not(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(pickle.dumps(b"\x00\xff\n", protocol=2))
    assert load_pickle(path) == b"\x00\xff\n"
    path.write_bytes(by_name("_codecs", "encode", "x", "zlib"))
    with pytest.raises(PolicyError, match="zlib"):
        load_pickle(path)


NAMES = [
    "pipeline", "forest", "boosting", "linear", "several targets", "clusters", "outliers", "neighbours", "search", "fortran",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["pickle 2", "pickle 5", "joblib", "joblib, xz", "joblib, zlib"])
def test_a_loaded_model_answers_as_the_saved_one(name, how, trained, saved):
    import joblib
    import numpy as np

    model = trained[name]
    if how.startswith("pickle"):
        source = saved(model, protocol=int(how[-1]))
    else:
        source = saved(model, dump=joblib.dump, compress=(how[8:], 3) if "," in how else 0)
    loaded = load_pickle(source.path)
    rows = np.random.default_rng(1).normal(size=(20, model.n_features_in_))
    assert np.array_equal(loaded.predict(rows), model.predict(rows))


def test_arrays_keep_type_order_and_values(saved):
    import joblib
    import numpy as np

    values = {
        "c": np.arange(12.0).reshape(3, 4),
        "f": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "big endian": np.array([1, 2, 3], dtype=">f8"),
        "empty": np.zeros((0, 2)),
        "single": np.array(3),
        "texts": np.array(["a", "bc"]),
        "objects": np.array([["a", None]], dtype=object),
        "dates": np.array(["2020-01-01"], dtype="M8[D]"),
        "masked": np.ma.array([1, 2], mask=[True, False]),
        "record": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        "generator": np.random.default_rng(3),
    }
    loaded = load_pickle(saved(values, dump=joblib.dump).path)
    assert loaded.keys() == values.keys()
    for name in values.keys() - {"generator"}:
        assert np.array_equal(loaded[name], values[name])
        assert loaded[name].dtype == values[name].dtype.newbyteorder("=")
    assert loaded["f"].flags.f_contiguous
    assert loaded["generator"].random() == values["generator"].random()


def test_an_array_longer_than_its_file_is_an_error(saved):
    import joblib
    import numpy as np

    source = saved(np.arange(1000.0), dump=joblib.dump)
    source.path.write_bytes(source.path.read_bytes()[:-1500])
    with pytest.raises(pickle.UnpicklingError, match="before its array"):
        load_pickle(source.path)


def test_what_joblib_loads_we_load(trained, saved):
    import joblib
    import numpy as np

    source = saved(trained["boosting"], dump=joblib.dump)
    rows = np.ones((3, 4))
    assert np.array_equal(load_pickle(source.path).predict_proba(rows), joblib.load(source.path).predict_proba(rows))


@pytest.mark.slow
def test_every_global_of_every_estimator_of_scikit_learn_is_allowed():
    """All estimators that can be fitted with defaults on two small data sets: none of them may be refused."""
    import warnings

    import numpy as np
    from sklearn.utils import all_estimators

    rng = np.random.default_rng(0)
    rows, labels = np.abs(rng.normal(size=(40, 3))) + 0.1, np.arange(40) % 3
    refused, fitted = set(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _, kind in all_estimators():
            try:
                model = kind().fit(rows, labels)
            except (TypeError, ValueError, AttributeError, NotImplementedError, ImportError):
                continue  # wants parameters or other data
            fitted += 1
            names = []
            unpickler = pickle._Unpickler(io.BytesIO(pickle.dumps(model)))
            unpickler.find_class = lambda module, name, names=names: (
                names.append(Global(module, name)) or pickle.Unpickler(io.BytesIO()).find_class(module, name)
            )
            unpickler.load()
            refused |= {str(found) for found in names if judge(found) is not Verdict.ALLOWED}
    assert fitted > 120
    assert refused == set()


def test_what_a_module_imports_is_not_the_modules_own(tmp_path):
    # sklearn.linear_model._base has numpy's and scipy's functions among its names.
    path = tmp_path / "model"
    for name in ("np", "sp", "linalg", "Parallel", "Real"):
        path.write_bytes(by_name("sklearn.linear_model._base", name))
        with pytest.raises((PolicyError, AttributeError)):
            load_pickle(path)


def test_a_broken_file_is_the_unpicklers_error(tmp_path):
    path = tmp_path / "model"
    for data in (b"\x80\x04", b"", struct.pack("<I", 7)):
        path.write_bytes(data)
        with pytest.raises((pickle.UnpicklingError, EOFError)):
            load_pickle(path)
