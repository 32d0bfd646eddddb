"""gRPC's messages by hand, against NVIDIA's generated ones where those are installed."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.serve import protobuf as wire
from corten.serve.grpc_messages import Asked, answer, named
from corten.serve.job import RequestError
from corten.serve.oip_wire import LETTERS, Question, Tensor

pb = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient[grpc] is not installed")

CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip


def elements(datatype):
    if datatype == "BOOL":
        return st.booleans()
    if datatype.startswith("FP"):
        return st.floats(width=int(datatype[2:]), allow_nan=False)
    bits = int(datatype.lstrip("UINT"))
    return st.integers(0, 2**bits - 1) if datatype[0] == "U" else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def request(datatype, values, shape=None, **contents):
    message = pb.ModelInferRequest(model_name="m", model_version="r1", id="q")
    message.parameters["unknown"].double_param = 0.5
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[len(values)] if shape is None else shape)
    getattr(tensor.contents, contents.get("into") or CONTENTS[datatype]).extend(values)
    message.outputs.add(name="y")
    return message


@given(st.sampled_from(sorted(CONTENTS)).flatmap(lambda kind: st.tuples(st.just(kind), st.lists(elements(kind)))))
def test_typed_contents_are_the_bytes_raw_ones_would_be(case):
    datatype, values = case
    asked = Asked(request(datatype, values).SerializeToString())
    (found,) = asked.question.inputs
    assert (asked.model, asked.version, asked.id, found.name, found.shape) == ("m", "r1", "q", "x", (len(values),))
    assert bytes(found.raw) == struct.pack(f"<{len(values)}{LETTERS[datatype]}", *values)
    assert asked.question.binary == {"y": True}


@pytest.mark.parametrize("datatype", sorted(CONTENTS))
def test_long_lists_are_read_as_short_ones_are(datatype):
    values = [False, True] if datatype == "BOOL" else [0, 1, 2, 100]
    if datatype[0] == "I":
        values = [-1, 0, 100, -(2 ** (int(datatype[3:]) - 1))]
    if datatype[0] == "U":
        values = [0, 2 ** int(datatype[4:]) - 1]
    values *= 600
    (found,) = Asked(request(datatype, values).SerializeToString()).question.inputs
    assert bytes(found.raw) == struct.pack(f"<{len(values)}{LETTERS[datatype]}", *values)


def test_texts_have_their_lengths_before_them():
    message = request("BYTES", [b"a", b"", "né".encode()], into="bytes_contents")
    (found,) = Asked(message.SerializeToString()).question.inputs
    assert bytes(found.raw) == b"\1\0\0\0a\0\0\0\0\3\0\0\0n\xc3\xa9"


def test_raw_contents_belong_to_the_inputs_in_order_and_are_not_copied():
    message = pb.ModelInferRequest(model_name="m")
    for name in ("a", "b"):
        message.inputs.add(name=name, datatype="FP32", shape=[2])
        message.raw_input_contents.append(struct.pack("<2f", *map(ord, name * 2)))
    sent = message.SerializeToString()
    a, b = Asked(sent).question.inputs
    assert struct.unpack("<2f", b.raw) == (98, 98)
    assert a.raw.obj is sent


def sharing(message):
    message.inputs[0].parameters["shared_memory_region"].CopyFrom(pb.InferParameter())


MISFITS = {
    "raw beside typed": (lambda m: m.raw_input_contents.append(b"1234"), "inputs[0]"),
    "too many raw": (lambda m: m.raw_input_contents.extend([b"", b""]), "raw_input_contents"),
    "too few elements": (lambda m: m.inputs[0].shape.extend([2]), "inputs[0]"),
    "a negative length": (lambda m: m.inputs[0].shape.extend([-3]), "inputs[0].shape"),
    "too many dimensions": (lambda m: m.inputs[0].shape.extend([1] * 40), "inputs[0].shape"),
    "an unknown datatype": (lambda m: setattr(m.inputs[0], "datatype", "FP128"), "inputs[0].datatype"),
    "another type": (lambda m: m.inputs[0].contents.fp64_contents.append(1), "inputs[0].contents"),
    "too large a number": (lambda m: m.inputs[0].contents.int_contents.append(300), "inputs[0].contents"),
    "too large a number in a long list": (
        lambda m: m.inputs[0].contents.int_contents.extend([300] * 2000),
        "inputs[0].contents",
    ),
    "one twice": (lambda m: m.inputs.append(m.inputs[0]), "inputs"),
    "shared memory": (sharing, "inputs[0].parameters"),
}


@pytest.mark.parametrize(("change", "path"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_said_with_its_place(change, path):
    message = request("INT8", [1])
    change(message)
    with pytest.raises(RequestError) as refused:
        Asked(message.SerializeToString())
    assert (refused.value.status, refused.value.path) == (422, path)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(noise):
    for read in (Asked, named):
        with contextlib.suppress(RequestError):
            read(noise)


@given(st.data())
def test_a_message_cut_off_or_changed_is_a_message_or_refused(data):
    whole = request("INT32", [1, 300, -1] * 400).SerializeToString()
    at = data.draw(st.integers(0, len(whole) - 1))
    for noise in (whole[:at], whole[:at] + data.draw(st.binary(min_size=1, max_size=1)) + whole[at + 1 :]):
        with contextlib.suppress(RequestError):
            Asked(noise)


@given(st.lists(st.integers(0, 2**63 - 1), max_size=4), st.binary(max_size=40), st.text(max_size=5))
def test_answers_are_what_protobuf_reads(shape, raw, name):
    text = answer("m", "r1", Question("q", (), {}, all_binary=True), [Tensor(name, "FP32", shape, raw=raw)])
    message = pb.ModelInferResponse.FromString(text)
    assert (message.model_name, message.model_version, message.id) == ("m", "r1", "q")
    assert (message.outputs[0].name, list(message.outputs[0].shape)) == (name, shape)
    assert list(message.raw_output_contents) == [raw]


@given(st.integers(-(2**63), 2**64 - 1))
def test_any_integer_comes_back(value):
    (again,) = wire.varints(memoryview(wire.number(value)))
    assert again == value & (2**64 - 1)
