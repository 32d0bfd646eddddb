"""What the head of an XGBoost model means for an image: its requirement, schema, methods, and what to tell people."""

from __future__ import annotations

from collections.abc import Sequence

from corten.adapters.distributions import declares, distribution, installed, numbers
from corten.adapters.xgboost_file import XgboostFile
from corten.core.schema import DType, Schema, Style, Tensor

INPUT, OUTPUT = "inputs", "outputs"
# The same library without CUDA: 5 MB of wheel where `xgboost` has 54 to 250 and pulls NVIDIA's NCCL. From the index:
# its first release, and the first release of either that asks for Python 3.12.
CPU_DISTRIBUTION, _CUDA_DISTRIBUTION = "xgboost-cpu", "xgboost"
_FIRST_FOR_CPU = (2, 1, 1)
_FIRST_FOR_PYTHON_312 = (3, 3, 0)
_PYTHON = "3.13"
# What gives one number a class and row.
_PROBABILITIES = "multi:softprob"


def cpu_requirement(version: tuple[int, ...]) -> str:
    """The release the model was made with; newer ones read older files, and before 2.1.1 there is no build for CPUs."""
    if not version:
        return CPU_DISTRIBUTION
    release = ".".join(str(part) for part in version)
    return f"{CPU_DISTRIBUTION}=={release}" if version >= _FIRST_FOR_CPU else f"{CPU_DISTRIBUTION}>=2.1.1,<3"


def python_for(version: tuple[int, ...]) -> str:
    """The Python a release asks for; empty where any does."""
    return _PYTHON if version >= _FIRST_FOR_PYTHON_312 else ""


def methods_of(file: XgboostFile) -> tuple[str, ...]:
    """The methods to serve, the default first."""
    if file.is_classifier and file.objective != "multi:softmax":
        return ("predict", "predict_proba")
    return ("predict",)


def schema_of(file: XgboostFile, method: str) -> Schema:
    """The rows that go in and what `method` gives for each."""
    # XGBoost computes with float32 whatever it is given.
    inputs = Tensor(INPUT, DType.FLOAT32, (None, file.n_features), file.columns)
    return Schema(Style.ROWS, inputs=(inputs,), outputs=(_output(file, method),))


def _output(file: XgboostFile, method: str) -> Tensor:
    if file.is_classifier and method == "predict_proba":
        return Tensor(OUTPUT, DType.FLOAT32, (None, file.n_targets if file.n_targets > 1 else max(file.n_classes, 2)))
    if file.is_classifier:
        return Tensor(OUTPUT, DType.INT64, (None, file.n_targets) if file.n_targets > 1 else (None,))
    width = file.n_classes if file.objective == _PROBABILITIES else file.n_targets
    return Tensor(OUTPUT, DType.FLOAT32, (None, width) if width > 1 else (None,))


def notes_of(file: XgboostFile, method: str, declared: Sequence[str] = ()) -> list[str]:
    """What was seen in the file."""
    by = f", saved by its scikit-learn {file.estimator}" if file.estimator else ""
    notes = [f"XGBoost {file.booster}, {file.objective}, {file.format}{by}"]
    if file.release:
        taken = (
            ""
            if declares(declared, CPU_DISTRIBUTION)
            else f"; the image gets the build without CUDA, {CPU_DISTRIBUTION}"
        )
        notes.append(f"made with XGBoost {file.release}{taken}")
    named = f", named {', '.join(file.columns[:3])} …" if file.columns else ""
    notes.append(f"{file.n_features} features{named}; null is a missing value")
    if file.is_classifier:
        notes.append(
            f"answers with the class's number, as `{method}` of the classifier does"
            if method == "predict"
            else "answers with the probability of each class"
        )
    if file.best_iteration is not None:
        upto = "answers with the trees up to it" if file.estimator else "a Booster answers with all trees nevertheless"
        notes.append(f"the best iteration is {file.best_iteration}; {upto}")
    return notes


def warnings_of(file: XgboostFile, declared: Sequence[str] = ()) -> list[str]:
    """What may go wrong."""
    found = []
    if any(distribution(line) == _CUDA_DISTRIBUTION for line in declared):
        found.append(
            f"`{_CUDA_DISTRIBUTION}`, as declared, brings CUDA, some 600 MB; `{CPU_DISTRIBUTION}` is it without"
        )
    decided = declares(declared, CPU_DISTRIBUTION)
    if not file.version and not decided:
        found.append("the file does not tell its version of XGBoost: taking the newest; declare `requirements`")
    elif file.version and not decided and file.version < _FIRST_FOR_CPU:
        found.append(f"the model was made with XGBoost {file.release}; the image gets 2.1.1 or newer, which reads it")
    if "c" in file.types:
        names = [name for name, kind in zip(file.columns, file.types, strict=False) if kind == "c"]
        which = ", ".join(names[:5]) or str(file.types.count("c"))
        found.append(f"categorical features ({which}): requests give their codes 0, 1, 2 …, in the order of training")
    here = installed("xgboost") or installed(CPU_DISTRIBUTION)
    if here and not decided and file.version >= _FIRST_FOR_CPU and numbers(here) != file.version:
        found.append(f"XGBoost {here} is installed here; the image gets the model's {file.release}")
    return found
