"""Trees in an ONNX graph that round, compare, vote and send missing values as the original's do.

scikit-learn rounds a tree's inputs to float32 and adds up its leaves in float64, its histogram boosting and LightGBM
compare in float64; the converters write float32 throughout. Each function changes the graph in place, and raises
NotConvertibleError for what has no equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from corten.adapters.converted import NotConvertibleError

TREES_OPSET = 3  # of ai.onnx.ml: the first that has trees in float64
_TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")


def _trees(made: Any) -> Iterator[tuple[int, Any]]:
    """Places and nodes of tree ensembles, the last first, so that nodes can be put in around them."""
    for place in range(len(made.graph.node) - 1, -1, -1):
        if made.graph.node[place].op_type in _TREES:
            yield place, made.graph.node[place]


def round_before_trees(made: Any) -> None:
    """scikit-learn's trees see float32(x): round what reaches them, and keep thresholds and sums in float64."""
    from onnx import TensorProto, helper

    for place, node in _trees(made):
        source, rounded, back = node.input[0], f"corten_rounded_{place}", f"corten_float64_{place}"
        made.graph.node.insert(place, helper.make_node("Cast", [source], [rounded], to=TensorProto.FLOAT))
        made.graph.node.insert(place + 1, helper.make_node("Cast", [rounded], [back], to=TensorProto.DOUBLE))
        made.graph.node[place + 2].input[0] = back


def widen_after_trees(made: Any) -> None:
    """Trees give float32 whatever they add up (ai.onnx.ml 3); what follows them in the graph expects float64."""
    from onnx import TensorProto, helper

    for place, node in _trees(made):
        output = node.output[-1]
        node.output[len(node.output) - 1] = narrow = f"corten_narrow_{place}"
        made.graph.node.insert(place + 1, helper.make_node("Cast", [narrow], [output], to=TensorProto.DOUBLE))


def send_missing(made: Any, estimator: Any) -> None:
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


def vote(made: Any, forest: Any) -> None:
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
            opset.version = TREES_OPSET


def compare_exactly(made: Any, splits: Iterable[tuple[int, float]]) -> None:
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


def histogram_splits(estimators: Iterable[Any]) -> Iterator[tuple[int, float]]:
    """Features and thresholds of scikit-learn's histogram boosting."""
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


def exact_lightgbm(made: Any, booster: Any) -> Any:
    """The converter's model with LightGBM's own thresholds and rows in float64."""
    from onnx import TensorProto

    compare_exactly(made, _lightgbm_splits(booster))
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return made
