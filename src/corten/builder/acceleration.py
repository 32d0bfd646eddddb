"""What an exchange of a model for its equal in ONNX means for an image: its packages, its plan, what is said of it.

The verdict is attached to the image as an in-toto Statement v1. Speeds stand there and nowhere in the image: they
differ from run to run, the image's bytes must not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from corten import __version__
from corten.adapters.base import SourceFile
from corten.builder import artifact
from corten.builder.artifact import STATEMENT_TYPE, Artifact, to_json
from corten.builder.lock import Inputs, Lock
from corten.builder.plan import (
    GRPC_REQUIREMENT,
    RUNTIME_REQUIREMENTS,
    Plan,
    WeightGroup,
    distribution,
    group_wheels,
    wheel_layers,
)
from corten.core.acceleration import ONNX_FILE, Conversion
from corten.core.digest import Digest
from corten.core.image import Descriptor
from corten.core.platform import Platform
from corten.errors import UsageError
from corten.store.layout import Layout

PREDICATE = "https://corten.dev/acceleration/v1"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE_ANNOTATION = "in-toto.io/predicate-type"
COMMAND = ("-P", "-m", "corten.serve.convert")
_CONVERTERS = ("skl2onnx>=1.19", "onnx>=1.16", "onnxruntime>=1.20", "numpy")
_BOOSTER_CONVERTERS = ("onnxmltools>=1.14",)
# skl2onnx writes truth values into lists of integers, which protobuf 7 takes for an error.
_NOT_YET = ("protobuf<7",)
_BOOSTERS = ("xgboost", "xgboost-cpu", "lightgbm")
# What of the converters' lock the image gets, at the same versions.
_RUNTIME = ("onnxruntime", "numpy")
_SERVER = frozenset(distribution(line) for line in (*RUNTIME_REQUIREMENTS, GRPC_REQUIREMENT)) - {*_RUNTIME}


@dataclass(frozen=True, slots=True)
class Converted:
    """The verdict on a model, the ONNX file if it takes the model's place, and what was installed to find out."""

    conversion: Conversion
    file: Path | None = None
    packages: Lock | None = None

    @property
    def versions(self) -> Mapping[str, str]:
        """The versions of the packages that took part, by name."""
        return dict(tool.split(" ", 1) for tool in self.conversion.tools)


def converter_inputs(plan: Plan, inputs: Inputs, platform: Platform) -> Inputs:
    """What is locked to convert a model: the packages of its image at their versions, and the converters."""
    pinned = [f"{wheel.name}=={wheel.version}" for wheel in plan.lock.wheels]
    boosters = any(distribution(wheel.name) in _BOOSTERS for wheel in plan.lock.wheels)
    asked = (*pinned, *_CONVERTERS, *_NOT_YET, *(_BOOSTER_CONVERTERS if boosters else ()))
    return replace(inputs, requirements=tuple(sorted(asked)), platform=platform, purpose="converter")


def converter_plan(plan: Plan, lock: Lock) -> Plan:
    """The throw-away image a model is converted in: its own with other wheels, and none of the user's code."""
    return replace(
        plan,
        platform=lock.platform,
        lock=lock,
        wheels=group_wheels(lock.wheels, most=wheel_layers(plan.base, len(plan.weights))),
        code=(),
        labels={},
        notes=(),
        warnings=(),
    )


def accelerated_inputs(plan: Plan, inputs: Inputs, converted: Converted) -> Inputs:
    """What is locked for the image of the ONNX model: the runtime it was compared with, and what the server needs."""
    compared = [f"{name}=={converted.versions[name]}" for name in _RUNTIME if name in converted.versions]
    server = [f"{wheel.name}=={wheel.version}" for wheel in plan.lock.wheels if wheel.name in _SERVER]
    return replace(inputs, requirements=tuple(sorted((*compared, *server))), purpose="accelerated")


