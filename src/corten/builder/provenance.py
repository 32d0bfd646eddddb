"""How an image came to be: an in-toto Statement v1 with the SLSA provenance v1 predicate (https://slsa.dev/spec/v1.2).

It claims Build L1: made by the builder, not signed by a hosted platform. The commit stands here and not in the image's
config, so that a commit that changes nothing of the image does not move its digest. No clock, no machine's or user's
name, no path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from corten.builder.artifact import to_json
from corten.builder.contents import Contents
from corten.builder.lineage import Commit
from corten.builder.lock import Lock
from corten.builder.plan import Plan
from corten.builder.remote import without_credentials
from corten.builder.sbom import base_purl, deb_purl, wheel_purl
from corten.builder.source import Project
from corten.core.digest import Digest
from corten.errors import UsageError

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "https://corten.dev/build/v1"
BUILDER = "https://corten.dev/builder/local"
_SOURCE = "source"
_ORIGINAL = "original"
_URL = re.compile(r"[a-z+]+://\S+")


def provenance_json(
    image: Digest,
    *,
    project: Project,
    plan: Plan,
    contents: Sequence[Contents],
    commit: Commit | None,
    corten_version: str,
) -> bytes:
    """The statement about an image built from a project by a plan."""
    document = {
        "_type": STATEMENT,
        "subject": [{"name": plan.name, "digest": {"sha256": image.hex}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _parameters(project, plan),
                "internalParameters": {"compression": plan.packing.value, "lock": plan.lock.inputs},
                "resolvedDependencies": [
                    *_commit(commit),
                    *_base(plan),
                    *_packages(plan.lock),
                    *_files(contents),
                    *_conversion(plan),
                ],
            },
            "runDetails": {"builder": {"id": BUILDER, "version": {"corten": corten_version}}},
        },
    }
    return to_json(document)


def _parameters(project: Project, plan: Plan) -> dict[str, Any]:
    """What the user asked for. Of the deployment's environment only the names: values may be secrets."""
    source, folder = project.source, project.folder
    inside = folder is not None and source.path.is_relative_to(folder)
    document = {
        "name": plan.name,
        "source": source.path.relative_to(folder).as_posix() if inside and folder else source.path.name,
        "entry": source.entry,
        "method": source.method,
        "files": sorted(path.name for path in source.extra_files),
        "requirements": [_URL.sub(lambda url: without_credentials(url[0]), line) for line in source.requirements],
        "python": project.python,
        "base": str(project.base or ""),
        "packages": list(project.packages),
        "platform": str(plan.platform),
        "labels": dict(project.labels),
        "env": sorted(project.settings.env),
        "accelerate": plan.converted is not None,
        "trust": list(plan.spec.trusted),
    }
    return {key: value for key, value in document.items() if value}


def _commit(commit: Commit | None) -> list[dict[str, Any]]:
    if commit is None:
        return []
    # What is not committed cannot be had from the remote: the files' own digests below are what counts then.
    notes = {"dirty": commit.dirty, "path": commit.path, "branch": commit.branch}
    one: dict[str, Any] = {
        "name": _SOURCE,
        "digest": {"gitCommit": commit.revision},
        "annotations": {key: value for key, value in notes.items() if value or key == "dirty"},
    }
    if commit.remote:
        one["uri"] = f"git+{commit.remote}"
    return [one]


def _base(plan: Plan) -> list[dict[str, Any]]:
    pin = plan.lock.base
    if pin is None:
        return []
    notes = {"reference": pin.reference, "manifest": str(pin.manifest)}
    return [
        {
            "name": "base",
            "uri": base_purl(pin, plan.platform),
            "digest": {"sha256": pin.digest.hex},
            "annotations": notes,
        }
    ]


def _packages(lock: Lock) -> list[dict[str, Any]]:
    return [
        *({"uri": deb_purl(deb, lock.release), "digest": {"sha256": deb.digest.hex}} for deb in lock.debs),
        *({"uri": wheel_purl(wheel), "digest": {"sha256": wheel.digest.hex}} for wheel in lock.wheels),
    ]


def _conversion(plan: Plan) -> list[dict[str, Any]]:
    """The model an ONNX file was made of, and the packages that made it."""
    converted = plan.converted
    if converted is None or converted.file is None:
        return []
    digest = converted.conversion.original.removeprefix("sha256:")
    tools = _packages(converted.packages) if converted.packages else []
    here = {one["uri"] for one in _packages(plan.lock)}
    return [
        {"name": _ORIGINAL, "digest": {"sha256": digest}},
        *({**tool, "annotations": {"for": "conversion"}} for tool in tools if tool["uri"] not in here),
    ]


def _files(contents: Sequence[Contents]) -> list[dict[str, Any]]:
    files = sorted((file for one in contents for file in one.files), key=lambda file: file.name)
    return [{"name": file.name, "digest": {"sha256": file.digest.hex}} for file in files]


# Reading back


def predicate_of(data: bytes, where: str) -> Mapping[str, Any]:
    """The predicate of a provenance statement. Raises UsageError `store.malformed`."""
    try:
        document = json.loads(data)
        predicate, kind = dict(document["predicate"]), document["predicateType"]
        if kind == PREDICATE and predicate["buildDefinition"]["buildType"] == BUILD_TYPE:
            return predicate
        why = f"its predicate type is {kind}"
    except (ValueError, KeyError, TypeError) as error:
        raise _malformed(where, f"{type(error).__name__}: {error}") from error
    raise _malformed(where, why)


def _malformed(where: str, why: str) -> UsageError:
    return UsageError("store.malformed", "a malformed provenance statement", where=where, why=why)


def commit_from(predicate: Mapping[str, Any]) -> Commit | None:
    """The commit a provenance names."""
    for one in predicate["buildDefinition"].get("resolvedDependencies", ()):
        if one.get("name") == _SOURCE and "gitCommit" in one.get("digest", {}):
            notes = one.get("annotations", {})
            return Commit(
                revision=str(one["digest"]["gitCommit"]),
                dirty=bool(notes.get("dirty")),
                branch=str(notes.get("branch", "")),
                remote=str(one.get("uri", "")).removeprefix("git+"),
                path=str(notes.get("path", "")),
            )
    return None
