"""Try a model's ONNX form in a throw-away image: the conversion runs the model, so it runs where models run.

The builder's side runs nothing of a model. The image gets the model's own wheels and the converters, locked with
hashes; it is started in the embedded engine's sandbox, leaves its verdict beside its socket, and is gone. Verdicts are
kept by what decides them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

import corten
from corten import plugin
from corten.adapters.onnx_file import read_onnx
from corten.builder import image as documents
from corten.builder import runtime
from corten.builder.acceleration import (
    COMMAND,
    Converted,
    accelerated_inputs,
    accelerated_plan,
    converter_inputs,
    converter_plan,
    told,
)
from corten.builder.layer import cache_key
from corten.builder.lock import Inputs, Lock
from corten.builder.oci_base import OciBase
from corten.builder.pipeline import Making, Workshop, spec_json
from corten.builder.plan import Plan
from corten.control.last_lines import for_people
from corten.core.acceleration import CONVERTED_ADAPTERS, ONNX_FILE, REPORT_FILE, Accelerate, Conversion
from corten.core.digest import Digest
from corten.core.events import Event, Phase
from corten.core.home import Home
from corten.core.image import CONFIG, MANIFEST
from corten.core.platform import Platform
from corten.engine.base import Engine, ReplicaSpec
from corten.errors import CortenError, UsageError
from corten.ops.quarters import quarters
from corten.store.writing import translated

_STEP: Final = "accelerate"
_ENGINE: Final = "embedded"
_PREFIX: Final = "onnx-"
_LONGEST_S: Final = 900.0
_LOOK_S: Final = 0.02
_MOST_REPORT_BYTES: Final = 1 << 20
_MOST_MODEL_BYTES: Final = 4 << 30
# Sets of texts have another order in each process unless this is set; what is written must not depend on it.
_ENV: Final = {"PYTHONHASHSEED": "0"}


@dataclass(frozen=True, slots=True)
class Attempts:
    """What an attempt is made with: `lock` obtains the lock for some inputs."""

    wish: Accelerate
    shop: Workshop
    making: Making
    home: Home
    env: Mapping[str, str]
    lock: Callable[[Inputs], Lock]


def accelerated(plan: Plan, inputs: Inputs, attempts: Attempts, converted: Converted | None = None) -> Plan:
    """The plan of the model's ONNX form where it answers the same, else the plan itself with the reason in it.

    `converted` is a verdict there is already: of another platform of this build, or of the process that trained the
    model. Raises CortenError `build.not_accelerated` when the wish is REQUIRE, and what locking raises.
    """
    listen = attempts.shop.listen
    if converted is None:
        listen(Event(_STEP, Phase.STARTED, plan.name))
        began_s = time.perf_counter()
        converted = _converted(plan, inputs, attempts)
        figures = {"seconds": time.perf_counter() - began_s, "accelerated": converted.conversion.accelerated}
        listen(Event(_STEP, Phase.DONE, told(converted.conversion), figures))
    else:
        listen(Event(_STEP, Phase.DONE, told(converted.conversion), {"cached": True}))
    if converted.file is None:
        if attempts.wish is Accelerate.REQUIRE:
            raise CortenError(
                "build.not_accelerated",
                f"`{plan.name}` has no equal in ONNX",
                where=plan.spec.files[0] if plan.spec.files else "",
                why=converted.conversion.reason,
                hint="build with --accelerate auto to keep the original then",
            )
        return replace(plan, converted=converted)
    return accelerated_plan(plan, attempts.lock(accelerated_inputs(plan, inputs, converted)), converted)


def _converted(plan: Plan, inputs: Inputs, attempts: Attempts) -> Converted:
    if plan.spec.adapter not in CONVERTED_ADAPTERS:
        return Converted(Conversion("", f"models of the kind `{plan.spec.adapter}` are not converted"))
    here = Platform.of_machine()
    if isinstance(plan.base, OciBase) and plan.platform != here:
        return Converted(
            Conversion("", f"its base is for {plan.platform}, and converting runs on this machine, {here}")
        )
    original = next(one.path for group in plan.weights for one in group.files if one.name == plan.spec.files[0])
    digest = str(Digest.of_file(original))
    try:
        packages = attempts.lock(converter_inputs(plan, inputs, here))
    except UsageError as error:
        if error.code != "build.lock_failed":
            raise
        return Converted(Conversion(digest, f"the converters do not go with its packages: {error.why[:300]}"))
    place = attempts.home.cache / "conversions" / _key(plan, packages, digest)
    if (kept := _kept(place, packages)) is None:
        kept = _kept_at(place, _run(converter_plan(plan, packages), attempts, digest), packages)
    return kept


def _key(plan: Plan, packages: Lock, digest: str) -> str:
    """What decides a verdict: the file, what is known of the model, all that is installed, and our own code."""
    code = hashlib.sha256()
    for entry in runtime.entries(Path(corten.__file__).parent, plan.python):
        code.update(entry.data if isinstance(entry.data, bytes) else b"")
    spec = spec_json(msgspec.structs.replace(plan.spec, name=""))
    wheels = (str(wheel.digest) for wheel in packages.wheels)
    return cache_key("conversion", code.hexdigest(), digest, spec.decode(), str(packages.platform), *wheels)


def _kept(place: Path, packages: Lock) -> Converted | None:
    try:
        conversion = msgspec.json.decode((place / REPORT_FILE).read_bytes(), type=Conversion)
    except (OSError, msgspec.DecodeError):
        return None
    file = place / ONNX_FILE if conversion.accelerated else None
    return Converted(conversion, file, packages) if file is None or file.is_file() else None


def _kept_at(place: Path, found: tuple[Conversion, bytes, bool], packages: Lock) -> Converted:
    """Put a verdict where the next build looks for it; one the machine is to blame for is not kept."""
    conversion, model, lasting = found
    if not lasting:
        return Converted(conversion, None, packages)
    with translated(place, "write the cache"):
        unfinished = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
        unfinished.mkdir(parents=True)
        (unfinished / REPORT_FILE).write_bytes(msgspec.json.encode(conversion))
        if conversion.accelerated:
            (unfinished / ONNX_FILE).write_bytes(model)
        shutil.rmtree(place, ignore_errors=True)
        unfinished.rename(place)
    return Converted(conversion, place / ONNX_FILE if conversion.accelerated else None, packages)


def _run(plan: Plan, attempts: Attempts, digest: str) -> tuple[Conversion, bytes, bool]:
    """Verdict, model, and whether another run would say the same."""
    kind = plugin.find("engines", _ENGINE)
    engine: Engine = kind.from_env(attempts.home, attempts.env, listen=attempts.shop.listen)
    if engine.describe().get("sandbox", "none").startswith("none"):
        reason = "converting runs the model, and there is no sandbox here to run it in (corten doctor)"
        attempts.shop.listen(Event(_STEP, Phase.WARNING, reason))
        return Conversion(digest, reason), b"", False
    image = _image(plan, attempts)
    engine.prepare(image)
    with quarters(attempts.home, kind, _PREFIX) as rooms:
        return _watched(image, plan, digest, kind.from_env(rooms, attempts.env))


def _image(plan: Plan, attempts: Attempts) -> Digest:
    """The throw-away image, in the store without a name: the next collection takes it."""
    layout = attempts.shop.layout
    layers = [made.layer for made in attempts.making.layers(plan)]
    config = layout.put(documents.config_json(plan, layers, COMMAND), CONFIG)
    return layout.put(documents.manifest_json(config, layers), MANIFEST).digest


def _watched(image: Digest, plan: Plan, digest: str, engine: Engine) -> tuple[Conversion, bytes, bool]:
    replica = ReplicaSpec(id=f"onnx-r1-{secrets.token_hex(3)}", deployment=plan.name, revision=1, image=image, env=_ENV)
    try:
        observed = engine.start(replica)
        folder = Path(observed.address).parent
        until_s = time.monotonic() + _LONGEST_S
        while (seen := next(one for one in engine.list() if one.id == replica.id)).running:
            if time.monotonic() > until_s:
                return Conversion(digest, f"converting it took more than {_LONGEST_S:g} s"), b"", False
            time.sleep(_LOOK_S)
        report = _file(folder / REPORT_FILE, _MOST_REPORT_BYTES)
        if seen.exit_code != 0 or report is None:
            lines = [for_people(line) for line in engine.logs(replica.id, tail=3)]
            return (
                Conversion(digest, f"the converter ended with {seen.exit_code}: {' '.join(lines)[-400:]}"),
                b"",
                False,
            )
        return *_checked(report, _file(folder / ONNX_FILE, _MOST_MODEL_BYTES), folder / ONNX_FILE, digest), True
    finally:
        engine.remove(replica.id)


def _checked(report: bytes, model: bytes | None, path: Path, digest: str) -> tuple[Conversion, bytes]:
    """What came out of the sandbox, where a stranger's model may have run: looked at before anything relies on it."""
    try:
        conversion = msgspec.json.decode(report, type=Conversion)
    except msgspec.DecodeError as error:
        return Conversion(digest, f"the converter's report cannot be read: {error}"), b""
    if conversion.original != digest:
        return Conversion(digest, "the converter's report is about another file"), b""
    if not conversion.accelerated:
        return conversion, b""
    if model is None or read_onnx(path).external:
        return Conversion(digest, "the converter left no whole ONNX file"), b""
    return conversion, model


def _file(path: Path, most_bytes: int) -> bytes | None:
    """A plain file a sandbox left; None for links, pipes, what is too large or not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        seen = os.fstat(descriptor)
        return stream.read() if stat.S_ISREG(seen.st_mode) and seen.st_size <= most_bytes else None
