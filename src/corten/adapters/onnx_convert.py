"""Write a loaded scikit-learn, XGBoost or LightGBM model as ONNX, so that it computes what the original computes.

skl2onnx and onnxmltools do the writing; here is what they leave open: types, names, and (`onnx_trees`) where trees
round. scikit-learn rounds a tree's inputs to float32 and adds up its leaves in float64, LightGBM compares in float64,
XGBoost does all in float32. The converters' usual float32 model flips rows that lie near a split behind a scaler
(measured: 44 of 2,569 labels), so all that is not XGBoost's is written in float64, with the rounding put where the
original has it.

Needs the model's own packages and the converters: it runs in the throw-away image of `ops.acceleration`, or in the
process that trained the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from corten.adapters.base import RowsModel
from corten.adapters.boosters import LightgbmModel, XgboostModel
from corten.adapters.converted import Column, NotConvertibleError
from corten.adapters.onnx_trees import (
    TREES_OPSET,
    compare_exactly,
    exact_lightgbm,
    histogram_splits,
    round_before_trees,
    send_missing,
    vote,
    widen_after_trees,
)
from corten.adapters.sklearn import SklearnModel
from corten.adapters.sklearn_frame import parts, text_columns
from corten.core.schema import DType, Tensor

OUTPUT = "outputs"
# Newest operator sets that every kept release of ONNX Runtime has; fixed, so that the same model is the same bytes.
_OPSETS = {"": 18, "ai.onnx.ml": TREES_OPSET}
# A loop over the rows in the runtime: it was slower than the original wherever it was measured (nearest neighbours).
_SLOW = frozenset({"Scan", "Loop"})
_METHODS = ("predict", "predict_proba", "transform")
_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier")
_BOOSTER_ROOTS = ("xgboost", "lightgbm")


def to_onnx(model: RowsModel, method: str) -> Any:
    """An `onnx.ModelProto` of a loaded model: inputs as its schema has them, one output called `outputs`.

    Raises NotConvertibleError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _written(model, method)
    except NotConvertibleError:
        raise
    except Exception as error:  # converters raise whatever comes to hand for what they do not know
        told = str(error).strip().partition("\n")[0][:200]
        raise NotConvertibleError(f"the converter does not know it: {type(error).__name__}: {told}") from error


def _written(model: RowsModel, method: str) -> Any:
    if method not in _METHODS:
        raise NotConvertibleError(f"`{method}` has no counterpart in ONNX")
    match model:
        case XgboostModel():
            made, wanted = _xgboost_booster(model, method)
        case LightgbmModel():
            made, wanted = _lightgbm_booster(model)
        case SklearnModel():
            made, wanted = _estimator(model, method)
        case _:
            raise NotConvertibleError(f"`{type(model).__name__}` is not a kind of model that is converted")
    _finish(made, wanted, model.schema.outputs[0])
    return made


# What the libraries write


def _estimator(model: SklearnModel, method: str) -> tuple[Any, str]:
    """The model of an estimator, and which of its outputs answers."""
    estimator = model.estimator
    root = type(estimator).__module__.partition(".")[0]
    if root in _BOOSTER_ROOTS:
        made = _wrapper(estimator, root, model.schema.inputs[0])
    else:
        made = _sklearn(estimator, model.schema.inputs[0])
    return made, _answering(made, method)


