"""The two projects that are built: a random forest on scikit-learn's digits, and MiniLM on onnxruntime.

Each is a folder with a class of a few lines, its weights, and two lists of requirements. What the steps of the bench
change (code, weights, dependencies) is changed here, outside the timed part.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

_EXAMPLE = Path(__file__).parents[2] / "examples" / "annotator" / "model"


class Work(ABC):
    """A project folder. `pins` are all of its wheels with their versions, told by Corten's lock."""

    name: str
    requirements: tuple[str, ...]
    code: str

    def __init__(self, folder: Path) -> None:
        self.project = folder / self.name
        (self.project / "model").mkdir(parents=True)
        (self.project / "corten.toml").write_text(f'name = "{self.name}"\nsource = "serve.py:Model"\n')
        self.pins: tuple[str, ...] = ()
        self.reset()

    def reset(self) -> None:
        self.edit_code(0)
        self.edit_weights(0)
        self.edit_dependencies(more=False)

    def edit_code(self, number: int) -> None:
        (self.project / "serve.py").write_text(f"{self.code}\n\nNUMBER = {number}\n")

    def edit_dependencies(self, *, more: bool) -> None:
        # Corten resolves what is asked for, as its users would; the Dockerfiles get every version pinned.
        wanted = (*self.requirements, *((MORE,) if more else ()))
        pinned = tuple(pin for pin in self.pins if more or not pin.startswith(MORE))
        (self.project / "requirements.txt").write_text("\n".join(wanted) + "\n")
        (self.project / "pinned.txt").write_text("\n".join(pinned) + "\n")

    @abstractmethod
    def edit_weights(self, number: int) -> None:
        """Other weights of the same size."""

    @property
    def weights_bytes(self) -> int:
        return max(path.stat().st_size for path in (self.project / "model").iterdir())


# What the step `dependency` adds.
MORE = "orjson"


class Digits(Work):
    """A random forest of 200 trees, joblib: 11 MB of weights."""

    name = "sk"
    requirements = ("scikit-learn", "joblib")
    code = '''\
"""Which digit is drawn: a random forest on 8x8 pixels."""

from pathlib import Path

import joblib


class Model:
    def __init__(self, models: Path = Path("model")) -> None:
        self.model = joblib.load(models / "model.joblib")

    def predict(self, row: list[float]) -> int:
        return int(self.model.predict([row])[0])'''

    def edit_weights(self, number: int) -> None:
        import joblib
        from sklearn.datasets import load_digits
        from sklearn.ensemble import RandomForestClassifier

        features, labels = load_digits(return_X_y=True)
        model = RandomForestClassifier(200, random_state=number).fit(features, labels)
        joblib.dump(model, self.project / "model" / "model.joblib")


class Embedder(Work):
    """MiniLM as an ONNX graph with its tokenizer: 91 MB of weights."""

    name = "ort"
    requirements = ("onnxruntime", "tokenizers", "numpy")
    code = '''\
"""A text as a vector: MiniLM in onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class Model:
    def __init__(self, models: Path = Path("model")) -> None:
        self.session = onnxruntime.InferenceSession(models / "model.onnx", providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(models / "tokenizer.json"))

    def predict(self, text: str) -> list[float]:
        ids = np.array([self.tokenizer.encode(text).ids])
        return self.session.run(None, {"ids": ids, "mask": np.ones_like(ids)})[0][0].tolist()'''

    def edit_weights(self, number: int) -> None:
        shutil.copyfile(_EXAMPLE / "tokenizer.json", self.project / "model" / "tokenizer.json")
        write_minilm(self.project / "model" / "model.onnx", seed=number)


def write_minilm(path: Path, *, seed: int) -> None:
    """MiniLM-L6 as ONNX: tokens and mask in, a vector of length one out. Another seed scales the weights a little."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    weights = read_safetensors(_EXAMPLE / "model.safetensors")
    weights = {name: (value * (1 + 1e-4 * seed)).astype(value.dtype) for name, value in weights.items()}
    nodes: list[Any] = []
    constants: list[Any] = []

    def const(value: Any) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), f"c{len(constants)}"))
        return constants[-1].name

    def op(kind: str, *inputs: str, **settings: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [f"v{len(nodes)}"], **settings))
        return nodes[-1].output[0]

    def linear(state: str, name: str) -> str:
        return op("Add", op("MatMul", state, const(weights[f"{name}.weight"].T)), const(weights[f"{name}.bias"]))

    def normed(state: str, name: str) -> str:
        scale, shift = const(weights[f"{name}.weight"]), const(weights[f"{name}.bias"])
        return op("LayerNormalization", state, scale, shift, axis=-1, epsilon=1e-12)

    def heads(state: str) -> str:
        return op("Transpose", op("Reshape", state, const(np.array([0, 0, 12, 32]))), perm=[0, 2, 1, 3])

    begin, one, two = (const(np.array([number])) for number in (0, 1, 2))
    positions = op(
        "Slice",
        const(weights["embeddings.position_embeddings.weight"]),
        begin,
        op("Slice", op("Shape", "ids"), one, two),
        begin,
    )
    state = op("Add", op("Gather", const(weights["embeddings.word_embeddings.weight"]), "ids"), positions)
    state = normed(
        op("Add", state, const(weights["embeddings.token_type_embeddings.weight"][0])), "embeddings.LayerNorm"
    )
    mask = op("Cast", "mask", to=onnx.TensorProto.FLOAT)
    hidden = op(
        "Mul", op("Sub", op("Unsqueeze", mask, const(np.array([1, 2]))), const(np.float32(1))), const(np.float32(1e9))
    )
    for number in range(6):
        layer = f"encoder.layer.{number}"
        query, key, value = (
            heads(linear(state, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        scores = op("Mul", op("MatMul", query, op("Transpose", key, perm=[0, 1, 3, 2])), const(np.float32(32**-0.5)))
        attended = op("MatMul", op("Softmax", op("Add", scores, hidden), axis=-1), value)
        joined = op("Reshape", op("Transpose", attended, perm=[0, 2, 1, 3]), const(np.array([0, 0, 384])))
        state = normed(
            op("Add", linear(joined, f"{layer}.attention.output.dense"), state), f"{layer}.attention.output.LayerNorm"
        )
        inner = op("Gelu", linear(state, f"{layer}.intermediate.dense"))
        state = normed(op("Add", linear(inner, f"{layer}.output.dense"), state), f"{layer}.output.LayerNorm")
    each = op("Unsqueeze", mask, two)
    total = op("ReduceSum", op("Mul", state, each), one, keepdims=0)
    nodes.append(
        helper.make_node(
            "LpNormalization", [op("Div", total, op("ReduceSum", each, one, keepdims=0))], ["vector"], axis=-1, p=2
        )
    )
    tokens = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["texts", "words"]) for name in ("ids", "mask")
    ]
    vector = helper.make_tensor_value_info("vector", onnx.TensorProto.FLOAT, ["texts", 384])
    graph = helper.make_graph(nodes, "minilm", tokens, [vector], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a file (format: 8 bytes of length, a JSON header, the data)."""
    import numpy as np

    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    kinds = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
    header = json.loads(raw[8:begin])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(
            raw[begin + told["data_offsets"][0] : begin + told["data_offsets"][1]], kinds[told["dtype"]]
        ).reshape(told["shape"])
        for name, told in header.items()
    }


WORKS: tuple[type[Work], ...] = (Digits, Embedder)
