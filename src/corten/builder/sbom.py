"""The list of what is in an image: CycloneDX 1.6 JSON (https://cyclonedx.org/docs/1.6/json/), the model among it.

A pure function of the image, its lock and the contents of its layers: no clock, no random serial number.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from corten.builder.artifact import to_json
from corten.builder.contents import Contents, FileFact, PackageFact
from corten.builder.debian.release import RELEASES, Deb
from corten.builder.lock import Lock, Pin
from corten.builder.oci_base import Installed, OciBase, System
from corten.builder.plan import distribution
from corten.builder.pylock import Locked
from corten.builder.remote import without_credentials
from corten.core.digest import Digest
from corten.core.image import Image
from corten.core.model import ModelSpec
from corten.core.platform import Platform
from corten.core.reference import Reference
from corten.core.schema import Schema, Style, Tensor
from corten.errors import UsageError

_MODELS = "models/"
_MODEL_REF = "model"
# Names as package URLs write them: only these characters stay as they are (purl-spec, "Character encoding").
_PLAIN = ".-_~"
# A namespace of our own for serial numbers that depend on the image's digest only (RFC 9562, UUIDv5).
_SERIALS = uuid.uuid5(uuid.NAMESPACE_DNS, "sbom.corten.dev")


def sbom_json(
    image: Image,
    spec: ModelSpec,
    lock: Lock,
    contents: Sequence[Contents],
    corten_version: str,
    *,
    beneath: OciBase | None = None,
    original: tuple[str, Digest] | None = None,
) -> bytes:
    """The SBOM of an image. `contents` are those of its layers, in any order; `beneath` is the image it stands on,
    `original` the name and digest of the file its ONNX model was made of.
    """
    facts = {package.name: package for one in contents for package in one.packages}
    weights = sorted(
        (file for one in contents for file in one.files if file.name.startswith(_MODELS)), key=lambda file: file.name
    )
    components = [
        *(_deb(deb, facts.get(deb.name), lock) for deb in lock.debs),
        *(_beneath(beneath, lock, image.platform) if beneath else ()),
        *(_wheel(wheel, facts.get(distribution(wheel.name))) for wheel in lock.wheels),
        _runtime(corten_version),
        _model(spec, weights, original),
    ]
    subject = _image(image, spec.name)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_SERIALS, str(image.digest))}",
        "version": 1,
        "metadata": {
            "component": subject,
            "tools": {"components": [{"type": "application", "name": "corten", "version": corten_version}]},
        },
        "components": components,
        "dependencies": [{"ref": subject["bom-ref"], "dependsOn": sorted(one["bom-ref"] for one in components)}],
    }
    return to_json(document)


def deb_purl(deb: Deb, release: str) -> str:
    """The package URL of a Debian package."""
    known = RELEASES.get(release)
    distro = f"debian-{known.version_id}" if known else release
    version = quote(deb.version, safe=_PLAIN)
    return f"pkg:deb/debian/{quote(deb.name, safe=_PLAIN)}@{version}?arch={deb.architecture}&distro={distro}"


def wheel_purl(wheel: Locked) -> str:
    """The package URL of a Python package."""
    return f"pkg:pypi/{quote(distribution(wheel.name), safe=_PLAIN)}@{quote(wheel.version, safe=_PLAIN)}"


def _image(image: Image, name: str) -> dict[str, Any]:
    purl = f"pkg:oci/{name}@{quote(str(image.digest), safe=_PLAIN)}?arch={image.platform.architecture}"
    return {
        "type": "container",
        "bom-ref": "image",
        "name": name,
        "version": str(image.digest),
        "purl": purl,
        "hashes": [_sha256(image.digest)],
    }


def base_purl(pin: Pin, platform: Platform) -> str:
    """The package URL of an image to build on (purl-spec, types/oci-definition.json)."""
    reference = Reference.parse(pin.reference)
    name = reference.repository.rpartition("/")[2]
    place = quote(f"{reference.registry}/{reference.repository}", safe=_PLAIN + "/")
    version = quote(str(pin.digest), safe=_PLAIN)
    return f"pkg:oci/{name}@{version}?arch={platform.architecture}&repository_url={place}"


def _beneath(base: OciBase, lock: Lock, platform: Platform) -> Iterator[dict[str, Any]]:
    """The image beneath, and its packages as far as its databases tell; what is installed anew is not the base's."""
    purl = base_purl(base.pin, platform)
    notes = {"manifest": str(base.pin.manifest), "system": base.facts.system.title}
    if not base.facts.listed:
        notes["packages"] = "not known: it has no package database of Debian's, Alpine's or rpm's that can be read"
    yield {
        "type": "container",
        "bom-ref": purl,
        "name": base.pin.reference,
        "version": str(base.pin.digest),
        "purl": purl,
        "hashes": [_sha256(base.pin.digest)],
        "properties": [{"name": f"dev.corten:{key}", "value": text} for key, text in notes.items() if text],
    }
    anew = {distribution(wheel.name) for wheel in lock.wheels}
    for one in base.facts.packages:
        if one.kind != "wheel" or one.name not in anew:
            purl = installed_purl(one, base.facts.system)
            yield {"type": "library", "bom-ref": purl, "name": one.name, "version": one.version, "purl": purl}


