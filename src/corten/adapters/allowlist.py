"""Which globals a model file may name. One list for the builder's report and for the loader that enforces it.

An allow-list: block-lists are structurally bypassable (of 41 malicious files, scanners with block-lists passed 14 and
23). Names with a dot are never allowed: `STACK_GLOBAL` walks attributes, so `sklearn.x` + `os.system` would reach out
of the module. What the loader imports must also *be* what the name says: see `unpickle`.
"""

from __future__ import annotations

import sys
from enum import Enum

from corten.adapters.standins import Global


class Verdict(Enum):
    """What is thought of a global."""

    ALLOWED = "allowed"
    UNSAFE = "unsafe"  # of a known package or the standard library, but nothing a model needs
    UNKNOWN = "unknown"  # of the user's own code, or a package not on the list


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Exact names outside of the packages below. Nothing here runs code it is handed, reads files or opens connections.
_NAMES: dict[str, frozenset[str]] = {
    "builtins": _words("bool bytearray bytes complex dict float frozenset int list object range set slice str tuple"),
    "collections": frozenset({"Counter", "OrderedDict", "defaultdict", "deque"}),
    "copyreg": frozenset({"_reconstructor"}),
    "_codecs": frozenset({"encode"}),
    "datetime": frozenset({"date", "datetime", "time", "timedelta", "timezone"}),
    "decimal": frozenset({"Decimal"}),
    "fractions": frozenset({"Fraction"}),
    "functools": frozenset({"partial"}),
    "types": frozenset({"SimpleNamespace"}),
    "uuid": frozenset({"UUID"}),
    "joblib.numpy_pickle": frozenset({"NumpyArrayWrapper"}),
    "numpy": _words(
        "dtype ndarray matrix bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc uintc longlong"
        " ulonglong float16 float32 float64 longdouble complex64 complex128 str_ bytes_ object_ void datetime64"
        " timedelta64 number integer floating mean median sum max min amax amin nanmean nanmedian"
        # ufuncs people put into a FunctionTransformer
        " abs absolute add cbrt ceil clip cos divide exp exp2 expm1 fabs floor log log10 log1p log2 maximum minimum"
        " multiply negative power reciprocal rint sign sin sqrt square subtract tan tanh"
    ),
    "numpy.ma": frozenset({"MaskedArray"}),
    "numpy.ma.core": frozenset({"MaskedArray", "_mareconstruct"}),
    "numpy.random._pickle": frozenset({"__bit_generator_ctor", "__generator_ctor", "__randomstate_ctor"}),
    "numpy.random._mt19937": frozenset({"MT19937"}),
    "numpy.random._pcg64": frozenset({"PCG64", "PCG64DXSM"}),
    "numpy.random._philox": frozenset({"Philox"}),
    "numpy.random._sfc64": frozenset({"SFC64"}),
    "numpy.random.mtrand": frozenset({"RandomState"}),
    "numpy.random.bit_generator": frozenset({"SeedSequence", "__pyx_unpickle_SeedSequence"}),
    "scipy._lib.array_api_compat.numpy._aliases": frozenset({"asarray"}),
    "scipy.interpolate._bsplines": frozenset({"BSpline"}),
    "scipy.interpolate._interpolate": frozenset({"PPoly", "interp1d"}),
    "scipy.interpolate.interpolate": frozenset({"interp1d"}),
    "scipy.spatial._ckdtree": frozenset({"cKDTree"}),
    "scipy.spatial._kdtree": frozenset({"KDTree"}),
    "pandas": frozenset({"DataFrame", "Index", "RangeIndex", "Series"}),
    "pandas.core.arrays.categorical": frozenset({"Categorical"}),
    "pandas.core.dtypes.dtypes": frozenset({"CategoricalDtype"}),
    "pandas.core.frame": frozenset({"DataFrame"}),
    "pandas.core.indexes.base": frozenset({"Index", "_new_Index"}),
    "pandas.core.indexes.range": frozenset({"RangeIndex"}),
    "pandas.core.internals.managers": frozenset({"BlockManager", "SingleBlockManager"}),
    "pandas.core.series": frozenset({"Series"}),
    "pandas._libs.internals": frozenset({"_unpickle_block"}),
}
# Old spellings of numpy's and scipy's modules; `numpy.core` is numpy 1, `numpy._core` numpy 2.
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray"] = frozenset({"_reconstruct", "scalar"})
    _NAMES[f"{_core}.numeric"] = frozenset({"_frombuffer"})

