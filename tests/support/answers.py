"""Run by a Python that has a model's framework: load a source by its adapter, as an image does, and answer calls.

python answers.py ADAPTER FOLDER ENTRY < calls.json      # with src/ in PYTHONPATH
"""

import json
import sys
from pathlib import Path

from corten import plugin
from corten.core.model import ModelSpec


def main(adapter, folder, entry):
    asked = json.load(sys.stdin)
    spec = ModelSpec("model", adapter, entry=entry, files=tuple(asked.get("files", ())))
    model = plugin.find("adapters", adapter)().load(spec, Path(folder), Path(asked.get("app", folder)))
    told = {}
    if "calls" in asked:
        told["calls"] = model.call(asked["calls"])
    if "texts" in asked:
        told["vectors"] = model.embed(asked["texts"])
    if "rows" in asked:
        import numpy as np

        given = {
            tensor.name: np.array(
                asked["rows"][tensor.name], "O" if tensor.dtype.value == "json" else tensor.dtype.value
            )
            for tensor in model.schema.inputs
        }
        told["rows"] = {name: array.tolist() for name, array in model.run(given).items()}
    json.dump(told, sys.stdout, default=str)


if __name__ == "__main__":
    main(*sys.argv[1:])
