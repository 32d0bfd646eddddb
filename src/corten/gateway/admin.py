"""Envoy's admin page, asked over its unix socket."""

from __future__ import annotations

import asyncio
import collections
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httptools
import msgspec

from corten.core.route import Endpoint
from corten.core.traffic import Tally, Traffic
from corten.errors import EngineError
from corten.gateway.resources import GRPC

Key = TypeVar("Key", str, float, int)
# grpc-status by what HTTP would have said (google.rpc.Code): of the server's making, or of the request's. Cancelled (1)
# is the client's own wish.
_GRPC_FAILED = frozenset({2, 4, 13, 14, 15})
_GRPC_REFUSED = frozenset({3, 5, 6, 7, 8, 9, 10, 11, 12, 16})

_ASK_S = 5.0
_TRAFFIC_STATS = r"^cluster\..*/.*\.(upstream_rq_(completed|active|[45]xx|time)|grpc\.[0-9]+)$"
_SAMPLE = re.compile(
    r"envoy_cluster_(upstream_rq_(?P<name>completed|active|xx|time_bucket|time_sum)|grpc_(?P<status>[0-9]+))"
    r"\{(?P<labels>[^}]*)\} (?P<value>[0-9.e+]+)$"
)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_LARGEST_ANSWER_BYTES = 64 << 20


class _Health(msgspec.Struct):
    eds_health_status: str = ""
    failed_active_health_check: bool = False
    pending_active_hc: bool = False
    failed_outlier_check: bool = False


class _Socket(msgspec.Struct):
    address: str = ""
    port_value: int = 0


class _Pipe(msgspec.Struct):
    path: str = ""


class _Address(msgspec.Struct):
    socket_address: _Socket | None = None
    pipe: _Pipe | None = None


class _Stat(msgspec.Struct):
    name: str = ""
    value: str = "0"  # proto3 JSON writes 64-bit numbers as strings


class _Host(msgspec.Struct):
    address: _Address
    priority: int = 0
    stats: list[_Stat] = []
    health_status: _Health = msgspec.field(default_factory=_Health)


class _Cluster(msgspec.Struct):
    name: str
    host_statuses: list[_Host] = []


class _CommandLine(msgspec.Struct):
    restart_epoch: int = 0


class _ServerInfo(msgspec.Struct):
    command_line_options: _CommandLine = msgspec.field(default_factory=_CommandLine)


class _Clusters(msgspec.Struct):
    cluster_statuses: list[_Cluster] = []


@dataclass(frozen=True, slots=True)
class Upstream:
    """One endpoint as Envoy sees it now. `routable`: healthy, checked, not ejected, not draining."""

    cluster: str
    endpoint: Endpoint
    routable: bool
    in_flight: int
    answers: Tally = field(default_factory=Tally)


@dataclass(slots=True)
class _Answer:
    """Collects what httptools finds."""

    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


@dataclass(slots=True)
class _Counted:
    """The samples of one revision."""

    answered: int = 0
    by_class: dict[str, int] = field(default_factory=dict)
    grpc_by_class: dict[str, int] = field(default_factory=dict)
    by_status: dict[int, int] = field(default_factory=dict)
    timed: int = 0
    within: dict[float, int] = field(default_factory=dict)
    busy_s: float = 0.0
    in_flight: int = 0

    def add(self, name: str, labels: dict[str, str], value: float, *, grpc: bool) -> None:
        count = int(value)
        match name:
            case "completed":
                self.answered += count
            case "active":
                self.in_flight += count
            case "time_sum":
                self.busy_s += value / 1000
            case "xx":
                by_class = self.grpc_by_class if grpc else self.by_class
                self._add(by_class, labels.get("envoy_response_code_class", ""), count)
            case _ if labels.get("le", "+Inf") != "+Inf":
                self._add(self.within, float(labels["le"]) / 1000, count)
            case _:
                self.timed += count

    @staticmethod
    def _add(counts: dict[Key, int], key: Key, value: int) -> None:
        counts[key] = counts.get(key, 0) + value

    def traffic(self) -> Traffic:
        within = tuple(sorted(self.within.items()))
        failed = self._count("5", _GRPC_FAILED)
        refused = self._count("4", _GRPC_REFUSED)
        return Traffic(self.answered, failed, refused, self.timed, within, self.busy_s, self.in_flight)

    def _count(self, status_class: str, statuses: frozenset[int]) -> int:
        """By HTTP, and by gRPC: what the gateway answers itself for a broken connection is counted both ways there."""
        by_grpc = sum(count for status, count in self.by_status.items() if status in statuses)
        return self.by_class.get(status_class, 0) + max(self.grpc_by_class.get(status_class, 0), by_grpc)


