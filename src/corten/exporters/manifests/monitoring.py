"""What watches a deployment, where the Prometheus operator is there to do it."""

from __future__ import annotations

import json

from corten.exporters.base import Workload
from corten.exporters.manifests.names import DEPLOYMENT_LABEL, HTTP, Manifest, manifest, object_name, selector

_OBJECTIVE = 0.999
# Google's SRE workbook, "Alerting on SLOs": how many times too fast the budget of errors burns, seen over two windows.
_BURNS = (("page", 14.4, "1h", "5m"), ("page", 6.0, "6h", "30m"), ("ticket", 1.0, "3d", "6h"))


def watchers(workload: Workload) -> list[Manifest]:
    """A ServiceMonitor, alerts and a dashboard (a ConfigMap that Grafana's sidecar finds by its label)."""
    return [_monitor(workload), _rule(workload), _dashboard(workload)]


def _monitor(workload: Workload) -> Manifest:
    spec = {
        "selector": {"matchLabels": selector(workload, None)},
        "podTargetLabels": ["corten.dev/revision", "corten.dev/track"],
        "endpoints": [{"port": HTTP, "path": "/metrics", "interval": "15s"}],
    }
    return manifest("monitoring.coreos.com/v1", "ServiceMonitor", object_name(workload), workload, spec=spec)


def _rule(workload: Workload) -> Manifest:
    alerts = [_burning(workload, *burn) for burn in _BURNS]
    alerts.append(
        {
            "alert": "CortenModelNotReady",
            "expr": f"sum(corten_ready{{{_of(workload)}}}) == 0",
            "for": "2m",
            "labels": {"severity": "page", DEPLOYMENT_LABEL.replace("/", "_").replace(".", "_"): workload.name},
            "annotations": {"summary": f"no replica of {workload.name} is ready"},
        }
    )
    spec = {"groups": [{"name": f"corten-{workload.name}", "rules": alerts}]}
    return manifest("monitoring.coreos.com/v1", "PrometheusRule", object_name(workload), workload, spec=spec)


def _burning(workload: Workload, severity: str, times: float, long: str, short: str) -> Manifest:
    bound = f"{times * (1 - _OBJECTIVE):.4f}"
    return {
        "alert": "CortenErrorBudgetBurns",
        "expr": f"{failing_share(workload, long)} > {bound} and {failing_share(workload, short)} > {bound}",
        "labels": {"severity": severity, "window": long},
        "annotations": {
            "summary": f"{workload.name} fails {times:g} times as often as {_OBJECTIVE:.1%} good answers allow"
        },
    }


def failing_share(workload: Workload, window: str) -> str:
    """The share of requests that failed, in the words of Prometheus."""
    of = _of(workload)
    bad = f'sum(rate(corten_requests_total{{{of},code=~"5.."}}[{window}]))'
    return f"({bad} / sum(rate(corten_requests_total{{{of}}}[{window}])))"


def _of(workload: Workload) -> str:
    # The operator labels what it scrapes with the service's name; both tracks' services begin with the deployment's.
    names = f"{object_name(workload)}(-canary)?"
    namespace = f',namespace="{workload.cluster.namespace}"' if workload.cluster.namespace else ""
    return f'service=~"{names}"{namespace}'


def _dashboard(workload: Workload) -> Manifest:
    of = _of(workload)
    panels = [
        ("Requests a second", f"sum by (code) (rate(corten_requests_total{{{of}}}[1m]))", "reqps"),
        (
            "Answer time, 99 %",
            f"histogram_quantile(0.99, sum by (le) (rate(corten_request_seconds_bucket{{{of}}}[5m])))",
            "s",
        ),
        ("In flight", f"sum by (pod) (corten_in_flight{{{of}}})", "short"),
        ("Memory", f"process_resident_memory_bytes{{{of}}}", "bytes"),
    ]
    board = {
        "title": f"Corten: {workload.name}",
        "uid": f"corten-{workload.name}"[:40],
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "panels": [_panel(number, *panel) for number, panel in enumerate(panels)],
    }
    made = manifest(
        "v1",
        "ConfigMap",
        f"{object_name(workload)}-dashboard",
        workload,
        data={f"corten-{workload.name}.json": json.dumps(board, separators=(",", ":"))},
    )
    made["metadata"]["labels"]["grafana_dashboard"] = "1"
    return made


def _panel(number: int, title: str, expression: str, unit: str) -> Manifest:
    return {
        "id": number + 1,
        "title": title,
        "type": "timeseries",
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [{"refId": "A", "expr": expression}],
    }
