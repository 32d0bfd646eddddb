"""What an image is made of and how it came to be: model and schema, layers, packages, files, provenance.

Told by the image itself and by what is attached to it (lock, SBOM, provenance); nothing of it is run.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from corten.cli import parser as words
from corten.cli.output import Output, megabytes, table

if TYPE_CHECKING:
    from corten.core.schema import Schema
    from corten.ops.inspect import Inspected

EXAMPLES = """\
  corten inspect digits
  corten inspect sha256:7550d592a156 --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    parser.add_argument("image", help="a name, or the first digits of a digest")
    words.add_platform(parser)


def run(options: argparse.Namespace, output: Output) -> int:
    """Print what is known of an image."""
    from corten.core.home import Home
    from corten.ops.inspect import inspect

    seen = inspect(
        options.image,
        home=Home.from_env(os.environ, uid=os.getuid()),
        platform=words.platform_of(options),
    )
    output.document(seen.as_dict())
    if output.json:
        return 0
    output.result(table(_facts(seen)))
    layers = [("layer", "kind", "stored", "unpacked", "digest")]
    layers += [
        (one.title, one.kind.value, megabytes(one.size_bytes), megabytes(one.tar_bytes), one.digest.short)
        for one in seen.image.layers
    ]
    output.result("\n" + table(layers))
    if seen.files:
        files = [("file", "size", "sha256")]
        files += [(f"/{one.name}", megabytes(one.size_bytes), one.digest.short) for one in seen.files]
        output.result("\n" + table(files))
    kinds = (("wheel", "wheel"), ("deb", "Debian package"), ("apk", "Alpine package"), ("rpm", "rpm package"))
    for kind, title in kinds:
        if packages := seen.of_kind(kind):
            rows = [(title, "version", "licence")]
            rows += [(one.name, one.version, _cut(one.licence)) for one in packages]
            output.result("\n" + table(rows))
    if not seen.attached:
        output.note("\nno lock, SBOM or provenance is attached to it")
    return 0


def _facts(seen: Inspected) -> list[tuple[str, str]]:
    image, spec, provenance = seen.image, seen.spec, seen.provenance
    facts = [
        ("image", seen.reference),
        ("platform", str(image.platform)),
        ("size", f"{megabytes(image.size_bytes)}, unpacked {megabytes(image.tar_bytes)}"),
        *((("base", seen.base),) if seen.base else ()),
        ("entrypoint", " ".join(image.entrypoint)),
        *(("env", f"{name}={text}") for name, text in sorted(image.env.items())),
    ]
    if spec:
        facts.append(("model", " ".join(filter(None, (spec.adapter, spec.entry, f"({spec.method})")))))
    if verdict := seen.acceleration:
        from corten.builder.acceleration import told

        facts.append(("original", f"{verdict.file} {verdict.conversion.original}"))
        facts.append(("acceleration", told(verdict.conversion)))
    if spec and spec.trusted:
        facts.append(("trusted", "may name anything: " + ", ".join(spec.trusted)))
    if spec and spec.schema:
        facts += _schema(spec.schema)
    if provenance:
        source = str(provenance.parameters.get("source", "?"))
        facts.append(("built by", f"Corten {provenance.version} from {'a folder' if source == '.' else source}"))
    if provenance and (commit := provenance.commit):
        place = " ".join(filter(None, (commit.remote, commit.branch, commit.path)))
        facts.append(("git", f"{commit.revision}{' with changes not committed' if commit.dirty else ''} {place}"))
    facts.append(("tested", str(seen.tested) if seen.tested else "no"))
    facts += [("attached", f"{one.digest.short} {one.type} {one.predicate}".rstrip()) for one in seen.attached]
    return facts


def _schema(schema: Schema) -> list[tuple[str, str]]:
    from corten.builder.sbom import inputs_of, outputs_of

    return [
        *(("input", text) for text in inputs_of(schema)),
        *(("output", text) for text in outputs_of(schema)),
    ]


def _cut(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
