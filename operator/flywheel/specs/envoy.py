"""Routes -> Envoy's discovery files (RDS, CDS, EDS). Pure: the router agent writes what this renders.

The arms keep their clusters whatever their role, so a change of weight or of roles is one atomic swap of `rds.json`.
The hash of the salted user id picks the slice: control takes the bottom of the range, candidate the top, the rest lies between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel.specs.envoy_bootstrap import LISTENER_ROUTES, METADATA, XDS_DIRECTORY, bootstrap
from flywheel.specs.envoy_routes import Arm, Routes, RoutesError, format_routes, parse_routes

__all__ = ["Arm", "Endpoint", "Routes", "RoutesError", "bootstrap", "format_routes", "no_routes", "parse_routes", "render"]

Json = dict[str, Any]
_TYPE = "type.googleapis.com/envoy."
# A user id that may decide: printable ASCII, no comma (some proxies join two headers with one), bounded.
USER_ID = r"[\x21-\x2b\x2d-\x7e]{1,256}"
_UNBOUNDED = 1_000_000  # vLLM queues by itself: Envoy's default limits (1024 requests, 3 retries) would fail requests under load


@dataclass(frozen=True)
class Endpoint:
    """One pod of an arm. Not ready: it gets no new request, and keeps the streams it has."""

    address: str
    port: int
    ready: bool = True


def render(
    routes: Routes,
    endpoints: Mapping[str, Sequence[Endpoint]],
    *,
    keep: Sequence[Routes] = (),
    directory: str = XDS_DIRECTORY,
    health_interval: float = 1.0,
) -> dict[str, Json]:
    """File name -> discovery response. `endpoints` is by Service; `keep` holds earlier routes whose clusters must stay for a while."""
    held = (routes, *keep)
    arms = {arm.service: arm for one in reversed(held) for arm in one.arms}
    pairs = {_fallback_name(one): one for one in held if one.candidate is not None}
    clusters = [_arm_cluster(service, directory, health_interval) for service in sorted(arms)]
    clusters += [_fallback_cluster(name, one) for name, one in sorted(pairs.items())]
    files = {eds_file(service): _response([_assignment(arm, endpoints.get(service, ()))]) for service, arm in sorted(arms.items())}
    files["cds.json"] = _response(clusters)
    files["rds.json"] = _response([_route_configuration(routes)], version=str(routes.revision))
    return files


def no_routes() -> dict[str, Json]:
    """What Envoy holds before the first routes: every request is told so."""
    reply = {"match": {"prefix": "/"}, "direct_response": {"status": 503, "body": {"inline_string": "the router has no routes yet\n"}}}
    host = {"name": "flywheel", "domains": ["*"], "routes": [reply]}
    configuration = {"@type": _TYPE + "config.route.v3.RouteConfiguration", "name": LISTENER_ROUTES, "virtual_hosts": [host]}
    return {"cds.json": _response([]), "rds.json": _response([configuration], version="0")}


def eds_file(service: str) -> str:
    return f"eds-{service}.json"


def _response(resources: list[Json], version: str | None = None) -> Json:
    digest = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()
    return {"version_info": version or digest[:16], "resources": resources}


def _route_configuration(routes: Routes) -> Json:
    known = {"name": routes.header, "string_match": {"safe_regex": {"regex": USER_ID}}}
    stable: Json = {"cluster": routes.stable.service}
    if routes.candidate is None:
        action, slice_headers = stable, _assigned("none", routes.stable)
    else:
        action, slice_headers = {"weighted_clusters": _slices(routes, routes.candidate), "hash_policy": [_salted(routes)]}, []
    user = _set("x-flywheel-user", f"%REQ({routes.header})%")
    return {
        "@type": _TYPE + "config.route.v3.RouteConfiguration",
        "name": LISTENER_ROUTES,
        "virtual_hosts": [
            {
                "name": "flywheel",
                "domains": ["*"],
                "request_body_buffer_limit": 8 * 1024 * 1024,  # what can be sent again to stable; longer bodies pass, unrepeated
                "routes": [
                    _route(routes, {"prefix": "/", "headers": [known]}, action, [user, *slice_headers]),
                    _route(routes, {"prefix": "/"}, stable, _assigned("none", routes.stable)),
                ],
            }
        ],
        "response_headers_to_remove": ["x-flywheel-generation", "x-flywheel-slice", "x-flywheel-arm"],
        "response_headers_to_add": [_set("x-flywheel-generation", f"%METADATA(UPSTREAM_HOST:{METADATA}:generation)%")],
    }


def _route(routes: Routes, match: Json, action: Json, headers: list[Json]) -> Json:
    return {
        "match": match,
        "route": {**action, "timeout": "0s", "retry_policy": _retry_policy()},
        "request_headers_to_add": headers,
        "metadata": {"filter_metadata": {METADATA: {"experiment": routes.experiment, "revision": routes.revision}}},
    }


def _retry_policy() -> Json:
    """Before a reply has begun (Envoy never repeats one that has), try another pod, and after the candidate's pods stable's."""
    return {
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": 2,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": _TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": 5,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": _TYPE + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
    }


def _salted(routes: Routes) -> Json:
    rewrite = {"pattern": {"regex": "^(.*)$"}, "substitution": f"{routes.salt}:\\1"}
    return {"header": {"header_name": routes.header, "regex_rewrite": rewrite}, "terminal": True}


def _slices(routes: Routes, candidate: Arm) -> Json:
    weight, stable = routes.weight, routes.stable
    slices = [
        (stable.service, weight, _assigned("control", stable)),
        (stable.service, 10_000 - 2 * weight, _assigned("rest", stable)),
        (_fallback_name(routes), weight, _assigned("candidate", candidate)),
    ]
    clusters = [{"name": name, "weight": share, "request_headers_to_add": headers} for name, share, headers in slices]
    return {"use_hash_policy": True, "clusters": clusters}


def _assigned(slice_: str, arm: Arm) -> list[Json]:
    return [_set("x-flywheel-slice", slice_), _set("x-flywheel-arm", arm.arm), _set("x-flywheel-generation", arm.generation)]


def _set(key: str, value: str) -> Json:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _arm_cluster(service: str, directory: str, health_interval: float) -> Json:
    interval = f"{health_interval}s"
    return {
        "@type": _TYPE + "config.cluster.v3.Cluster",
        "name": service,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _file(f"{directory}/{eds_file(service)}")},
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        # A pod that left the list gets nothing new at once; its streams run to their end.
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}, "ignore_new_hosts_until_first_hc": True},
        "health_checks": [
            {
                "timeout": "5s",  # a busy server answers late; a dead one refuses at once
                "interval": interval,
                "no_traffic_interval": interval,
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/health"},
            }
        ],
        "circuit_breakers": _no_limits(),
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 15, "keepalive_interval": 5, "keepalive_probes": 3}},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "4s"},  # before vLLM's server closes an idle connection (5 s)
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _fallback_name(routes: Routes) -> str:
    """An underscore can't stand in a Service's name, so this never clashes with an arm's cluster."""
    assert routes.candidate is not None
    return f"{routes.candidate.service}_or_{routes.stable.service}"