# Classes of these packages are allowed, functions are not, but for `_FUNCTION_MODULES` and Cython's unpicklers.
_CLASS_ROOTS = _words("sklearn xgboost lightgbm catboost imblearn category_encoders feature_engine skrub")
_CLASS_MODULES = ("scipy.sparse.", "numpy.dtypes")
_NOT_WITHIN = (
    "sklearn.datasets", "sklearn.externals", "sklearn.tests", "sklearn.conftest", "sklearn.utils._testing",
    "sklearn.utils._mocking", "sklearn.utils.parallel", "sklearn.utils.fixes",
    "xgboost.tracker", "xgboost.spark", "xgboost.dask", "xgboost.testing", "lightgbm.dask",
    "catboost.widget", "catboost.utils", "imblearn.utils.testing", "skrub.datasets", "skrub._datasets",
    "scipy.sparse.linalg", "scipy.sparse.tests",
)  # fmt: skip
# Pure functions estimators keep as parameters: scores, kernels, distances.
_FUNCTION_MODULES = (
    "sklearn.cluster._kmeans", "sklearn.feature_selection._mutual_info",
    "sklearn.feature_selection._univariate_selection", "sklearn.metrics._classification",
    "sklearn.metrics._dist_metrics", "sklearn.metrics._ranking", "sklearn.metrics._regression",
    "sklearn.metrics.cluster", "sklearn.metrics.pairwise", "sklearn.neighbors._ball_tree",
    "sklearn.neighbors._kd_tree",
)  # fmt: skip
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg", "commands": "subprocess", "Queue": "queue"}
_CYTHON = "__pyx_unpickle_"

# Packages a model file may name, by the distribution that has them. What is not here is taken for the user's own code.
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "imblearn": "imbalanced-learn",
    "category_encoders": "category-encoders",
    "feature_engine": "feature-engine",
    "skrub": "skrub",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
    "joblib": "joblib",
}


def modern(found: Global) -> Global:
    """The name as Python 3 spells it: protocols 0 to 2 write Python 2's (`copy_reg`), and unpicklers translate."""
    return Global(_PYTHON_2.get(found.module, found.module), found.name)


def judge(found: Global) -> Verdict:
    """Whether a model file may name this."""
    found = modern(found)
    if "." in found.name or not found.module.isascii() or not found.name.isidentifier():
        return Verdict.UNSAFE
    if found.name in _NAMES.get(found.module, ()) or may_be_class(found) or may_be_function(found):
        return Verdict.ALLOWED
    if found.root in DISTRIBUTIONS or (found.root in sys.stdlib_module_names and found.root != "__main__"):
        return Verdict.UNSAFE
    # Only Windows has it, so it is not among this machine's modules.
    if found.root == "nt":
        return Verdict.UNSAFE
    return Verdict.UNKNOWN


def is_named(found: Global) -> bool:
    """Whether it is on the list by its own name."""
    return found.name in _NAMES.get(found.module, ())


def may_be_class(found: Global) -> bool:
    """Whether it is allowed provided that it is a class defined in its package."""
    # A module also has the modules it imports (`sklearn.utils.os`).
    if found.module.startswith(_NOT_WITHIN) or found.name in sys.stdlib_module_names:
        return False
    return found.root in _CLASS_ROOTS or found.module.startswith(_CLASS_MODULES)


def may_be_function(found: Global) -> bool:
    """Whether it is allowed as a function defined in its package."""
    if found.root not in _CLASS_ROOTS or found.module.startswith(_NOT_WITHIN):
        return False
    return found.name.startswith(_CYTHON) or found.module.startswith(_FUNCTION_MODULES)
