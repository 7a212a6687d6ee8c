from __future__ import annotations

from typing import Any

from flywheel.specs.envoy import bootstrap
from flywheel.specs.envoy_bootstrap import ACCESS_LOG_FIELDS

CONFIG = bootstrap(flywheel="demo", pod="demo-router-0")


def manager(name: str) -> dict[str, Any]:
    (listener,) = [one for one in CONFIG["static_resources"]["listeners"] if one["name"] == name]
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def test_admin_is_not_reachable_from_outside_the_pod() -> None:
    assert CONFIG["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 9901}


def test_ports_are_the_contracts() -> None:
    ports = {one["name"]: one["address"]["socket_address"]["port_value"] for one in CONFIG["static_resources"]["listeners"]}
    assert ports == {"users": 8080, "stats": 9902}


def test_the_stats_port_has_one_path() -> None:
    (host,) = manager("stats")["route_config"]["virtual_hosts"]
    assert [route["match"]["path"] for route in host["routes"]] == ["/stats/prometheus"]


def test_the_log_is_where_the_collector_looks() -> None:
    log, counts = manager("users")["access_log"]
    assert log["typed_config"]["path"] == "/flywheel/logs/demo/demo-router-0/access.jsonl"
    assert log["typed_config"]["log_format"]["json_format"] == ACCESS_LOG_FIELDS
    assert counts["name"] == "envoy.access_loggers.stats"
    assert "filter" not in {**log, **counts}, "a line of the log is a count, and the other way round"


def test_every_header_that_the_log_trusts_is_taken_from_the_client() -> None:
    (mutation,) = manager("users")["early_header_mutation_extensions"]
    removed = {one["remove"] for one in mutation["typed_config"]["mutations"] if "remove" in one}
    trusted = {f"x-flywheel-{name}" for name in ("user", "slice", "arm", "generation")} | {"x-request-id"}
    assert removed == trusted
    the_apps = {ACCESS_LOG_FIELDS["purpose"], ACCESS_LOG_FIELDS["segment"]}
    in_log = {value for value in ACCESS_LOG_FIELDS.values() if "REQ(x-flywheel" in value} - the_apps
    assert in_log == {f"%REQ({name})%" for name in trusted if name != "x-request-id"}
