"""granian's own interface (RSGI) and orjson: the fastest of the general servers, without batching."""

import model
import numpy as np
import orjson

run = model.load()
JSON = [("content-type", "application/json")]
OCTETS = [("content-type", "application/octet-stream")]


async def app(scope, protocol) -> None:
    body = await protocol()
    if model.KIND == "tensors":
        rows = run(np.frombuffer(body, np.float32).reshape(512, 512))
        protocol.response_bytes(200, OCTETS, rows.tobytes())
        return
    outputs = np.asarray(run(orjson.loads(body)["inputs"]))
    protocol.response_bytes(200, JSON, orjson.dumps({"predictions": outputs}, option=orjson.OPT_SERIALIZE_NUMPY))
