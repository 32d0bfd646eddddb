"""Ray Serve with batching."""

import os
import signal

import model
import numpy as np
import orjson
import ray
from ray import serve
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0.5})
class Bench:
    def __init__(self) -> None:
        self.run = model.load()

    @serve.batch(max_batch_size=model.MOST_ROWS, batch_wait_timeout_s=model.WAIT_S)
    async def joined(self, inputs):
        outputs = np.asarray(self.run([row for rows in inputs for row in rows]))
        return np.split(outputs, np.cumsum([len(rows) for rows in inputs])[:-1])

    async def __call__(self, request):
        body = await request.body()
        if model.KIND == "tensors":
            rows = self.run(np.frombuffer(body, np.float32).reshape(512, 512))
            return Response(rows.tobytes(), media_type="application/octet-stream")
        outputs = await self.joined(orjson.loads(body)["inputs"])
        answer = orjson.dumps({"predictions": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(answer, media_type="application/json")


if __name__ == "__main__":
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 << 20,
        _temp_dir=os.environ["BENCH_TMP"],
    )
    serve.start(http_options={"host": "127.0.0.1", "port": model.PORT})
    serve.run(Bench.bind(), blocking=False)
    signal.pause()
