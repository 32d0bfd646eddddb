"""What Knative's webhook finds wrong with a Service: fields it has not by default, another template by the same name.

As in `pkg/apis/serving` of knative/serving (`fieldmask.go`, `k8s_validation.go`), with all flags as they come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from corten.testing.kubernetes import statuses
from corten.testing.kubernetes.objects import Object

_WEBHOOK = "validation.webhook.serving.knative.dev"
_POD = {
    "serviceAccountName", "containers", "volumes", "imagePullSecrets", "enableServiceLinks",
    "automountServiceAccountToken", "containerConcurrency", "timeoutSeconds",
}  # fmt: skip
_CONTAINER = {
    "name", "args", "command", "env", "workingDir", "envFrom", "image", "imagePullPolicy", "livenessProbe", "ports",
    "readinessProbe", "resources", "securityContext", "terminationMessagePath", "terminationMessagePolicy",
    "volumeMounts",
}  # fmt: skip
_SECURITY = {
    "capabilities", "readOnlyRootFilesystem", "runAsUser", "runAsGroup", "runAsNonRoot", "allowPrivilegeEscalation",
    "seccompProfile",
}  # fmt: skip
_VOLUME = {"name", "secret", "configMap", "projected", "emptyDir"}
_MOUNT = {"name", "readOnly", "mountPath", "subPath"}
_FROM = {"configMapKeyRef", "secretKeyRef"}
_RESERVED_PATHS = ("/", "/dev", "/dev/log")


def check(live: Object | None, made: Object) -> None:
    """Fills in what Knative does. Raises RefusedError."""
    for target in made["spec"].get("traffic", []):
        target.setdefault("latestRevision", not target.get("revisionName"))
    made["spec"].setdefault("traffic", [{"latestRevision": True, "percent": 100}])
    template = made["spec"]["template"]
    if why := next(iter([*_unknown(template["spec"]), *_wrong(made)]), ""):
        raise statuses.denied(_WEBHOOK, f"validation failed: {why}")
    before = live["spec"]["template"] if live else {}
    name = template["metadata"].get("name", "")
    if name and before.get("metadata", {}).get("name") == name and before != template:
        why = "Saw the following changes without a name change (-old +new): spec.template.metadata.name"
        raise statuses.denied(_WEBHOOK, f"validation failed: {why}")


def _unknown(spec: Object) -> Iterator[str]:
    found = [*_beyond(spec, _POD, "spec.template.spec")]
    if spec.get("automountServiceAccountToken"):
        found.append("spec.template.spec.automountServiceAccountToken")
    for number, container in enumerate(spec["containers"]):
        at = f"spec.template.spec.containers[{number}]"
        found += _beyond(container, _CONTAINER, at)
        found += _beyond(container.get("securityContext", {}), _SECURITY, f"{at}.securityContext")
        found += _beyond(container.get("securityContext", {}).get("capabilities", {}), {"drop"}, f"{at}.capabilities")
        for place, variable in enumerate(container.get("env", [])):
            found += _beyond(variable.get("valueFrom", {}), _FROM, f"{at}.env[{place}].valueFrom")
        for place, mount in enumerate(container.get("volumeMounts", [])):
            found += _beyond(mount, _MOUNT, f"{at}.volumeMounts[{place}]")
    for number, volume in enumerate(spec.get("volumes", [])):
        found += _beyond(volume, _VOLUME, f"spec.template.spec.volumes[{number}]")
    if found:
        yield f"must not set the field(s): {', '.join(found)}"


def _beyond(given: Mapping[str, object], known: Collection[str], at: str) -> list[str]:
    return [f"{at}.{name}" for name in given if name not in known]


def _wrong(made: Object) -> Iterator[str]:
    name, spec = made["metadata"]["name"], made["spec"]
    template = spec["template"]
    revision = template["metadata"].get("name", "")
    if revision and not revision.startswith(f"{name}-"):
        yield f'invalid value: "{revision}" must have prefix "{name}-": spec.template.metadata.name'
    shares = sum(target.get("percent", 0) for target in spec["traffic"])
    if shares != 100:
        yield f"Traffic targets sum to {shares}, want 100: spec.traffic"
    for container in template["spec"]["containers"]:
        ports = container.get("ports", [])
        if len(ports) > 1:
            yield "more than one container port is set: spec.template.spec.containers[*].ports"
        for port in ports:
            if port.get("name", "") not in ("", "h2c", "http1"):
                yield f"Port name {port['name']} is not allowed: spec.template.spec.containers[0].ports"
        for mount in container.get("volumeMounts", []):
            if mount["mountPath"].rstrip("/") in _RESERVED_PATHS:
                yield f'mountPath "{mount["mountPath"]}" is a reserved path: spec.template.spec.containers[0]'
        for probe in ("readinessProbe", "livenessProbe"):
            asked = container.get(probe, {}).get("httpGet", {}).get("port")
            if isinstance(asked, str) and asked not in [port.get("name") for port in ports]:
                yield f"invalid value: {asked}: spec.template.spec.containers[0].{probe}.httpGet.port"
