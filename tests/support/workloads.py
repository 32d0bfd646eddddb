"""Workloads as anybody might want them, for properties of what is made from them."""

from dataclasses import replace

from hypothesis import strategies as st

from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.reference import Reference
from corten.core.resources import Resources
from corten.core.rest import Strategy
from corten.exporters.base import Addition, Cluster, SecretVariable, Workload

VERSIONS = [(1, minor) for minor in range(29, 38)]
NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True)
REFERENCES = st.builds(
    Reference,
    st.sampled_from(["ghcr.io", "localhost:5000", "registry.example.com:443"]),
    st.sampled_from(["team/fraud", "a", "a.b/c_d/e-f"]),
    digest=st.binary(max_size=4).map(Digest.of),
)
RANGES = st.tuples(st.integers(1, 64), st.integers(0, 64))


@st.composite
def settings(draw):
    least, more = draw(RANGES)
    return Settings(
        replicas=least,
        most_replicas=min(64, least + more),
        concurrency=draw(st.integers(1, 4096)),
        env=draw(st.dictionaries(st.from_regex(r"[A-Z_]{1,12}", fullmatch=True), st.text(max_size=20), max_size=3)),
        egress=draw(st.booleans()),
        ready_timeout_s=draw(st.floats(0, 3600)),
        drain_s=draw(st.floats(0, 600)),
        request_timeout_s=draw(st.floats(0.001, 600)),
        grpc=draw(st.booleans()),
        resources=Resources(
            draw(st.just(0) | st.integers(32 << 20, 1 << 40)),
            draw(st.just(0.0) | st.floats(0.05, 1024.0)),
            draw(st.integers(0, 8)),
        ),
        strategy=draw(st.sampled_from([Strategy.AUTO, Strategy.SURGE])),
        pinnable=draw(st.booleans()),
    )


def _sound(workload):
    """Without a gateway there are no routes."""
    cluster = workload.cluster
    if cluster.has(Addition.GATEWAY_API):
        return replace(workload, host=workload.host if cluster.gateway else "")
    return replace(workload, host="", cluster=replace(cluster, gateway=""))


CLUSTERS = st.builds(
    Cluster,
    version=st.sampled_from(VERSIONS),
    additions=st.frozensets(st.sampled_from([Addition.GATEWAY_API, Addition.KEDA, Addition.PROMETHEUS])),
    namespace=st.sampled_from(["", "models"]),
    gateway=st.sampled_from(["", "public", "infra/public"]),
    pull_secrets=st.sampled_from([(), ("pull",)]),
    priority_class=st.sampled_from(["", "high"]),
    user_namespaces=st.booleans(),
)
WORKLOADS = st.builds(
    Workload,
    NAMES,
    REFERENCES,
    settings(),
    revision=st.sampled_from(["", "r3"]),
    weights=st.none() | REFERENCES,
    secrets=st.sampled_from([(), (SecretVariable("a_token", "hub", "token"),)]),
    host=st.sampled_from(["", "fraud.example.com"]),
    notes=st.sampled_from([{}, {"commit": "4f0c"}]),
    cluster=CLUSTERS,
).map(_sound)
