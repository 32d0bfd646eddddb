"""Write a loaded scikit-learn, XGBoost or LightGBM model as ONNX, so that it computes what the original computes.

skl2onnx and onnxmltools do the writing; here is what they leave open: types, names, and where trees round. scikit-learn
rounds a tree's inputs to float32 and adds up its leaves in float64, LightGBM compares in float64, XGBoost does all in
float32. The converters' usual float32 model flips rows that lie near a split behind a scaler (measured: 44 of 2,569
labels), so all that is not XGBoost's is written in float64, with the rounding put where the original has it.

Needs the model's own packages and the converters: it runs in the throw-away image of `ops.acceleration`, or in the
process that trained the model.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from corten.adapters.base import RowsModel
from corten.adapters.boosters import LightgbmModel, XgboostModel
from corten.adapters.converted import Column
from corten.adapters.sklearn import SklearnModel
from corten.adapters.sklearn_frame import parts, text_columns
from corten.core.schema import DType, Tensor

OUTPUT = "outputs"
# Newest operator sets that every kept release of ONNX Runtime has; fixed, so that the same model is the same bytes.
_OPSETS = {"": 18, "ai.onnx.ml": 3}
_TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
# A loop over the rows in the runtime: it was slower than the original wherever it was measured (nearest neighbours).
_SLOW = frozenset({"Scan", "Loop"})
_METHODS = ("predict", "predict_proba", "transform")
_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier")
_BOOSTER_ROOTS = ("xgboost", "lightgbm")


class NotConvertibleError(Exception):
    """The model has no equal in ONNX; the message says why, for people."""


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
        _compare_exactly(made, _histogram_splits(histograms))
    else:
        _round_before_trees(made)
        _send_missing(made, _final(estimator))
    if type(_final(estimator)).__name__ in _FORESTS:
        _vote(made, _final(estimator))
    else:
        _widen_after_trees(made)
    return made


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
    return _exact_lightgbm(made, estimator.booster_)


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
    made = _exact_lightgbm(made, model.booster)
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


# Where trees round


def _trees(made: Any) -> Iterator[tuple[int, Any]]:
    """Places and nodes of tree ensembles, the last first, so that nodes can be put in around them."""
    for place in range(len(made.graph.node) - 1, -1, -1):
        if made.graph.node[place].op_type in _TREES:
            yield place, made.graph.node[place]


def _round_before_trees(made: Any) -> None:
    """scikit-learn's trees see float32(x): round what reaches them, and keep thresholds and sums in float64."""
    from onnx import TensorProto, helper

    for place, node in _trees(made):
        source, rounded, back = node.input[0], f"corten_rounded_{place}", f"corten_float64_{place}"
        made.graph.node.insert(place, helper.make_node("Cast", [source], [rounded], to=TensorProto.FLOAT))
        made.graph.node.insert(place + 1, helper.make_node("Cast", [rounded], [back], to=TensorProto.DOUBLE))
        made.graph.node[place + 2].input[0] = back


def _widen_after_trees(made: Any) -> None:
    """Trees give float32 whatever they add up (ai.onnx.ml 3); what follows them in the graph expects float64."""
    from onnx import TensorProto, helper

    for place, node in _trees(made):
        output = node.output[-1]
        node.output[len(node.output) - 1] = narrow = f"corten_narrow_{place}"
        made.graph.node.insert(place + 1, helper.make_node("Cast", [narrow], [output], to=TensorProto.DOUBLE))


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


def _final(estimator: Any) -> Any:
    steps = getattr(estimator, "steps", None)
    return steps[-1][1] if steps else estimator


def _send_missing(made: Any, estimator: Any) -> None:
    """Send missing values where each of scikit-learn's splits learned to; the converter sends all to the right."""
    import numpy as np

    trees = [estimator] if hasattr(estimator, "tree_") else list(np.ravel(getattr(estimator, "estimators_", ())))
    learned = [getattr(getattr(tree, "tree_", None), "missing_go_to_left", None) for tree in trees]
    ensembles = [node for _, node in _trees(made)]
    if len(ensembles) != 1 or not learned or any(one is None for one in learned):
        return  # releases before 1.3 refuse missing values
    attributes = {attribute.name: attribute for attribute in ensembles[0].attribute}
    places = zip(attributes["nodes_treeids"].ints, attributes["nodes_nodeids"].ints, strict=True)
    sent = [int(learned[tree][node]) if tree < len(learned) else 0 for tree, node in places]
    attributes["nodes_missing_value_tracks_true"].ints[:] = sent


