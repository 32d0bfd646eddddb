"""Envoy as far as it decides where requests go, on a fake clock: it reads the resources the real one is given.

Modelled after what the real one was seen to do (1.40, in tests/integration/test_gateway*.py): active health
checks, ejection of hosts that reset, least of two requests, priorities, retries on other hosts, checks by ext_authz.
What it is not told by a resource it does not do, so that a wrong resource shows here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

from corten.core.headers import ATTEMPT_HEADER
from corten.core.route import Endpoint
from corten.core.traffic import Traffic
from corten.gateway import hold
from corten.gateway.plan import CLUSTERS, ROUTES, endpoints_key

HOLD_SOCKET = "/run/hold.sock"
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class GoneError(ConnectionError):
    """Nobody listens there; nothing was sent."""


class ResetError(ConnectionError):
    """It ended with the request in its hands."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""


@dataclass
class Asked:
    """A request: `id` for ever, `poison` ends the process that computes it."""

    id: int
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    poison: bool = False


@dataclass
class Host:
    cluster: str
    address: str
    priority: int = 0
    draining: bool = False
    checked: bool = True
    healthy: bool = False
    active: int = 0
    resets: int = 0
    ejections: int = 0
    ejected_until_s: float = 0.0
    check: asyncio.Task | None = None


@dataclass
class Counts:
    answered: int = 0
    failed: int = 0
    refused: int = 0
    busy_s: float = 0.0
    within: list[int] = field(default_factory=lambda: [0] * len(BUCKETS_S))
    active: int = 0


def seconds_of(text: str) -> float:
    return float(text.removesuffix("s"))