def _fallback_cluster(name: str, routes: Routes) -> Json:
    assert routes.candidate is not None
    members: Iterable[str] = (routes.candidate.service, routes.stable.service)
    return {
        "@type": _TYPE + "config.cluster.v3.Cluster",
        "name": name,
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": _no_limits(),
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {"@type": _TYPE + "extensions.clusters.aggregate.v3.ClusterConfig", "clusters": list(members)},
        },
    }


def _no_limits() -> Json:
    limit = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _UNBOUNDED)
    return {"thresholds": [limit]}


def _assignment(arm: Arm, endpoints: Sequence[Endpoint]) -> Json:
    metadata = {"filter_metadata": {METADATA: {"arm": arm.arm, "generation": arm.generation}}}
    hosts = [
        {
            "endpoint": {"address": {"socket_address": {"address": one.address, "port_value": one.port}}},
            "health_status": "HEALTHY" if one.ready else "DRAINING",
            "metadata": metadata,
        }
        for one in sorted(endpoints, key=lambda one: (one.address, one.port))
    ]
    return {
        "@type": _TYPE + "config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": arm.service,
        "endpoints": [{"lb_endpoints": hosts}],
        # One healthy pod of a candidate serves its whole slice: falling back by halves would blur the comparison.
        "policy": {"overprovisioning_factor": 100_000},
    }


def _file(path: str) -> Json:
    return {"resource_api_version": "V3", "path_config_source": {"path": path}}