def _vote(made: Any, forest: Any) -> None:
    """Let a forest's class be the one with the largest sum over its trees, the first of equal ones, as scikit-learn's.

    The operator's own label of two classes is `probability > 0.5` after adding up shares such as 1/30, so that a tie
    falls on the wrong side. Sums of whole votes are exact where leaves are pure.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    if not isinstance(forest.classes_, np.ndarray):
        raise NotConvertibleError("a forest for several targets has no counterpart in ONNX")
    ((_, node),) = _trees(made)
    label, scores = node.output
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    modes = zip(given["nodes_treeids"], given["nodes_nodeids"], given["nodes_modes"], strict=True)
    leaves = [(tree, leaf) for tree, leaf, mode in modes if mode == b"LEAF"]
    trees, nodes, classes, votes = zip(*_votes(forest, leaves), strict=True)
    attributes = {name: value for name, value in given.items() if name.startswith("nodes_") and name != "nodes_values"}
    attributes |= {"target_treeids": trees, "target_nodeids": nodes, "target_ids": classes}
    attributes["nodes_values_as_tensor"] = numpy_helper.from_array(np.array(given["nodes_values"], dtype=np.float64))
    attributes["target_weights_as_tensor"] = numpy_helper.from_array(np.array(votes))
    attributes["n_targets"] = len(forest.classes_)
    counted = helper.make_node(
        "TreeEnsembleRegressor", list(node.input), ["corten_votes"], domain="ai.onnx.ml", **attributes
    )
    node.CopyFrom(counted)
    made.graph.initializer.extend(
        [
            _constant("corten_classes", forest.classes_),
            numpy_helper.from_array(np.array(float(len(forest.estimators_))), "corten_trees"),
        ]
    )
    made.graph.node.extend(
        [
            helper.make_node("ArgMax", ["corten_votes"], ["corten_first"], axis=1, keepdims=0),
            helper.make_node("Gather", ["corten_classes", "corten_first"], [label]),
            helper.make_node("Cast", ["corten_votes"], ["corten_votes64"], to=TensorProto.DOUBLE),
            helper.make_node("Div", ["corten_votes64", "corten_trees"], [scores]),
        ]
    )
    _need_tensors(made)


def _votes(forest: Any, leaves: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int, float]]:
    """What each leaf says of each class (tree, leaf, class, share): the tree's own probability, in float64."""
    shares = []
    for tree in forest.estimators_:
        counts = tree.tree_.value[:, 0, :]  # since 1.3 shares already
        shares.append((counts / counts.sum(axis=1, keepdims=True)).tolist())
    for tree, leaf in leaves:
        yield from ((tree, leaf, index, share) for index, share in enumerate(shares[tree][leaf]) if share)


def _constant(name: str, values: Any) -> Any:
    """An initializer of class labels; texts as ONNX has them."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    if values.dtype.kind in "OU":
        texts: Any = [str(value).encode() for value in values]
        return helper.make_tensor(name, TensorProto.STRING, [len(texts)], texts)
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def _need_tensors(made: Any) -> None:
    for opset in made.opset_import:
        if opset.domain == "ai.onnx.ml":
            opset.version = _OPSETS["ai.onnx.ml"]  # the first that has trees in float64


def _compare_exactly(made: Any, splits: Iterable[tuple[int, float]]) -> None:
    """Give trees their thresholds in float64: the converters write what float32 leaves of them."""
    import numpy as np
    from onnx import helper, numpy_helper

    exact: dict[tuple[int, float], set[float]] = {}
    for feature, threshold in splits:
        exact.setdefault((feature, float(np.float32(threshold))), set()).add(threshold)
    for _, node in _trees(made):
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        nodes = zip(given["nodes_featureids"], given["nodes_values"], given["nodes_modes"], strict=True)
        values = [0.0 if mode == b"LEAF" else _only(exact.get((place, value), set())) for place, value, mode in nodes]
        for name in ("nodes_values", "nodes_hitrates", "class_weights", "target_weights", "base_values"):
            if name in given:
                numbers = np.array(values if name == "nodes_values" else given[name], dtype=np.float64)
                node.attribute.remove(next(one for one in node.attribute if one.name == name))
                node.attribute.append(helper.make_attribute(f"{name}_as_tensor", numpy_helper.from_array(numbers)))
    _need_tensors(made)


def _only(exact: set[float]) -> float:
    if len(exact) != 1:
        raise NotConvertibleError("two of its splits differ by less than float32 can tell")
    return next(iter(exact))


def _histogram_splits(estimators: Iterable[Any]) -> Iterator[tuple[int, float]]:
    for estimator in estimators:
        for trees in estimator._predictors:  # noqa: SLF001 - there is no public way to its trees
            for tree in trees:
                if tree.nodes["is_categorical"].any():
                    raise NotConvertibleError("categorical splits have no counterpart in ONNX")
                nodes = tree.nodes[tree.nodes["is_leaf"] == 0]
                yield from zip(nodes["feature_idx"].tolist(), nodes["num_threshold"].tolist(), strict=True)


def _lightgbm_splits(booster: Any) -> Iterator[tuple[int, float]]:
    for tree in booster.dump_model()["tree_info"]:
        pending = [tree["tree_structure"]]
        while pending:
            node = pending.pop()
            if "split_feature" in node:
                if node["decision_type"] != "<=":
                    raise NotConvertibleError("categorical splits have no counterpart in ONNX")
                yield int(node["split_feature"]), float(node["threshold"])
                pending += [node["left_child"], node["right_child"]]


def _exact_lightgbm(made: Any, booster: Any) -> Any:
    """The converter's model with LightGBM's own thresholds and rows in float64."""
    from onnx import TensorProto

    _compare_exactly(made, _lightgbm_splits(booster))
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return made


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
