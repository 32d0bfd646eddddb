"""MLServer's custom runtime."""

import model
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


class Runtime(MLModel):
    async def load(self) -> bool:
        self.run = model.load()
        return True

    async def predict(self, payload):
        codec = StringCodec if model.KIND == "embed" else NumpyCodec
        outputs = np.asarray(self.run(codec.decode_input(payload.inputs[0])))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("predictions", outputs)])
