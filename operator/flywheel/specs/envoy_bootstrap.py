"""Envoy's static configuration: listeners, access log, admin. It names no arm, so it never changes while the router lives."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
METADATA = "flywheel"  # namespace of our metadata on routes and endpoints
LISTENER_ROUTES = "routes"
RUN_DIRECTORY = "/run/flywheel"
XDS_DIRECTORY = f"{RUN_DIRECTORY}/xds"
ADMIN_PORT, LISTENER_PORT, STATS_PORT = 9901, 8080, 9902
ADMIN_CLUSTER = "envoy_admin"
_TYPE = "type.googleapis.com/envoy."
_MANAGER = "envoy.filters.network.http_connection_manager"
# What the router says of a request; from a client it is a forgery. x-flywheel-purpose is the app's to set.
_OWN_HEADERS = ("user", "slice", "arm", "generation")

# ARCHITECTURE §4, field by field. Ids are bounded; Envoy escapes them.
ACCESS_LOG_FIELDS = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "requestId": "%REQ(x-request-id)%",
    "method": "%REQ(:method):16%",
    "path": "%PATH(NQ):256%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "durationMs": "%DURATION%",
    "user": "%REQ(x-flywheel-user)%",
    "conversation": "%REQ(x-conversation-id):256%",
    "message": "%REQ(x-message-id):256%",
    "purpose": "%REQ(x-flywheel-purpose):64%",
    "experiment": f"%METADATA(ROUTE:{METADATA}:experiment)%",
    "slice": "%REQ(x-flywheel-slice)%",
    "assignedArm": "%REQ(x-flywheel-arm)%",
    "answeredArm": f"%METADATA(UPSTREAM_HOST:{METADATA}:arm)%",
    "assignedGeneration": "%REQ(x-flywheel-generation)%",
    "answeredGeneration": f"%METADATA(UPSTREAM_HOST:{METADATA}:generation)%",
    "revision": f"%METADATA(ROUTE:{METADATA}:revision)%",
    "segment": "%REQ(x-flywheel-segment):64%",
}


def access_log_path(flywheel: str, pod: str) -> str:
    return f"/flywheel/logs/{flywheel}/{pod}/access.jsonl"


def bootstrap(
    *,
    flywheel: str,
    pod: str,
    log: str | None = None,
    directory: str = XDS_DIRECTORY,
    address: str = "0.0.0.0",  # noqa: S104 - a pod's own address
    listener_port: int = LISTENER_PORT,
    admin_port: int = ADMIN_PORT,
    stats_port: int = STATS_PORT,
    idle_seconds: int = 3600,
) -> Json:
    """`idle_seconds` is how long a request may stay silent: a long generation without streaming says nothing until its end."""
    return {
        "node": {"id": pod, "cluster": flywheel},
        "admin": {"address": _address("127.0.0.1", admin_port)},
        # The bounded pattern of a user id is a larger RE2 program than Envoy's default allows (100).
        "layered_runtime": {"layers": [{"name": "flywheel", "static_layer": {"re2": {"max_program_size": {"error_level": 2000}}}}]},
        "dynamic_resources": {"cds_config": _file(f"{directory}/cds.json")},
        "static_resources": {
            "listeners": [
                _listener("users", address, listener_port, _users(directory, log or access_log_path(flywheel, pod), idle_seconds)),
                _listener("stats", address, stats_port, _stats()),
            ],
            "clusters": [_admin_cluster(admin_port)],
        },
    }


def _users(directory: str, log: str, idle_seconds: int) -> Json:
    return {
        "stat_prefix": "users",
        "rds": {"route_config_name": LISTENER_ROUTES, "config_source": _file(f"{directory}/rds.json")},
        "http_filters": [_router_filter()],
        "early_header_mutation_extensions": [_forgeries_out()],
        "use_remote_address": True,
        "always_set_request_id_in_response": True,
        "normalize_path": True,
        "max_request_headers_kb": 32,
        "stream_idle_timeout": f"{idle_seconds}s",
        "request_headers_timeout": "10s",
        "common_http_protocol_options": {"max_headers_count": 100, "idle_timeout": "3600s"},
        "delayed_close_timeout": "5s",
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": _TYPE + "extensions.access_loggers.file.v3.FileAccessLog",
                    "path": log,
                    "log_format": {"json_format": ACCESS_LOG_FIELDS},
                },
            },
            _logged(),
        ],
    }


def _logged() -> Json:
    """Envoy's own count of the lines of its log, `logged.requests`, which a full disk or a lost file can't touch."""
    tags = {name: ACCESS_LOG_FIELDS[name] for name in ("experiment", "slice")}
    stat = {"name": "requests", "tags": [{"name": name, "value_format": text} for name, text in tags.items()]}
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": {
            "@type": _TYPE + "extensions.access_loggers.stats.v3.Config",
            "stat_prefix": "logged",
            "counters": [{"stat": stat, "value_fixed": 1}],
        },
    }


def _forgeries_out() -> Json:
    """x-request-id too: the log's request ids must be ours, each once. x-envoy-* would let a client change retries and timeouts."""
    remove = [{"remove": f"x-flywheel-{name}"} for name in _OWN_HEADERS]
    steering = {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}}
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": _TYPE + "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [*remove, {"remove": "x-request-id"}, steering],
        },
    }


def _stats() -> Json:
    match = {"path": "/stats/prometheus", "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]}
    route = {"match": match, "route": {"cluster": ADMIN_CLUSTER, "timeout": "10s"}}
    return {
        "stat_prefix": "stats",
        "http_filters": [_router_filter()],
        "route_config": {"name": "stats", "virtual_hosts": [{"name": "stats", "domains": ["*"], "routes": [route]}]},
    }


def _router_filter() -> Json:
    router = {"@type": _TYPE + "extensions.filters.http.router.v3.Router", "suppress_envoy_headers": True}
    return {"name": "envoy.filters.http.router", "typed_config": router}


def _listener(name: str, address: str, port: int, manager: Json) -> Json:
    config = {"@type": _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", **manager}
    return {
        "name": name,
        "address": _address(address, port),
        "filter_chains": [{"filters": [{"name": _MANAGER, "typed_config": config}]}],
    }


def _admin_cluster(port: int) -> Json:
    endpoint = {"endpoint": {"address": _address("127.0.0.1", port)}}
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": ADMIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def _file(path: str) -> Json:
    return {"resource_api_version": "V3", "path_config_source": {"path": path}}