class SimulatedEnvoy:
    """One process of it. `network` reaches replicas and the daemon's sockets by address."""

    def __init__(self, network, chance: random.Random) -> None:
        self.network, self.chance = network, chance
        self.resources: dict = {}
        self.hosts: dict[tuple[str, str], Host] = {}
        self.counts: dict[str, Counts] = {}
        self.alive = True

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    # What it is told

    def publish(self, resources, drop=()) -> None:
        self.resources.update(resources)
        for key in drop:
            self.resources.pop(key, None)
        wanted: dict[tuple[str, str], Host] = {}
        for cluster in self.resources.get(CLUSTERS, ()):
            name = cluster["name"]
            for assignment in self.resources.get(endpoints_key(name), ()):
                for level in assignment["endpoints"]:
                    for each in level["lb_endpoints"]:
                        found = self._host(name, level.get("priority", 0), each)
                        wanted[name, found.address] = found
        for key in set(self.hosts) - set(wanted):
            host = self.hosts.pop(key)
            if host.check:
                host.check.cancel()
        for key, found in wanted.items():
            known = self.hosts.get(key)
            if known is not None:
                known.draining, known.priority = found.draining, found.priority
                continue
            self.hosts[key] = found
            if found.checked:
                found.check = asyncio.get_running_loop().create_task(self._check_on(found))

    @staticmethod
    def _host(cluster: str, priority: int, each) -> Host:
        endpoint = each["endpoint"]
        checked = not endpoint.get("health_check_config", {}).get("disable_active_health_check", False)
        address = endpoint["address"]["pipe"]["path"]
        draining = each.get("health_status") == "DRAINING"
        return Host(cluster, address, priority, draining, checked, healthy=not checked)

    def cluster(self, name: str) -> dict:
        return next((each for each in self.resources.get(CLUSTERS, ()) if each["name"] == name), {})

    def end(self) -> None:
        self.alive = False
        for host in self.hosts.values():
            if host.check:
                host.check.cancel()

    # What it knows of hosts

    async def _check_on(self, host: Host) -> None:
        check = self.cluster(host.cluster)["health_checks"][0]
        timeout_s, bad, first = seconds_of(check["timeout"]), 0, True
        while True:
            status = 0
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(timeout_s):
                    status = await self.network.probe(host.address, check["http_health_check"]["path"])
            bad = 0 if status == 200 else bad + 1
            if status == 200:
                host.healthy = True
            elif first or status == 503 or bad >= check["unhealthy_threshold"]:
                host.healthy = False  # a 503 counts at once
            first = False
            interval = check["interval"] if host.healthy else check["unhealthy_interval"]
            await asyncio.sleep(seconds_of(interval) * self.chance.uniform(0.95, 1.05))

    def routable(self, host: Host) -> bool:
        return host.healthy and not host.draining and self.now_s >= host.ejected_until_s

    def of(self, cluster: str) -> list[Host]:
        return [host for (name, _), host in self.hosts.items() if name == cluster]

    def endpoints(self) -> dict[str, tuple[Endpoint, ...]]:
        """What the admin page says of the clusters: without those that stand in."""
        found = {each["name"]: () for each in self.resources.get(CLUSTERS, ())}
        for host in self.hosts.values():
            if host.priority == 0 and host.checked:
                found[host.cluster] = (*found[host.cluster], Endpoint(host.address, host.draining))
        return found

    def _reset_by(self, host: Host) -> None:
        rules = self.cluster(host.cluster).get("outlier_detection", {})
        host.resets += 1
        if not rules or host.resets < rules.get("consecutive_local_origin_failure", 5):
            return
        hosts = self.of(host.cluster)
        out = sum(self.now_s < each.ejected_until_s for each in hosts)
        if 100 * out / len(hosts) < rules["max_ejection_percent"]:
            host.ejections, host.resets = host.ejections + 1, 0
            longest_s = seconds_of(rules["max_ejection_time"])
            host.ejected_until_s = self.now_s + min(seconds_of(rules["base_ejection_time"]) * host.ejections, longest_s)

    # Requests

    async def answer(self, asked: Asked) -> Answer:
        route = self._route(asked)
        if route is None or "direct_response" in route:
            status = route["direct_response"]["status"] if route else 404
            return Answer(status, code="gateway.not_found" if status == 404 else "gateway.unavailable")
        action = route["route"]
        if "cluster_header" in action:
            checked = await self._held(asked, route)
            if checked.status != 200:
                return checked
            cluster = checked.headers[action["cluster_header"]]
        else:
            shares = action["weighted_clusters"]["clusters"]
            cluster = self.chance.choices([each["name"] for each in shares], [each["weight"] for each in shares])[0]
        if not self.cluster(cluster):
            return Answer(503, code="no cluster")
        return await self._counted(asked, cluster, action)

    def _route(self, asked: Asked):
        for configuration in self.resources.get(ROUTES, ()):
            anybody = next(each for each in configuration["virtual_hosts"] if each["domains"] == ["*"])
            for route in anybody["routes"]:
                match = route["match"]
                fits = asked.path == match["path"] if "path" in match else asked.path.startswith(match["prefix"])
                if fits and all(self._has(asked, each) for each in match.get("headers", ())):
                    return route
        return None

    @staticmethod
    def _has(asked: Asked, header) -> bool:
        value = asked.headers.get(header["name"])
        return value is not None and value == header.get("string_match", {}).get("exact", value)

    async def _held(self, asked: Asked, route) -> Answer:
        service = route["typed_per_filter_config"][hold.FILTER]["check_settings"]["http_service"]
        away = Answer(503, {"retry-after": "2"}, code="gateway.no_controller")
        try:
            async with asyncio.timeout(seconds_of(service["server_uri"]["timeout"])):
                answer = await self.network.ask_daemon(service["path_prefix"] + asked.path, {})
        except (ConnectionError, TimeoutError):
            return away
        if answer.status == 200:
            return answer
        return Answer(503, answer.headers, answer.code) if answer.status == hold.REFUSED else away

    async def _counted(self, asked: Asked, cluster: str, action) -> Answer:
        counts, began_s = self.counts.setdefault(cluster, Counts()), self.now_s
        counts.active += 1
        try:
            answer = await self._tried(asked, cluster, action)
        finally:
            counts.active -= 1
        took_s = self.now_s - began_s
        counts.answered += 1
        counts.failed += answer.status >= 500
        counts.refused += 400 <= answer.status < 500
        counts.busy_s += took_s
        for index, bound_s in enumerate(BUCKETS_S):
            counts.within[index] += took_s <= bound_s
        return answer

    async def _tried(self, asked: Asked, cluster: str, action) -> Answer:
        policy = action.get("retry_policy", {"retry_on": "", "num_retries": 0})
        tried: list[Host] = []
        while True:
            host = self._pick(cluster, tried, policy)
            if host is None:
                return Answer(503, code="gateway.unavailable" if self.cluster(cluster) else "no cluster")
            tried.append(host)
            answer, why = await self._sent(asked, cluster, host, len(tried), seconds_of(action["idle_timeout"]))
            if not self._again(answer, why, policy) or len(tried) > policy["num_retries"]:
                return answer
            back_off = policy["retry_back_off"]
            most_s = min(seconds_of(back_off["base_interval"]) * 2 ** len(tried), seconds_of(back_off["max_interval"]))
            await asyncio.sleep(self.chance.uniform(0, most_s))

    def _pick(self, cluster: str, tried: list[Host], policy) -> Host | None:
        open_to = [host for host in self.of(cluster) if self.routable(host)]
        if not open_to:
            return None
        excluded = _excluded(tried, {host.priority for host in open_to}, policy)
        level = min(host.priority for host in open_to if host.priority not in excluded)
        hosts = [host for host in open_to if host.priority == level]
        for _ in range(policy.get("host_selection_retry_max_attempts", 0) + 1):
            two = [self.chance.choice(hosts) for _ in range(2)]
            found = min(two, key=lambda host: host.active)
            if found not in tried:
                break
        return found

    async def _sent(self, asked: Asked, cluster: str, host: Host, attempt: int, idle_s: float) -> tuple[Answer, str]:
        """The answer, and why it may be worth another try."""
        headers = {hold.CLUSTER_HEADER: cluster, ATTEMPT_HEADER: str(attempt), "x-request-id": str(asked.id)}
        host.active += 1
        try:
            async with asyncio.timeout(idle_s):
                answer = await self.network.send(host.address, asked, headers)
        except TimeoutError:
            return Answer(504, code="gateway.timeout"), ""
        except GoneError:
            self._reset_by(host)
            return Answer(503, code="connect failure"), "connect-failure"
        except ResetError:
            self._reset_by(host)
            return Answer(503, code="reset"), "reset"
        finally:
            host.active -= 1
        host.resets = 0
        return answer, "answer"

    @staticmethod
    def _again(answer: Answer, why: str, policy) -> bool:
        allowed = policy["retry_on"].split(",")
        if why == "connect-failure":
            return bool({"connect-failure", "reset", "reset-before-request"} & set(allowed))
        if why == "reset":
            return "reset" in allowed
        if why != "answer" or answer.headers.get("x-envoy-ratelimited"):
            return False
        if "retriable-status-codes" in allowed and answer.status in policy.get("retriable_status_codes", ()):
            return True
        wanted = {each["name"]: each["string_match"]["exact"] for each in policy.get("retriable_headers", ())}
        return "retriable-headers" in allowed and any(answer.headers.get(name) == wanted[name] for name in wanted)

    # What it tells

    def weights(self) -> set[str]:
        """The clusters that get requests by a route's weights."""
        routes = [
            route
            for each in self.resources.get(ROUTES, ())
            for host in each["virtual_hosts"]
            for route in host["routes"]
        ]
        actions = [route["route"] for route in routes if "weighted_clusters" in route.get("route", {})]
        return {each["name"] for action in actions for each in action["weighted_clusters"]["clusters"]}

    def traffic(self) -> dict[tuple[str, str], Traffic]:
        found = {}
        for cluster, counts in self.counts.items():
            deployment, _, revision = cluster.partition("/")
            found[deployment, revision] = Traffic(
                counts.answered,
                counts.failed,
                counts.refused,
                counts.answered,
                tuple(zip(BUCKETS_S, counts.within, strict=True)),
                counts.busy_s,
                counts.active,
            )
        return found


def _excluded(tried: list[Host], available: set[int], policy) -> set[int]:
    """The priorities that `previous_priorities` leaves out for the next attempt."""
    rule = policy.get("retry_priority", {}).get("typed_config", {})
    frequency = rule.get("update_frequency", 0)
    if not frequency:
        return set()
    excluded: set[int] = set()
    since = 0
    for end in range(frequency, len(tried) + 1, frequency):
        excluded = {host.priority for host in tried[since:end]}
        if available <= excluded:
            excluded, since = set(), end
    return excluded
