"""Tokens and rates as Envoy's filters. Pure.

What changes (keys, limits) are resources of their own (ECDS): a new key or limit reaches the next request without a new
listener, whose connections would have to be drained. Whether a route asks for a token, and for which deployment, comes
with the routes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import ceil

from corten.core.access import EVERY_DEPLOYMENT, Access, Auth, Trust
from corten.core.route import DeploymentRoute
from corten.gateway.shape import TYPES, Resource, config_source

TOKENS_NAME, RATES_NAME, RBAC_NAME = "corten.tokens", "corten.rates", "corten.who"
ISSUER = "corten"
_OURS = "corten"  # where the claims of our own tokens stand in a request's metadata
_JWT_FILTER = "envoy.filters.http.jwt_authn"
_JWT_TYPE = TYPES + "extensions.filters.http.jwt_authn.v3."
_RATE_TYPE = TYPES + "extensions.filters.http.local_ratelimit.v3."
_RBAC_TYPE = TYPES + "extensions.filters.http.rbac.v3."
_REFRESH = "1s"
_REQUIREMENT = "token"
_METADATA = "corten"
_SHORTEST_FILL_S = 0.05  # Envoy's own limit
REVOKED = "revoked"


def filters() -> list[Resource]:
    """The filters in their order; a route that wants one says so."""
    return [
        _discovered(TOKENS_NAME, _JWT_TYPE + "JwtAuthentication"),
        {"name": RBAC_NAME, "disabled": True, "typed_config": {"@type": _RBAC_TYPE + "RBAC"}},
        _discovered(RATES_NAME, _RATE_TYPE + "LocalRateLimit"),
    ]


def tokens(trust: Trust) -> Resource:
    """Whose tokens are valid."""
    providers = {f"issuer-{number}": _provider(each.name, each.jwks) for number, each in enumerate(trust.issuers)}
    for number, each in enumerate(trust.issuers):
        providers[f"issuer-{number}"]["audiences"] = [each.audience]
    if trust.keys:
        jwks = json.dumps({"keys": [json.loads(key) for key in trust.keys]}, sort_keys=True)
        providers[_OURS] = {**_provider(ISSUER, jwks), "payload_in_metadata": _OURS}
    names = [{"provider_name": name} for name in sorted(providers)]
    rule = names[0] if len(names) == 1 else {"requires_any": {"requirements": names}}
    return _extension(
        TOKENS_NAME,
        {
            "@type": _JWT_TYPE + "JwtAuthentication",
            "providers": providers,
            "requirement_map": {_REQUIREMENT: rule} if names else {},
        },
    )


def rates(routes: Iterable[DeploymentRoute]) -> Resource:
    """One bucket a deployment, whichever of its routes a request takes."""
    limited = sorted((route for route in routes if route.access.rate_per_s), key=lambda route: route.deployment)
    always = {"default_value": {"numerator": 100}}
    return _extension(
        RATES_NAME,
        {
            "@type": _RATE_TYPE + "LocalRateLimit",
            "stat_prefix": "rate",
            "filter_enabled": always,
            "filter_enforced": always,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "rate_limited_as_resource_exhausted": True,
            "rate_limits": [{"actions": [_of_its_route()]}],
            "descriptors": [
                {
                    "entries": [{"key": "deployment", "value": route.deployment}],
                    "token_bucket": _bucket(route.access),
                }
                for route in limited
            ],
        },
    )


def of_route(route: DeploymentRoute, trust: Trust) -> tuple[Resource, Resource]:
    """What a route has to say for its deployment's limits and tokens: its filters' settings, and its other keys."""
    per_filter: Resource = {}
    others: Resource = {}
    if route.access.auth is Auth.TOKEN:
        per_filter[TOKENS_NAME] = {"@type": _JWT_TYPE + "PerRouteConfig", "requirement_name": _REQUIREMENT}
        per_filter[RBAC_NAME] = {"@type": _RBAC_TYPE + "RBACPerRoute", "rbac": {"rules": _refusals(route, trust)}}
    if route.access.rate_per_s:
        per_filter[RATES_NAME] = enabled()
        others["metadata"] = {"filter_metadata": {_METADATA: {"deployment": route.deployment}}}
    return per_filter, others


def enabled() -> Resource:
    """Says that a route wants a filter as the listener has it."""
    return {"@type": TYPES + "config.route.v3.FilterConfig", "config": {}}


def _refusals(route: DeploymentRoute, trust: Trust) -> Resource:
    """Valid tokens that do not count here. Those of other issuers are for every deployment that asks for one."""
    here = [_claim("aud", {"list_match": {"one_of": {"string_match": {"exact": name}}}}) for name in _names(route)]
    ours = _claim("jti", {"present_match": True})
    policies = {"elsewhere": _policy({"and_ids": {"ids": [ours, {"not_id": {"or_ids": {"ids": here}}}]}})}
    if trust.revoked:
        gone = [_claim("jti", {"string_match": {"exact": each}}) for each in sorted(trust.revoked)]
        policies[REVOKED] = _policy({"or_ids": {"ids": gone}})
    return {"action": "DENY", "policies": policies}


def _names(route: DeploymentRoute) -> tuple[str, str]:
    return (route.deployment, EVERY_DEPLOYMENT)


def _policy(principal: Resource) -> Resource:
    return {"permissions": [{"any": True}], "principals": [principal]}


def _claim(name: str, value: Resource) -> Resource:
    path = [{"key": _OURS}, {"key": name}]
    return {"sourced_metadata": {"metadata_matcher": {"filter": _JWT_FILTER, "path": path, "value": value}}}


def _provider(issuer: str, jwks: str) -> Resource:
    return {
        "issuer": issuer,
        "require_expiration": True,
        "local_jwks": {"inline_string": jwks},
        # Not in the query, where it would end up in logs; not passed on to replicas.
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}, {"name": "x-api-key"}],
        "forward": False,
        # A known token costs a tenth of a new one.
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }


def _of_its_route() -> Resource:
    key = {"key": _METADATA, "path": [{"key": "deployment"}]}
    return {
        "metadata": {
            "descriptor_key": "deployment",
            "metadata_key": key,
            "source": "ROUTE_ENTRY",
            "skip_if_absent": True,
        }
    }


def _bucket(access: Access) -> Resource:
    # Filled as often as Envoy can: a second's worth at once would let two bursts meet.
    per_fill = ceil(access.rate_per_s * _SHORTEST_FILL_S)
    return {
        "max_tokens": access.burst or access.rate_per_s,
        "tokens_per_fill": per_fill,
        "fill_interval": f"{per_fill / access.rate_per_s:.9f}s",
    }


def _discovered(name: str, kind: str) -> Resource:
    return {
        "name": name,
        "disabled": True,
        "config_discovery": {"config_source": config_source(_REFRESH), "type_urls": [kind]},
    }


def _extension(name: str, config: Resource) -> Resource:
    return {"@type": TYPES + "config.core.v3.TypedExtensionConfig", "name": name, "typed_config": config}
