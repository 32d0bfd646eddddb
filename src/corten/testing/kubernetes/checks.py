"""What the API server finds wrong with the meaning of an object, once its fields are known."""

from __future__ import annotations

import json

from corten.cluster.kinds import KNATIVE_SERVICE, Kind
from corten.testing.kubernetes import knative_webhook, statuses
from corten.testing.kubernetes.objects import Key, Object

_NODE_PORTS = range(30_000, 32_768)


def check(kind: Kind, key: Key, live: Object | None, made: Object, *, dry: bool = False) -> None:
    """Fills in the defaults that matter here. Raises RefusedError."""
    name, spec = key[2], made.get("spec", {})
    if kind == KNATIVE_SERVICE:
        knative_webhook.check(live, made)
    if kind.plural == "deployments":
        spec.setdefault("replicas", 1)
        if live and live["spec"]["selector"] != spec["selector"]:
            why = f"{json.dumps(spec['selector'])}: field is immutable"
            raise statuses.invalid(kind.name, kind.group, name, "spec.selector", why)
        labels = spec["template"]["metadata"].get("labels", {})
        if any(labels.get(label) != value for label, value in spec["selector"].get("matchLabels", {}).items()):
            why = f"{json.dumps(labels)}: `selector` does not match template `labels`"
            raise statuses.invalid(kind.name, kind.group, name, "spec.template.metadata.labels", why)
    if live and live.get("immutable") and live.get("data") != made.get("data"):
        why = "field is immutable when `immutable` is set"
        raise statuses.invalid(kind.name, kind.group, name, "data", why)
    if (kind.name, kind.group) == ("Service", ""):
        for number, port in enumerate(spec.get("ports", [])):
            # A dry run allocates nothing, and so does not find this.
            if not dry and port.get("nodePort", _NODE_PORTS.start) not in _NODE_PORTS:
                why = f"{port['nodePort']}: provided port is not in the valid range"
                raise statuses.invalid(kind.name, kind.group, name, f"spec.ports[{number}].nodePort", why)
    if kind.plural == "horizontalpodautoscalers" and spec.get("minReplicas") == 0:
        why = "0: must be greater than or equal to 1"
        raise statuses.invalid(kind.name, kind.group, name, "spec.minReplicas", why)
