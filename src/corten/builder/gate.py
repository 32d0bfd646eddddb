"""The statement that an image passed its test: in-toto Statement v1 with the test-result predicate v0.1
(https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md).

It says what was checked, not how fast it was: the same image that passes again gets the same statement.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from corten import __version__
from corten.builder import artifact
from corten.builder.artifact import STATEMENT_TYPE, Artifact, to_json
from corten.builder.proof import PREDICATE_ANNOTATION
from corten.builder.provenance import STATEMENT
from corten.core.digest import Digest
from corten.core.image import Descriptor
from corten.errors import UsageError
from corten.store.layout import Layout

PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"


@dataclass(frozen=True, slots=True)
class TestResult:
    """What a statement says of a test: `PASSED`, `WARNED` or `FAILED`, and the names of what was tried."""

    __test__ = False  # not a class of tests, whatever its name

    result: str
    passed: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = (("", self.passed), ("warned: ", self.warned), ("failed: ", self.failed))
        return "; ".join([self.result.lower(), *(f"{word}{', '.join(names)}" for word, names in told if names)])


def result_of(data: bytes, where: str) -> TestResult:
    """Read a statement about a test. Raises UsageError `store.malformed`."""
    try:
        document = json.loads(data)
        predicate = document["predicate"]
        names = [tuple(map(str, predicate.get(f"{word}Tests") or ())) for word in ("passed", "warned", "failed")]
        return TestResult(str(predicate["result"]), *names)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "store.malformed", "a malformed test result", where=where, why=f"{type(error).__name__}: {error}"
        ) from error


def attach_gate(
    layout: Layout, manifest: Descriptor, *, name: str, code: Digest, checks: Sequence[str]
) -> tuple[Descriptor, ...]:
    """Attach the statement to an image; `code` is the digest of its layer with `corten.json`, which holds the example.

    It takes the place of an earlier one. Raises what writing the store raises.
    """
    document = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": manifest.digest.hex}}],
        "predicateType": PREDICATE,
        "predicate": {
            "result": "PASSED",
            "configuration": [{"name": f"corten {__version__}: example", "digest": {"sha256": code.hex}}],
            "passedTests": list(checks),
        },
    }
    made = Artifact(STATEMENT_TYPE, "gate.intoto.json", to_json(document), {PREDICATE_ANNOTATION: PREDICATE})
    described = (artifact.put(layout, made, manifest),)
    before = [
        one.digest
        for one in layout.referrers(manifest.digest)
        if one.annotations.get(PREDICATE_ANNOTATION) == PREDICATE
    ]
    layout.attach(manifest.digest, described, instead_of=before)
    return described
