"""BentoML with adaptive batching; tensors as a file, its way for bytes."""

# No `from __future__ import annotations`: BentoML reads the types of its methods as objects.
import pathlib
import typing as t

import bentoml
import model
import numpy as np
from bentoml.validators import ContentType

Octets = t.Annotated[pathlib.Path, ContentType("application/octet-stream")]
Rows = t.List[str] if model.KIND == "embed" else np.ndarray  # noqa: UP006 - as its documentation writes it


@bentoml.service(name="bench", workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class Bench:
    def __init__(self) -> None:
        self.run = model.load()

    if model.KIND == "tensors":

        @bentoml.api
        def predict(self, data: Octets, /, ctx: bentoml.Context) -> Octets:
            out = pathlib.Path(ctx.temp_dir) / "out.bin"
            self.run(np.fromfile(data, dtype=np.float32).reshape(512, 512)).tofile(out)
            return out

    else:

        @bentoml.api(batchable=True, max_batch_size=model.MOST_ROWS)
        def predict(self, inputs: Rows) -> np.ndarray:
            return np.asarray(self.run(inputs))
