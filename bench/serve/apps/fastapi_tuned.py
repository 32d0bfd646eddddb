"""FastAPI by someone who measured: `async def`, the raw body, orjson, no pydantic."""

import model
import numpy as np
import orjson
from fastapi import FastAPI, Request, Response

run = model.load()
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Response:
    body = await request.body()
    if model.KIND == "tensors":
        rows = run(np.frombuffer(body, np.float32).reshape(512, 512))
        return Response(rows.tobytes(), media_type="application/octet-stream")
    outputs = np.asarray(run(orjson.loads(body)["inputs"]))
    answer = orjson.dumps({"predictions": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(answer, media_type="application/json")
