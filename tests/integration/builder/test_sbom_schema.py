"""SBOMs against the schema of CycloneDX (whose validator takes two seconds to import: not for the unit tests)."""

import pytest
import small_image
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from msgspec.structs import replace

from corten.builder import artifact
from corten.builder.artifact import SBOM_TYPE
from corten.core.home import Home
from corten.core.schema import Parameter, Schema, Style


@pytest.mark.parametrize(
    "schema",
    [
        small_image.SCHEMA,
        None,
        Schema(Style.CALL, parameters=(Parameter("text", {"type": "string"}),), returns={"type": "object"}),
    ],
)
def test_an_sbom_obeys_the_schema_of_cyclonedx(tmp_path, schema):
    spec = replace(small_image.SPEC, schema=schema)
    small = small_image.store(Home(tmp_path), small_image.plan(spec=spec))
    small.attach()

    text = artifact.attached(small.layout, small.image.digest, SBOM_TYPE).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