def accelerated_plan(plan: Plan, lock: Lock, converted: Converted) -> Plan:
    """The plan with the ONNX model in place of the original's file; schema, method, example and settings stay."""
    if converted.file is None:
        raise ValueError("there is no ONNX model")
    weights = (WeightGroup(ONNX_FILE, (SourceFile(converted.file, ONNX_FILE),)), *_others(plan))
    return replace(
        plan,
        spec=msgspec.structs.replace(plan.spec, adapter="onnx", files=(ONNX_FILE, *plan.spec.files[1:]), trusted=()),
        lock=lock,
        wheels=group_wheels(lock.wheels, most=wheel_layers(plan.base, len(weights))),
        weights=tuple(sorted(weights, key=lambda group: group.title)),
        notes=(*plan.notes[:1], told(converted.conversion)),  # the others are about the original's packages
        converted=converted,
    )


def _others(plan: Plan) -> Sequence[WeightGroup]:
    """The further files the user wanted in the image, without the original model."""
    original = plan.spec.files[0]
    kept = (replace(group, files=tuple(one for one in group.files if one.name != original)) for group in plan.weights)
    return [group for group in kept if group.files]


# Said of an image


def statement(name: str, image: Digest, file: str, conversion: Conversion) -> Artifact:
    """The verdict as an attachment of an image; `file` is the original's name."""
    document = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": image.hex}}],
        "predicateType": PREDICATE,
        "predicate": {
            "accelerated": conversion.accelerated,
            "originalFile": file,
            **msgspec.to_builtins(conversion),
            "corten": __version__,
        },
    }
    return Artifact(STATEMENT_TYPE, "acceleration.intoto.json", to_json(document), {PREDICATE_ANNOTATION: PREDICATE})


def attach(layout: Layout, manifest: Descriptor, *, name: str, file: str, conversion: Conversion) -> None:
    """Attach the verdict to an image, in place of an earlier one. Raises what writing the store raises."""
    described = artifact.put(layout, statement(name, manifest.digest, file, conversion), manifest)
    before = [
        one.digest
        for one in layout.referrers(manifest.digest)
        if one.annotations.get(PREDICATE_ANNOTATION) == PREDICATE
    ]
    layout.attach(manifest.digest, (described,), instead_of=before)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the statement attached to an image says: the original's file name and the conversion."""

    file: str
    conversion: Conversion

    def as_dict(self) -> dict[str, Any]:
        """The verdict as it stands in `--json` output."""
        return {
            "accelerated": self.conversion.accelerated,
            "original_file": self.file,
            **msgspec.to_builtins(self.conversion),
        }


def verdict_on(layout: Layout, image: Digest) -> Verdict | None:
    """The verdict attached to an image, None when there is none. Raises UsageError `store.malformed`."""
    data = artifact.attached(layout, image, STATEMENT_TYPE, {PREDICATE_ANNOTATION: PREDICATE})
    if data is None:
        return None
    try:
        predicate = dict(json.loads(data)["predicate"])
        return Verdict(str(predicate["originalFile"]), msgspec.convert(predicate, Conversion))
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise UsageError(
            "store.malformed",
            "a malformed statement about an acceleration",
            where=f"attached to {image}",
            why=f"{type(error).__name__}: {error}",
        ) from error


def told(conversion: Conversion) -> str:
    """A verdict in one line."""
    if not conversion.accelerated:
        return f"the original stays: {conversion.reason}"
    agreement, speed = conversion.agreement, conversion.speed
    parts = ["answered by ONNX Runtime"]
    if agreement:
        recorded = f", {agreement.recorded} of them recorded" if agreement.recorded else ""
        parts.append(f"same labels, numbers within {agreement.tolerance:g} on {agreement.rows} inputs{recorded}")
    if speed:
        parts.append(
            f"one row {speed.row_before_us:,.0f} → {speed.row_after_us:,.0f} µs, "
            f"{speed.batch_rows} rows {speed.batch_before_us:,.0f} → {speed.batch_after_us:,.0f} µs"
        )
    return "; ".join(parts)
