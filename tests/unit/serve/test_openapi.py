from __future__ import annotations

import json

import pytest

from corten.core.schema import DType, Parameter, Schema, Style, Tensor
from corten.serve.openapi import openapi

TYPES = {"object", "array", "string", "number", "integer", "boolean", "null"}


def check_schema(schema, components):
    """The parts of JSON Schema 2020-12 that are used, by their rules."""
    assert isinstance(schema, dict)
    if "$ref" in schema:
        prefix, _, name = schema["$ref"].rpartition("/")
        assert prefix == "#/components/schemas"
        assert name in components
    kinds = schema.get("type", [])
    assert set([kinds] if isinstance(kinds, str) else kinds) <= TYPES
    for inner in schema.get("properties", {}).values():
        check_schema(inner, components)
    if "items" in schema:
        check_schema(schema["items"], components)
    for inner in schema.get("anyOf", []):
        check_schema(inner, components)
    assert set(schema.get("required", [])) <= set(schema.get("properties", {}))
    assert "$defs" not in schema


def check_document(document):
    """The rules of OpenAPI 3.1 for what the document has."""
    document = json.loads(json.dumps(document))
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    components = document["components"]["schemas"]
    operations = [
        operation for item in document["paths"].values() for key, operation in item.items() if key != "parameters"
    ]
    assert all(path.startswith("/") for path in document["paths"])
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["responses"]
        contents = [operation["requestBody"]["content"]] if "requestBody" in operation else []
        for code, response in operation["responses"].items():
            assert code.isdigit() or code in {"4XX", "5XX"}
            assert response["description"]
            contents.append(response.get("content", {}))
        for content in contents:
            for media in content.values():
                check_schema(media["schema"], components)
    for schema in components.values():
        check_schema(schema, components)
    return document


def request_schema(document):
    return document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]


def answer_schema(document):
    return document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]


def test_a_model_of_rows_is_described_by_its_shape():
    schema = Schema(Style.ROWS, (Tensor("x", DType.FLOAT32, (None, 3)),), (Tensor("y", DType.INT64, (None,)),))
    document = check_document(openapi("iris", "r3", schema))
    assert document["info"] == {"title": "iris", "version": "r3", "x-corten-style": "rows"}
    rows, by_name = request_schema(document)["properties"]["inputs"]["anyOf"]
    assert rows["items"]["minItems"] == rows["items"]["maxItems"] == 3
    assert rows["items"]["items"] == {"type": ["number", "null"], "format": "float"}
    assert by_name["properties"]["x"] == rows
    assert answer_schema(document)["properties"]["outputs"]["items"]["type"] == ["integer", "null"]


def test_named_columns_are_described_as_records():
    schema = Schema(Style.ROWS, (Tensor("x", DType.FLOAT64, (None, 2), ("age", "height")),))
    record = request_schema(check_document(openapi("m", "", schema)))["properties"]["inputs"]["anyOf"][2]["items"]
    assert record["required"] == ["age", "height"]


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("shape", [(None,), (None, 1), (1, 2), (None, None, 3)])
def test_every_type_and_shape_makes_a_valid_document(dtype, shape):
    tensors = (Tensor("a", dtype, shape), Tensor("b", dtype, shape))
    for count in (1, 2):
        check_document(openapi("m", "r1", Schema(Style.ROWS, tensors[:count], tensors[:count])))


def test_integers_have_the_bounds_of_their_type():
    schema = Schema(Style.ROWS, (Tensor("x", DType.UINT8, (None,)),))
    items = request_schema(openapi("m", "", schema))["properties"]["inputs"]["anyOf"][0]["items"]
    assert (items["minimum"], items["maximum"]) == (0, 255)


def test_a_model_of_calls_is_described_by_its_parameters_and_shared_types():
    label = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    schema = Schema(
        Style.CALL,
        parameters=(Parameter("text", {"type": "string"}), Parameter("top", {"type": "integer"}, required=False)),
        returns={"type": "array", "items": {"$ref": "#/$defs/Label"}, "$defs": {"Label": label}},
    )
    document = check_document(openapi("m", "r1", schema))
    assert request_schema(document)["required"] == ["text"]
    assert document["components"]["schemas"]["Label"] == label


def test_a_model_whose_outputs_are_not_known_is_still_described():
    check_document(openapi("m", "r1", Schema(Style.ROWS, (Tensor("x", DType.STRING, (None, None)),))))
    check_document(openapi("m", "r1", Schema(Style.CALL)))
