"""Build an image from a trained model: inspect, lock, make layers, put them together. No daemon, no root, no network
once locked.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from corten.adapters.base import Inspection
from corten.builder import image as documents
from corten.builder import lock as locks
from corten.builder import locking, proof
from corten.builder import plan as planning
from corten.builder.debian.release import DEFAULT_MIRROR, RELEASES, Deb, Release, minor_version
from corten.builder.download import Downloader
from corten.builder.index import index_json
from corten.builder.indexes import check_hashes, with_indexes
from corten.builder.inspecting import inspect
from corten.builder.lineage import Commit, commit_of
from corten.builder.lock import Inputs, Lock
from corten.builder.locking import Early, Rules, Sources
from corten.builder.oci_base import OciBase
from corten.builder.pipeline import Making, Workshop
from corten.builder.plan import Plan, WeightGroup
from corten.builder.pylock import Locked
from corten.builder.remote import Access, shown
from corten.builder.sizes import check_budget, packages_by_layer
from corten.builder.source import Project, read_project
from corten.builder.weights_image import store_weights, weights_name
from corten.core.acceleration import CONVERTED_ADAPTERS, Accelerate
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.home import Home
from corten.core.image import CONFIG, INDEX, MANIFEST, Descriptor, Image, Layer, LayerKind, Packing
from corten.core.model import Example
from corten.core.platform import Platform
from corten.ops.built import Built, report
from corten.store.guard import using
from corten.store.layout import Layout

if TYPE_CHECKING:
    from corten.builder.acceleration import Converted
    from corten.ops.oci_base import Bases
    from corten.ops.sign import Signer


def build(
    source: str | Path,
    *,
    home: Home | None = None,
    name: str = "",
    platform: Platform | Sequence[Platform] | None = None,
    requirements: Iterable[str] = (),
    method: str = "",
    extra_files: Iterable[str | Path] = (),
    example: Example | None = None,
    base: str = "",
    locked: bool = False,
    frozen: bool = False,
    offline: bool = False,
    upgrade: bool = False,
    dry_run: bool = False,
    max_image_mb: float | None = None,
    test: bool = False,
    max_cold_start_s: float | None = None,
    sign_key: str | Path = "",
    weights_image: bool = False,
    accelerate: Accelerate | None = None,
    converted: Converted | None = None,
    trust: Iterable[str] = (),
    packing: Packing | None = None,
    plain_http: bool = False,
    ca: str | Path | None = None,
    now_s: float | None = None,
    listen: Listener = nobody,
    mirror: str = "",
    env: Mapping[str, str] | None = None,
) -> Built:
    """Build an image and tag it with its name in the local store.

    `source` is a model file, `file.py:Class` or a folder (with `corten.toml`, `[tool.corten]` or one model in it).
    `base` (else the project's own) is an image to build on, `registry/repository:tag@digest`, instead of packages of
    Debian; `ca` and `plain_http` are about its registry, as for `pull`. `locked` forbids changing the lock, `frozen`
    takes the project's as it is without asking whether it fits, `offline` forbids the network, `upgrade` makes the lock
    anew, `dry_run` ends with the plan. `packing` (else the project's own) is how layers are stored. `mirror` is
    Debian's (else CORTEN_DEBIAN_MIRROR, else deb.debian.org). Several platforms make one image each and an index over
    them, which gets the name; nothing of another platform is run. `max_image_mb` (else the project's own) is what an
    image's stored layers may take, in 10^6 bytes; 0 is no limit. `test` starts the image, asks it and compares with
    what was recorded before it gets its name; `max_cold_start_s` (else the project's own), a limit for how long it
    takes to get ready, asks for that test too. `weights_image` makes `NAME-weights` besides: the same weights as an
    image to mount. `accelerate` (else the project's own) exchanges the model for its ONNX form: never, where it answers
    the same, or else the build fails; `converted` is a verdict on that there is already. `trust` are digests or paths
    of model files that may name what no model needs. `sign_key` (else CORTEN_SIGN_KEY) is the file of a private key to
    sign with.

    Raises any CortenError; nothing half-built is visible then.
    """
    env = os.environ if env is None else env
    home = home or Home.from_env(env, uid=os.getuid())
    now_s = time.time() if now_s is None else now_s
    steps = _Steps(listen)
    signer = _signer(sign_key or env.get("CORTEN_SIGN_KEY", ""), env)  # a key that cannot be read ends it at once
    project = read_project(
        source,
        name=name,
        requirements=requirements,
        method=method,
        extra_files=extra_files,
        base=base,
        trust=trust,
    )
    rules = Rules(frozen=frozen, locked=locked, offline=offline, anew=upgrade, dry=dry_run)
    rules.check()
    env = with_indexes(env, project)
    access = Access.from_env(env, project.source.requirements)
    wanted = _platforms(platform)
    layout = Layout(home.store)

    @cache
    def bases() -> Bases:
        # The client of registries, 50 ms to load, is for a base of another image only.
        from corten.ops.oci_base import Bases
        from corten.ops.transfers import session

        talk = partial(session, plain_http=plain_http, ca=ca, env=env)
        return Bases(layout, home.cache, talk, steps.listen, offline=offline)

    with Downloader(access, offline=offline, listen=steps.listen) as downloads:
        sources = Sources(env, mirror or env.get("CORTEN_DEBIAN_MIRROR", "") or DEFAULT_MIRROR, access, downloads)
        made = _Locking(project, home, rules, sources, bases, now_s, steps)
        plan_for = partial(_plan, made, example=example, packing=packing or project.packing)
        if dry_run:
            with using(home.store) if project.base else nullcontext():
                return _whole([Built(project.name, plan_for(one)[0], project, None) for one in wanted], None, steps)
        layout.sweep(now_s=now_s)
        shop = Workshop(layout, home.cache, access, downloads, offline, time.perf_counter, steps.listen)
        wish = project.accelerate if accelerate is None else accelerate
        with using(home.store), Making(shop) as making:
            planned = [plan_for(one, making=making, exchanged=wish is not Accelerate.OFF) for one in wanted]
            plans = _accelerated(planned, converted, wish=wish, made=made, shop=shop, making=making, env=env)
            budget_mb = project.max_image_mb if max_image_mb is None else max_image_mb
            commit = commit_of(project.folder or project.source.path, env)
            built = [_make(project, plan, making, shop, steps, budget_mb=budget_mb, commit=commit) for plan in plans]
            limit_s = project.max_cold_start_s if max_cold_start_s is None else max_cold_start_s
            if test or limit_s:
                built = [_tested(one, layout, home, env, steps, limit_s=limit_s) for one in built]
            weights = _weights(built, layout) if weights_image else None
            index = _name(project.name, built, layout)
            if signer:
                _sign(signer, project.name, layout, steps)
    return replace(_whole(built, index, steps), weights=weights)


def _signer(key: str | Path, env: Mapping[str, str]) -> Signer | None:
    if not key:
        return None
    from corten.ops.sign import Signer  # OpenSSL takes 50 ms to load

    return Signer.open(key, env)


def _sign(signer: Signer, name: str, layout: Layout, steps: _Steps) -> None:
    began_s = time.perf_counter()
    signed = signer.sign(layout, name)
    figures = {"seconds": time.perf_counter() - began_s, "digest": str(signed.digest)}
    steps.listen(Event("sign", Phase.DONE, f"{len(signed.statements)} statements", figures))


def _weights(built: Sequence[Built], layout: Layout) -> Descriptor:
    name = weights_name(built[0].name)
    weights = store_weights(built[0].spec, [one.image for one in built if one.image], layout)
    layout.tag(name, weights)
    return weights


def _platforms(given: Platform | Sequence[Platform] | None) -> tuple[Platform, ...]:
    if isinstance(given, Platform):
        return (given,)
    return tuple(dict.fromkeys(given or ())) or (Platform.of_machine(),)


def _make(
    project: Project,
    plan: Plan,
    making: Making,
    shop: Workshop,
    steps: _Steps,
    *,
    budget_mb: float,
    commit: Commit | None,
) -> Built:
    made = making.layers(plan)
    layers = [one.layer for one in made]
    check_budget(plan, layers, budget_mb)
    image, manifest = _assemble(plan, layers, shop.layout, steps)
    steps.listen(Event("proof", Phase.STARTED, plan.name))
    began_s = time.perf_counter()
    proof.attach(image, manifest, project=project, plan=plan, layout=shop.layout, cache=shop.cache, commit=commit)
    figures = {"seconds": time.perf_counter() - began_s}
    steps.listen(Event("proof", Phase.DONE, "lock, SBOM, provenance", figures))
    if plan.converted:
        from corten.builder.acceleration import attach as attach_verdict

        file, conversion = project.source.path.name, plan.converted.conversion
        attach_verdict(shop.layout, manifest, name=plan.name, file=file, conversion=conversion)
    contents = packages_by_layer(plan, layers)
    reports = (report(one, packages) for one, packages in zip(made, contents, strict=True))
    return Built(project.name, plan, project, image, tuple(reports))


def _tested(one: Built, layout: Layout, home: Home, env: Mapping[str, str], steps: _Steps, *, limit_s: float) -> Built:
    """An image with what its test found; one of another platform is told of and left as it is."""
    # The engine and the daemon's client, 15 ms to load, which a build without a test does without.
    from corten.builder.gate import attach_gate
    from corten.ops.gate import run_gate

    if one.image is None or one.plan.platform != Platform.of_machine():
        steps.listen(Event("gate", Phase.WARNING, f"{one.plan.platform} cannot run here and was not tested"))
        return one
    steps.listen(Event("gate", Phase.STARTED, one.name))
    began_s = time.perf_counter()
    gate = run_gate(
        one.image.digest,
        one.spec,
        one.project.settings,
        home=home,
        env=env,
        max_cold_start_s=limit_s,
        listen=steps.listen,
    )
    manifest = layout.put(layout.read(one.image.digest), MANIFEST)
    code = next(layer.digest for layer in one.image.layers if layer.kind is LayerKind.CODE)
    attach_gate(layout, manifest, name=one.name, code=code, checks=gate.checks)
    if gate.unused:
        told = ", ".join(f"{each.name} {each.size_bytes / 1e6:.1f} MB" for each in gate.unused)
        steps.listen(Event("gate", Phase.NOTE, f"nothing of these packages was loaded, unpacked sizes: {told}"))
    figures = {"seconds": time.perf_counter() - began_s, "ready_s": gate.ready_s}
    steps.listen(Event("gate", Phase.DONE, gate.told, figures))
    return replace(one, gate=gate)


def _name(name: str, built: Sequence[Built], layout: Layout) -> Descriptor | None:
    """Let the name point at the image, or at an index when there are several; gives the index."""
    manifests = [(one.plan.platform, layout.put(layout.read(one.digest), MANIFEST)) for one in built]
    if len(manifests) == 1:
        layout.tag(name, manifests[0][1])
        return None
    index = layout.put(index_json(manifests), INDEX)
    layout.tag(name, index)
    return index


def _whole(built: Sequence[Built], index: Descriptor | None, steps: _Steps) -> Built:
    here = os.uname().machine
    first = next((one for one in built if one.plan.platform.machine == here), built[0])
    several = tuple(built) if len(built) > 1 else ()
    return replace(first, seconds=steps.total_s, steps=dict(steps.seconds), index=index, platforms=several)


def _accelerated(
    planned: Sequence[tuple[Plan, Inputs]],
    converted: Converted | None,
    *,
    wish: Accelerate,
    made: _Locking,
    shop: Workshop,
    making: Making,
    env: Mapping[str, str],
) -> list[Plan]:
    """The plans with the model's ONNX form where it is as good. One verdict serves all platforms."""
    if wish is Accelerate.OFF:
        if planned[0][0].spec.adapter in CONVERTED_ADAPTERS:
            note = "as ONNX it may answer many times faster: --accelerate auto tries, and keeps what agrees"
            made.steps.listen(Event("accelerate", Phase.NOTE, note))
        return [plan for plan, _ in planned]
    from corten.ops.acceleration import Attempts, accelerated  # the engine, for who asks for it

    attempts = Attempts(wish, shop, making, made.home, env, made.obtain)
    plans: list[Plan] = []
    for plan, inputs in planned:
        plans.append(accelerated(plan, inputs, attempts, converted))
        converted = plans[-1].converted
    return plans


@dataclass(frozen=True, slots=True)
class _Locking:
    """How this build comes by its locks."""

    project: Project
    home: Home
    rules: Rules
    sources: Sources
    bases: Callable[[], Bases]
    now_s: float
    steps: _Steps

    def obtain(self, inputs: Inputs, early: Early | None = None) -> Lock:
        return locking.obtain(
            inputs,
            RELEASES[inputs.release] if inputs.release else None,
            beside=self.project.lock_file,
            cache=self.home.cache,
            rules=self.rules,
            sources=self.sources,
            now_s=self.now_s,
            clock=time.perf_counter,
            listen=self.steps.listen,
            early=early,
        )


def _plan(
    made: _Locking,
    platform: Platform,
    *,
    example: Example | None,
    packing: Packing,
    making: Making | None = None,
    exchanged: bool = False,
) -> tuple[Plan, Inputs]:
    """What to make, and of what. `exchanged`: the model may give way to another form of it."""
    project, home, steps, rules = made.project, made.home, made.steps, made.rules
    steps.listen(Event("inspect", Phase.STARTED, str(project.source.path)))
    began_s = time.perf_counter()
    _, inspection = inspect(project.source, cache=home.cache)
    for note in inspection.notes:
        steps.listen(Event("inspect", Phase.NOTE, note))
    for warning in inspection.warnings:
        steps.listen(Event("inspect", Phase.WARNING, warning))
    figures = {"seconds": time.perf_counter() - began_s, "adapter": inspection.adapter}
    seen = [*(inspection.notes[:2] or (inspection.adapter,))]
    if inspection.requirements or project.source.requirements:
        seen.append(shown(planning.needs_of(project, inspection)))
    steps.listen(Event("inspect", Phase.DONE, "; ".join(seen), figures))
    lock = locking.frozen(project.lock_file, platform) if rules.frozen and project.lock_file else None
    base = _base(project, inspection, platform, bases=made.bases, rules=rules, frozen=lock)
    sizes = {file.name: file.path.stat().st_size for file in inspection.weights}

    inputs = Inputs(
        requirements=planning.requirements_of(project, inspection),
        packages=project.packages,
        release=base.codename if isinstance(base, Release) else "",
        python=base.interpreter if isinstance(base, Release) else base.python,
        platform=platform,
        gpu=project.gpu,
        constraints=inspection.constraints,
        base=None if isinstance(base, Release) else base.pin,
    )
    if lock is None:
        weights = planning.group_weights(inspection.weights, sizes)
        if making and not exchanged:
            making.begin_weights(weights)
        early = _early(making, base, platform, packing, weights) if making else None
        lock = made.obtain(inputs, early)
    check_hashes(project, inspection, lock)
    for warning in planning.overruled(inspection, lock):
        steps.listen(Event("lock", Phase.WARNING, warning))
    plan = planning.plan(
        project,
        inspection,
        lock,
        base=base,
        platform=platform,
        spec=planning.spec_of(project, inspection, example),
        sizes=sizes,
        packing=packing,
    )
    return plan, inputs


def _early(
    making: Making, base: Release | OciBase, platform: Platform, packing: Packing, weights: Sequence[WeightGroup]
) -> Early:
    """Layers begun while the lock is still being made: a second of a cold build."""

    def debs(found: tuple[Deb, ...]) -> None:
        if isinstance(base, Release):
            making.begin_base(found, base, platform, packing)

    def wheels(found: tuple[Locked, ...]) -> None:
        groups = planning.group_wheels(found, most=planning.wheel_layers(base, len(weights)))
        making.begin_wheels(groups, base.interpreter if isinstance(base, Release) else base.python, packing)

    return Early(debs, wheels)


def _base(
    project: Project,
    inspection: Inspection,
    platform: Platform,
    *,
    bases: Callable[[], Bases],
    rules: Rules,
    frozen: Lock | None,
) -> Release | OciBase:
    """What the image stands on: as a lock that is taken as it is has it, or as the project asks for it."""
    if frozen:
        from corten.ops.oci_base import base_of

        return base_of(frozen, bases())
    if project.base is None:
        return planning.release_of(project, inspection)
    known = locks.for_platform(locks.read(project.lock_file), platform) if project.lock_file else None
    pin = bases().pin(project.base, platform, known.base if known else None, rules)
    return bases().obtain(pin, platform, asked=project.python, preferred=minor_version(inspection.python))


def _assemble(plan: Plan, layers: Sequence[Layer], layout: Layout, steps: _Steps) -> tuple[Image, Descriptor]:
    steps.listen(Event("image", Phase.STARTED, plan.name))
    began_s = time.perf_counter()
    config = layout.put(documents.config_json(plan, layers), CONFIG)
    manifest = layout.put(documents.manifest_json(config, layers, documents.base_notes(plan)), MANIFEST)
    image = layout.image(manifest.digest)
    figures = {"seconds": time.perf_counter() - began_s, "bytes": image.size_bytes, "digest": str(image.digest)}
    steps.listen(Event("image", Phase.DONE, f"{plan.name}@{image.digest} for {plan.platform}", figures))
    return image, manifest


class _Steps:
    """Passes events on, one at a time though they come from several threads, and keeps the seconds they tell."""

    def __init__(self, listen: Listener) -> None:
        self.seconds: dict[str, float] = {}
        self._listen = listen
        self._lock = threading.Lock()
        self._began_s = time.perf_counter()

    @property
    def total_s(self) -> float:
        return time.perf_counter() - self._began_s

    def listen(self, event: Event) -> None:
        with self._lock:
            if event.phase is Phase.DONE:
                self.seconds[event.step] = self.seconds.get(event.step, 0.0) + event.data.get("seconds", 0.0)
            self._listen(event)