def _sklearn(estimator: Any, tensor: Tensor) -> Any:
    import skl2onnx

    pipeline = _with_boosters(estimator)
    options = {id(pipeline): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    made = skl2onnx.to_onnx(
        pipeline, initial_types=_initial_types(estimator, tensor), options=options, target_opset=_OPSETS
    )
    _impute_exactly(made, estimator)
    histograms = [part for part in parts(estimator) if hasattr(part, "_baseline_prediction")]
    others = any(hasattr(part, "tree_") for part in parts(estimator))
    if histograms and others:
        raise NotConvertibleError("it has trees that compare in float32 and trees that compare in float64")
    if histograms:
        compare_exactly(made, histogram_splits(histograms))
    else:
        round_before_trees(made)
        send_missing(made, _final(estimator))
    if type(_final(estimator)).__name__ in _FORESTS:
        vote(made, _final(estimator))
    else:
        widen_after_trees(made)
    return made


def _final(estimator: Any) -> Any:
    steps = getattr(estimator, "steps", None)
    return steps[-1][1] if steps else estimator


def _impute_exactly(made: Any, estimator: Any) -> None:
    """Write out what an imputer does: ONNX Runtime has the operator for float32 only."""
    import numpy as np
    from onnx import helper, numpy_helper

    known = [np.asarray(part.statistics_, dtype=np.float64) for part in parts(estimator) if _imputes_numbers(part)]
    for place in range(len(made.graph.node) - 1, -1, -1):
        node = made.graph.node[place]
        if node.op_type != "Imputer":
            continue
        given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        written = np.array(given.get("imputed_value_floats", ()), dtype=np.float32)
        exact = [one for one in known if np.array_equal(one.astype(np.float32), written)]
        if not exact or not np.isnan(given.get("replaced_value_float", 0.0)):
            raise NotConvertibleError("its imputer has no counterpart in ONNX Runtime")
        source, target = node.input[0], node.output[0]
        made.graph.initializer.append(numpy_helper.from_array(exact[0][None, :], f"corten_imputed_{place}"))
        node.CopyFrom(helper.make_node("IsNaN", [source], [f"corten_missing_{place}"]))
        filled = helper.make_node("Where", [f"corten_missing_{place}", f"corten_imputed_{place}", source], [target])
        made.graph.node.insert(place + 1, filled)


def _imputes_numbers(part: Any) -> bool:
    import numpy as np

    learned = getattr(part, "statistics_", None)  # a pipeline also keeps the parts it was made of, not fitted
    return type(part).__name__ == "SimpleImputer" and learned is not None and np.asarray(learned).dtype.kind == "f"


def _initial_types(estimator: Any, tensor: Tensor) -> list[tuple[str, Any]]:
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    if tensor.dtype is DType.STRING:
        return [(tensor.name, StringTensorType([None, 1]))]
    if tensor.dtype is DType.JSON:
        if not tensor.columns:
            raise NotConvertibleError("its columns are of several types and have no names")
        texts = text_columns(estimator)
        return [(name, (StringTensorType if name in texts else DoubleTensorType)([None, 1])) for name in tensor.columns]
    if len(tensor.shape) != 2 or tensor.shape[1] is None:
        raise NotConvertibleError("the number of its features is not known")
    return [(tensor.name, DoubleTensorType([None, tensor.shape[1]]))]


def _with_boosters(estimator: Any) -> Any:
    """A pipeline that ends with a booster, with the rounding to float32 the booster does itself written out."""
    steps = getattr(estimator, "steps", None)
    if not steps or type(steps[-1][1]).__module__.partition(".")[0] not in _BOOSTER_ROOTS:
        return estimator
    import numpy as np
    from skl2onnx.sklapi import CastTransformer
    from sklearn.pipeline import Pipeline

    final = steps[-1][1]
    if type(final).__module__.startswith("lightgbm"):
        raise NotConvertibleError("LightGBM in a pipeline compares in float64, its converter writes float32")
    _register_xgboost()
    return Pipeline([*steps[:-1], ("corten_float32", CastTransformer(dtype=np.float32)), steps[-1]])


def _register_xgboost() -> None:
    import xgboost
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    update_registered_converter(
        xgboost.XGBClassifier,
        "XgboostClassifier",
        calculate_linear_classifier_output_shapes,
        convert_xgboost,
        options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
    )
    update_registered_converter(
        xgboost.XGBRegressor, "XgboostRegressor", calculate_linear_regressor_output_shapes, convert_xgboost
    )


def _wrapper(estimator: Any, root: str, tensor: Tensor) -> Any:
    """A pickled `XGBClassifier`, `LGBMRegressor` ...: its own converter takes it whole, class labels included."""
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [(tensor.name, FloatTensorType([None, tensor.shape[-1]]))]
    if root == "xgboost":
        _forget_names(estimator.get_booster())
        made = onnxmltools.convert_xgboost(estimator, name=OUTPUT, initial_types=types)
        _take_in(made, tensor)
        return made
    made = onnxmltools.convert_lightgbm(estimator, name=OUTPUT, initial_types=types, zipmap=False)
    return exact_lightgbm(made, estimator.booster_)


def _xgboost_booster(model: XgboostModel, method: str) -> tuple[Any, str]:
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    file, tensor = model.file, model.schema.inputs[0]
    if file.booster != "gbtree" or "c" in file.types:
        raise NotConvertibleError(f"XGBoost's {file.booster} and categorical features have no counterpart in ONNX")
    booster = model.booster[: model.rounds[1]] if model.rounds[1] else model.booster.copy()
    _forget_names(booster)
    made = onnxmltools.convert_xgboost(
        booster, name=OUTPUT, initial_types=[(tensor.name, FloatTensorType([None, tensor.shape[-1]]))]
    )
    _take_in(made, tensor)
    if file.is_classifier:
        return made, _answering(made, method)
    return made, _probability(made, several=len(model.schema.outputs[0].shape) > 1)


def _lightgbm_booster(model: LightgbmModel) -> tuple[Any, str]:
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    tensor = model.schema.inputs[0]
    made = onnxmltools.convert_lightgbm(
        model.booster,
        name=OUTPUT,
        initial_types=[(tensor.name, FloatTensorType([None, tensor.shape[-1]]))],
        zipmap=False,
    )
    made = exact_lightgbm(made, model.booster)
    return made, _probability(made, several=len(model.schema.outputs[0].shape) > 1)


def _forget_names(booster: Any) -> None:
    # The converter reads features as `f0`, `f1` ... out of the booster's text.
    booster.feature_names = None


# Names


def _answering(made: Any, method: str) -> str:
    """The output of a converted model that says what a method says."""
    names = [output.name for output in made.graph.output]
    if len(names) == 1:
        return str(names[0])
    if method == "transform":
        raise NotConvertibleError(f"it has {len(names)} outputs")
    return str(names[0 if method == "predict" else 1])


def _probability(made: Any, *, several: bool) -> str:
    """A booster's own answer: the number of a regression, the probabilities, or of two classes the second's."""
    from onnx import helper, numpy_helper

    names = [output.name for output in made.graph.output]
    if len(names) == 1 or several:
        return str(names[-1])
    import numpy as np

    made.graph.initializer.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "corten_second"))
    made.graph.node.append(helper.make_node("Gather", [names[-1], "corten_second"], ["corten_taken"], axis=1))
    return "corten_taken"