def installed_purl(one: Installed, system: System) -> str:
    """The package URL of what a base brings along (purl-spec, types deb, apk, rpm and pypi)."""
    # An epoch of rpm's is a qualifier (purl-spec, types/rpm-definition.json); Debian's is part of the version.
    epoch, _, rest = one.version.rpartition(":") if one.kind == "rpm" else ("", "", one.version)
    name, version = quote(one.name, safe=_PLAIN), quote(rest, safe=_PLAIN)
    if one.kind == "wheel":
        return f"pkg:pypi/{name}@{version}"
    distro = f"{system.id}-{system.version}" if system.version else system.id
    told = f"arch={one.architecture}&distro={distro}" + (f"&epoch={epoch}" if epoch else "")
    return f"pkg:{one.kind}/{system.id or 'unknown'}/{name}@{version}?{told}"


def _deb(deb: Deb, fact: PackageFact | None, lock: Lock) -> dict[str, Any]:
    return _package(deb, deb.name, deb_purl(deb, lock.release), fact)


def _wheel(wheel: Locked, fact: PackageFact | None) -> dict[str, Any]:
    return _package(wheel, distribution(wheel.name), wheel_purl(wheel), fact)


def _package(package: Deb | Locked, name: str, purl: str, fact: PackageFact | None) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": package.version,
        "purl": purl,
        "hashes": [_sha256(package.digest)],
    }
    if fact and (licences := _licences(fact)):
        component["licenses"] = licences
    # A file of the building machine is nowhere others could get it from.
    if urlsplit(package.url).scheme in ("http", "https"):
        component["externalReferences"] = [
            {
                "type": "distribution",
                "url": without_credentials(package.url),
                "hashes": [_sha256(package.digest)],
            }
        ]
    return component


def _licences(fact: PackageFact) -> list[dict[str, Any]]:
    if fact.expression:
        return [{"expression": fact.expression, "acknowledgement": "declared"}]
    return [{"license": {"name": name, "acknowledgement": "declared"}} for name in fact.licences]


def _runtime(version: str) -> dict[str, Any]:
    return {
        "type": "application",
        "bom-ref": f"corten@{version}",
        "name": "corten",
        "version": version,
        "description": "the server inside the image",
        "licenses": [{"expression": "Apache-2.0"}],
    }


def _model(spec: ModelSpec, weights: Sequence[FileFact], original: tuple[str, Digest] | None) -> dict[str, Any]:
    parameters: dict[str, Any] = {"modelArchitecture": spec.adapter}
    if spec.schema:
        parameters["inputs"] = [{"format": text} for text in inputs_of(spec.schema)]
        parameters["outputs"] = [{"format": text} for text in outputs_of(spec.schema)]
    properties = {"adapter": spec.adapter, "method": spec.method, "entry": spec.entry}
    trusted = {one.removeprefix("sha256:") for one in spec.trusted}
    ancestors = (
        {"pedigree": {"ancestors": [{"type": "file", "name": original[0], "hashes": [_sha256(original[1])]}]}}
        if original
        else {}
    )
    return {
        **ancestors,
        "type": "machine-learning-model",
        "bom-ref": _MODEL_REF,
        "name": spec.name,
        "components": [
            {
                "type": "file",
                "bom-ref": f"{_MODEL_REF}:{file.name}",
                "name": f"/{file.name}",
                "hashes": [_sha256(file.digest)],
                "properties": [
                    {"name": "dev.corten:size_bytes", "value": str(file.size_bytes)},
                    *([{"name": "dev.corten:trusted", "value": "true"}] if file.digest.hex in trusted else []),
                ],
            }
            for file in weights
        ],
        "modelCard": {"modelParameters": parameters},
        "properties": [{"name": f"dev.corten:{key}", "value": text} for key, text in properties.items() if text],
    }


def inputs_of(schema: Schema) -> list[str]:
    """A model's inputs, one a line of text: `x: float64[*,4]`, `text: {"type":"string"}`."""
    match schema.style:
        case Style.ROWS:
            return [_tensor(one) for one in schema.inputs]
        case Style.CALL:
            return [f"{one.name}: {_compact(one.json_schema)}" for one in schema.parameters]


def outputs_of(schema: Schema) -> list[str]:
    """A model's outputs, in the same way."""
    match schema.style:
        case Style.ROWS:
            return [_tensor(one) for one in schema.outputs]
        case Style.CALL:
            return [_compact(schema.returns)] if schema.returns else []


def _tensor(tensor: Tensor) -> str:
    shape = ",".join("*" if length is None else str(length) for length in tensor.shape)
    return f"{tensor.name}: {tensor.dtype.value}[{shape}]"


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _sha256(digest: Digest) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.hex}


# Reading back


@dataclass(frozen=True, slots=True)
class Component:
    """A package as an SBOM lists it. `kind`: `deb`, `apk`, `rpm` or `wheel`; `digest` is of its file (None: not told).

    `licence` is empty where none was told.
    """

    kind: str
    name: str
    version: str
    digest: Digest | None
    licence: str = ""


def packages_of(data: bytes, where: str) -> tuple[Component, ...]:
    """The packages of the base and the wheels in an SBOM of ours. Raises UsageError `store.malformed`."""
    kinds = {"pkg:deb/": "deb", "pkg:apk/": "apk", "pkg:rpm/": "rpm", "pkg:pypi/": "wheel"}
    try:
        return tuple(
            Component(
                kind=kinds[prefix],
                name=str(one["name"]),
                version=str(one["version"]),
                digest=Digest.parse(f"sha256:{one['hashes'][0]['content']}") if "hashes" in one else None,
                licence=_licence_text(one.get("licenses", [])),
            )
            for one in json.loads(data)["components"]
            for prefix in kinds
            if str(one.get("purl", "")).startswith(prefix)
        )
    except (UsageError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UsageError(
            "store.malformed", "a malformed SBOM", where=where, why=f"{type(error).__name__}: {error}"
        ) from error


def _licence_text(licences: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(one["expression"] if "expression" in one else one["license"]["name"]) for one in licences)
