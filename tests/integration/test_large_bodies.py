"""How much memory a large body takes while it is read."""

import tracemalloc

import pytest

from corten.core.schema import DType, Schema, Style, Tensor
from corten.serve.rows import RowsRunner


class Model:
    schema = Schema(Style.ROWS, (Tensor("x", DType.FLOAT64, (None, 8)),))

    def run(self, inputs):
        return inputs


@pytest.mark.parametrize("number", [b"1", b"0.123456"])
def test_sixteen_megabytes_of_numbers_take_little_more_than_their_arrays(number):
    row = b"[" + b",".join([number] * 8) + b"]"
    body = b'{"inputs":[' + b",".join([row] * ((16 << 20) // (len(row) + 1))) + b"]}"
    runner = RowsRunner(Model())
    tracemalloc.start()
    try:
        inputs = runner.decode(body)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    array_bytes = inputs.values["x"].nbytes
    assert peak_bytes < 1.3 * array_bytes + (4 << 20)
