"""BERT as an ONNX graph around given weights: what `optimum-cli export onnx` writes, without PyTorch.

Follows the paper (Devlin et al., 2018, https://arxiv.org/abs/1810.04805) and the names of transformers' BertModel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET = 17  # the first with LayerNormalization


class Graph:
    """Nodes and weights, as they are added."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output; gives the output's name."""
        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: str = "float32") -> str:
        self.constants[name] = np.asarray(values, dtype=dtype)
        return name

    def weight(self, name: str, *, transposed: bool = False) -> str:
        values = self.weights[name]
        return self.constant(name, values.T if transposed else values)

    def linear(self, state: str, name: str) -> str:
        product = self.add("MatMul", state, self.weight(f"{name}.weight", transposed=True))
        return self.add("Add", product, self.weight(f"{name}.bias"))

    def normed(self, state: str, name: str, epsilon: float) -> str:
        scale, shift = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", state, scale, shift, axis=-1, epsilon=epsilon)


def bert(config: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> ModelProto:
    """The encoder: ids, mask and token types of (texts, tokens) in, `last_hidden_state` out."""
    graph, epsilon = Graph(weights), config["layer_norm_eps"]
    words = graph.add("Gather", graph.weight("embeddings.word_embeddings.weight"), "input_ids")
    kinds = graph.add("Gather", graph.weight("embeddings.token_type_embeddings.weight"), "token_type_ids")
    length = graph.add("Shape", "input_ids", start=1, end=2)
    zero = graph.constant("zero", [0], "int64")
    table = graph.weight("embeddings.position_embeddings.weight")
    places = graph.add("Slice", table, zero, length, zero)
    state = graph.add("Add", graph.add("Add", words, kinds), places)
    state = graph.normed(state, "embeddings.LayerNorm", epsilon)

    # 0 for a word, a number that leaves nothing after the softmax for padding; (texts, 1, 1, tokens).
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden = graph.add("Mul", graph.add("Sub", graph.constant("one", 1), mask), graph.constant("lowest", -3e38))
    hidden = graph.add("Unsqueeze", hidden, graph.constant("axes", [1, 2], "int64"))
    for number in range(config["num_hidden_layers"]):
        state = _layer(graph, state, hidden, f"encoder.layer.{number}", config)
    graph.nodes.append(helper.make_node("Identity", [state], ["last_hidden_state"]))
    return _model(graph, config["hidden_size"])


def _layer(graph: Graph, state: str, hidden: str, name: str, config: Mapping[str, Any]) -> str:
    heads, width = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]
    split = graph.constant("split", [0, 0, heads, width], "int64")
    joined = graph.constant("joined", [0, 0, heads * width], "int64")

    def part(which: str, order: Sequence[int]) -> str:
        projected = graph.linear(state, f"{name}.attention.self.{which}")
        return graph.add("Transpose", graph.add("Reshape", projected, split), perm=order)

    query, key, value = part("query", [0, 2, 1, 3]), part("key", [0, 2, 3, 1]), part("value", [0, 2, 1, 3])
    scale = graph.constant("scale", 1 / np.sqrt(width))
    scores = graph.add("Add", graph.add("Mul", graph.add("MatMul", query, key), scale), hidden)
    seen = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
    seen = graph.add("Reshape", graph.add("Transpose", seen, perm=[0, 2, 1, 3]), joined)
    state = graph.add("Add", state, graph.linear(seen, f"{name}.attention.output.dense"))
    state = graph.normed(state, f"{name}.attention.output.LayerNorm", config["layer_norm_eps"])

    inner = graph.linear(state, f"{name}.intermediate.dense")
    # gelu: x times the integral of the normal distribution
    error = graph.add("Erf", graph.add("Mul", inner, graph.constant("root_half", np.sqrt(0.5))))
    inner = graph.add("Mul", inner, graph.add("Mul", graph.add("Add", error, "one"), graph.constant("half", 0.5)))
    state = graph.add("Add", state, graph.linear(inner, f"{name}.output.dense"))
    return graph.normed(state, f"{name}.output.LayerNorm", config["layer_norm_eps"])


def _model(graph: Graph, width: int) -> ModelProto:
    free = ["texts", "tokens"]
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, free) for name in names]
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*free, width])]
    weights = [numpy_helper.from_array(values, name) for name, values in graph.constants.items()]
    made = helper.make_graph(graph.nodes, "bert", inputs, outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
