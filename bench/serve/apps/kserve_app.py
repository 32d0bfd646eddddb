"""KServe's Python server, both of its protocols."""

import kserve
import model
import numpy as np
from kserve import InferOutput, InferRequest, InferResponse


class Bench(kserve.Model):
    def __init__(self) -> None:
        super().__init__("m")
        self.run = model.load()
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        if not isinstance(payload, InferRequest):
            return {"predictions": np.asarray(self.run(payload["instances"])).tolist()}
        rows = payload.inputs[0].as_numpy()
        if model.KIND == "embed":  # bytes, or text from JSON
            rows = [text.decode() if isinstance(text, bytes) else str(text) for text in rows.ravel()]
        outputs = self.run(rows)
        named = InferOutput("predictions", list(outputs.shape), "INT64" if outputs.dtype == np.int64 else "FP32")
        binary = model.KIND == "tensors"
        named.set_data_from_numpy(outputs, binary_data=binary)
        return InferResponse(payload.id or "0", "m", [named], use_binary_outputs=binary)


if __name__ == "__main__":
    kserve.ModelServer(http_port=model.PORT, enable_grpc=False, workers=1, access_log_format=None).start([Bench()])
