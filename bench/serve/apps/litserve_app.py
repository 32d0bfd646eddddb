"""LitServe with batching and its fast queue."""

import litserve
import model
import numpy as np


class Bench(litserve.LitAPI):
    def setup(self, device) -> None:
        self.run = model.load()

    def decode_request(self, request):
        return request["inputs"]

    def batch(self, inputs):
        self.lengths = [len(rows) for rows in inputs]
        return [row for rows in inputs for row in rows]

    def predict(self, rows):
        return np.asarray(self.run(rows))

    def unbatch(self, output):
        return np.split(output, np.cumsum(self.lengths)[:-1])

    def encode_response(self, output):
        return {"predictions": output.tolist()}


if __name__ == "__main__":
    api = Bench(max_batch_size=model.MOST_ROWS, batch_timeout=model.WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=model.PORT,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
        num_api_servers=1,
    )