def _finish(made: Any, wanted: str, tensor: Tensor) -> None:
    """Leave one output, called as in the schema; take out all that depends on when and where it was made."""
    from onnx import TensorProto, helper

    graph = made.graph
    types = {output.name: output.type.tensor_type.elem_type for output in graph.output}
    graph.node.append(helper.make_node("Identity", [wanted], [OUTPUT], name="corten_answer"))
    del graph.output[:]
    del graph.value_info[:]  # some declare types that the changed trees no longer give
    kind = types.get(wanted, 0)
    if tensor.dtype is DType.FLOAT64 and kind in (TensorProto.FLOAT, TensorProto.DOUBLE, 0):
        graph.node[-1].CopyFrom(
            helper.make_node("Cast", [wanted], [OUTPUT], name="corten_answer", to=TensorProto.DOUBLE)
        )
        kind = TensorProto.DOUBLE
    elif wanted == "corten_taken" or not kind:
        kind = TensorProto.FLOAT
    graph.output.append(helper.make_tensor_value_info(OUTPUT, kind, None))
    _drop_unused(graph)
    if slow := sorted({node.op_type for node in graph.node} & _SLOW):
        raise NotConvertibleError(f"its ONNX form is slower than the original (operator {', '.join(slow)})")
    graph.name = "corten"
    made.doc_string = graph.doc_string = ""


def _drop_unused(graph: Any) -> None:
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [one for one in graph.initializer if one.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _take_in(made: Any, tensor: Tensor) -> None:
    """Rows in the type requests have them, rounded to the float32 XGBoost rounds them to."""
    from onnx import TensorProto, helper

    if tensor.dtype is not DType.FLOAT64:
        return
    graph = made.graph
    for node in graph.node:
        for number, name in enumerate(node.input):
            if name == tensor.name:
                node.input[number] = "corten_float32"
    graph.node.insert(0, helper.make_node("Cast", [tensor.name], ["corten_float32"], to=TensorProto.FLOAT))
    graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def columns_of(made: Any, tensor: Tensor) -> Sequence[Column]:
    """How a table's columns go into the model's inputs; empty for rows of numbers or texts alone."""
    from onnx import TensorProto

    if tensor.dtype is not DType.JSON:
        return ()
    return tuple(
        Column(name, one.name, text=one.type.tensor_type.elem_type == TensorProto.STRING)
        for name, one in zip(tensor.columns, made.graph.input, strict=True)
    )
