"""A chart: the same objects, with what differs from place to place as values.

Values replace whole fields; what Corten decides (probes, security, drains) stays as it is. A test renders the templates
with their own values and gets the plain manifests back.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from corten.exporters.base import Workload
from corten.exporters.manifests.knative import refuse_where_it_runs
from corten.exporters.manifests.names import CONTAINER, Manifest
from corten.exporters.manifests.whole import objects
from corten.exporters.yaml_text import Raw, documents

# A chart's version is of its templates (SemVer); which model it runs is `appVersion`.
_CHART_VERSION = "0.1.0"
_EXPRESSION = re.compile(r"\{\{ (?:toJson )?\.Values\.[a-zA-Z.]+(?: \| quote)? \}\}")


class Helm:
    """`helm install NAME FOLDER`, `helm upgrade --set image.digest=...`."""

    name = "helm"

    def render(self, workload: Workload) -> Mapping[str, str]:
        """`Chart.yaml`, `values.yaml`, `templates/`."""
        refuse_where_it_runs(self.name, workload)
        # Where it is to be is said to helm.
        found = objects(replace(workload, cluster=replace(workload.cluster, namespace="")))
        values = _values(workload, found)
        chart = {
            "apiVersion": "v2",
            "name": workload.name,
            "description": f"The model {workload.name}, as a service",
            "type": "application",
            "version": _CHART_VERSION,
            "appVersion": workload.version,
        }
        return {
            "Chart.yaml": documents([chart]),
            "values.yaml": documents([values]),
            **{
                f"templates/{one['kind'].lower()}-{one['metadata']['name']}.yaml": _escaped(one, values)
                for one in found
            },
        }


def _values(workload: Workload, found: list[Manifest]) -> dict[str, Any]:
    deployment = next(one for one in found if one["kind"] == "Deployment")
    values: dict[str, Any] = {
        "image": {
            "repository": f"{workload.image.registry}/{workload.image.repository}",
            "digest": str(workload.image.digest),
        },
        "resources": copy.deepcopy(_container(deployment)["resources"]),
        "nodeSelector": {},
    }
    if "replicas" in deployment["spec"]:
        values["replicas"] = deployment["spec"]["replicas"]
    scaler = next((one for one in found if one["kind"] == "HorizontalPodAutoscaler"), None)
    if scaler is not None:
        values["autoscaling"] = {key: scaler["spec"][key] for key in ("minReplicas", "maxReplicas")}
    if workload.host:
        values["host"] = workload.host
    return values


def _escaped(one: Manifest, values: Mapping[str, Any]) -> str:
    """What is no expression of ours must not be taken for one: a dashboard, a variable's value."""
    mark = "\x00"
    text = documents([_template(one, values)])
    # Ours alone speak of values: they are set aside while all other braces are made literal.
    ours = _EXPRESSION.findall(text)
    plain = _EXPRESSION.sub(mark, text).replace("{{", "{{ `{{` }}")
    for expression in ours:
        plain = plain.replace(mark, expression, 1)
    return plain


def _template(one: Manifest, values: Mapping[str, Any]) -> Manifest:
    made = copy.deepcopy(one)
    match made["kind"]:
        case "Deployment":
            pod = made["spec"]["template"]
            container = _container(made)
            container["image"] = Raw('"{{ .Values.image.repository }}@{{ .Values.image.digest }}"')
            container["resources"] = Raw("{{ toJson .Values.resources }}")
            pod["spec"]["nodeSelector"] = Raw("{{ toJson .Values.nodeSelector }}")
            for annotated in (made["metadata"], pod["metadata"]):
                annotated["annotations"]["corten.dev/image"] = container["image"]
            if "replicas" in values:
                made["spec"]["replicas"] = Raw("{{ .Values.replicas }}")
        case "HorizontalPodAutoscaler":
            for key in values["autoscaling"]:
                made["spec"][key] = Raw(f"{{{{ .Values.autoscaling.{key} }}}}")
        case "HTTPRoute" if "host" in values:
            made["spec"]["hostnames"] = [Raw("{{ .Values.host | quote }}")]
        case _:
            pass
    return made


def _container(deployment: Manifest) -> Manifest:
    containers: list[Manifest] = deployment["spec"]["template"]["spec"]["containers"]
    return next(each for each in containers if each["name"] == CONTAINER)