class Admin:
    """A client of the admin page. Every question has its own connection and ends after 5 s."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    async def ask(self, target: str, *, method: str = "GET") -> bytes:
        """The body of the answer; raises EngineError `gateway.silent` for none, or any other status than 200."""
        try:
            async with asyncio.timeout(_ASK_S):
                status, body = await self._exchange(target, method)
        except (OSError, TimeoutError, httptools.HttpParserError) as error:
            raise EngineError(
                "gateway.silent",
                "the gateway's admin page does not answer",
                where=str(self.socket),
                why=str(error) or type(error).__name__,
                hint="see `corten doctor`",
            ) from error
        if status != 200:
            raise EngineError(
                "gateway.silent",
                f"the gateway's admin page refuses `{target}`",
                where=str(self.socket),
                why=f"status {status}: {body[:200].decode(errors='replace')}",
            )
        return body

    async def upstreams(self) -> list[Upstream]:
        """All endpoints of all clusters `DEPLOYMENT/REVISION`."""
        return decode_upstreams(await self.ask("/clusters?format=json"))

    async def cluster_names(self) -> set[str]:
        """The clusters `DEPLOYMENT/REVISION` in use; one that still warms up (waits for health checks) is not."""
        return {cluster.name for cluster in _decode_clusters(await self.ask("/clusters?format=json"))}

    async def versions(self) -> dict[str, str]:
        """The version in force of each subscription, by the name of its statistic."""
        text = (await self.ask("/stats?filter=version_text$&type=TextReadouts")).decode()
        pairs = (line.partition(": ") for line in text.splitlines())
        return {name.removesuffix(".version_text"): value.strip('"') for name, _, value in pairs}

    async def traffic(self) -> dict[tuple[str, str], Traffic]:
        """What was counted of each revision, by deployment and revision label. Timings come up to 5 s late."""
        page = await self.ask(f"/stats/prometheus?usedonly&filter={quote(_TRAFFIC_STATS)}")
        return decode_traffic(page.decode())

    async def epoch(self) -> int:
        """The number of the Envoy that answers in its line of hot restarts; -1 when none answers."""
        try:
            found = msgspec.json.decode(await self.ask("/server_info"), type=_ServerInfo)
        except (EngineError, msgspec.DecodeError):
            return -1
        return found.command_line_options.restart_epoch

    async def gauge(self, name: str) -> int:
        """A gauge or counter by its exact name; 0 when there is none yet."""
        text = (await self.ask(f"/stats?filter=^{name}$")).decode()
        return int(text.rpartition(": ")[2] or 0)

    async def _exchange(self, target: str, method: str) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            head = f"{method} {target} HTTP/1.1\r\nhost: envoy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            writer.write(head.encode())
            answer = _Answer()
            parser = httptools.HttpResponseParser(answer)
            while not answer.complete:
                data = await reader.read(1 << 18)
                if not data or len(answer.body) > _LARGEST_ANSWER_BYTES:
                    raise ConnectionResetError("the answer is incomplete")
                parser.feed_data(data)
            return parser.get_status_code(), bytes(answer.body)
        finally:
            writer.close()


def decode_upstreams(page: bytes) -> list[Upstream]:
    """The endpoints in the JSON of `/clusters?format=json` (Envoy's admin.v3.Clusters), the activator left out.

    What an endpoint has in flight for another revision, in whose place it is asked, is its own.
    """
    clusters = _decode_clusters(page)
    hosts = [(_upstream(one.name, host), host.priority) for one in clusters for host in one.host_statuses]
    instead = collections.Counter[str]()
    for each, priority in hosts:
        if priority:
            instead[each.endpoint.address] += each.in_flight
    return [
        replace(each, in_flight=each.in_flight + instead[each.endpoint.address])
        for each, priority in hosts
        if not priority
    ]


def decode_traffic(page: str) -> dict[tuple[str, str], Traffic]:
    """The counters of clusters `DEPLOYMENT/REVISION` in Prometheus' text format, as of `/stats/prometheus`."""
    found: dict[tuple[str, str], _Counted] = {}
    for line in page.splitlines():
        if (match := _SAMPLE.match(line)) is None:
            continue
        labels = dict(_LABEL.findall(match["labels"]))
        # What came over gRPC has a cluster of its own, and is the same revision's.
        revision = labels.get("corten_revision", "")
        key = (labels.get("corten_deployment", ""), revision.removesuffix(GRPC))
        if not all(key):
            continue
        counted = found.setdefault(key, _Counted())
        if match["status"] is not None:
            counted.by_status[int(match["status"])] = int(float(match["value"]))
        else:
            counted.add(match["name"], labels, float(match["value"]), grpc=revision.endswith(GRPC))
    return {key: counted.traffic() for key, counted in found.items()}


def _decode_clusters(data: bytes) -> list[_Cluster]:
    return [c for c in msgspec.json.decode(data, type=_Clusters).cluster_statuses if "/" in c.name]


def _upstream(cluster: str, host: _Host) -> Upstream:
    health = host.health_status
    draining = health.eds_health_status == "DRAINING"
    bad = health.failed_active_health_check or health.pending_active_hc or health.failed_outlier_check
    stats: dict[str, Any] = {stat.name: stat.value for stat in host.stats}
    return Upstream(
        cluster=cluster,
        endpoint=Endpoint(_address(host.address), draining=draining),
        routable=health.eds_health_status == "HEALTHY" and not bad,
        in_flight=int(stats.get("rq_active", 0)),
        answers=Tally(int(stats.get("rq_success", 0)), int(stats.get("rq_error", 0))),
    )


def _address(address: _Address) -> str:
    if address.pipe is not None:
        return address.pipe.path
    if address.socket_address is not None:
        host, port = address.socket_address.address, address.socket_address.port_value
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return ""
