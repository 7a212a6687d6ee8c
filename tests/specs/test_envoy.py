"""The pure part: what Envoy is told. Whether Envoy does it is tested in tests/router."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flywheel.specs.envoy import Arm, Endpoint, Routes, no_routes, render

STABLE, CANDIDATE = Arm("champion", "initial", "champion-svc"), Arm("challenger", "g1", "challenger-svc")
QUIET = Routes(revision=1, stable=STABLE)
ROLLOUT = Routes(revision=2, stable=STABLE, candidate=CANDIDATE, experiment="demo.g1.0", salt="pepper", weight_percent=25)
PODS = {"champion-svc": [Endpoint("10.0.0.1", 8000)], "challenger-svc": [Endpoint("10.0.0.2", 8000, ready=False)]}


def routes_of(files: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    (configuration,) = files["rds.json"]["resources"]
    (host,) = configuration["virtual_hosts"]
    routes: list[dict[str, Any]] = host["routes"]
    return routes


def slices_of(routes: Routes) -> list[tuple[str, int, str]]:
    known, _ = routes_of(render(routes, PODS))
    found = []
    for cluster in known["route"]["weighted_clusters"]["clusters"]:
        headers = {one["header"]["key"]: one["header"]["value"] for one in cluster["request_headers_to_add"]}
        found.append((headers["x-flywheel-slice"], cluster["weight"], cluster["name"]))
    return found


def test_slices_lie_in_order_control_rest_candidate() -> None:
    fallback = "challenger-svc_or_champion-svc"
    assert slices_of(ROLLOUT) == [("control", 2500, "champion-svc"), ("rest", 5000, "champion-svc"), ("candidate", 2500, fallback)]


@given(st.integers(0, 5000))
def test_weights_always_fill_the_range_and_the_slices_are_equal(weight: int) -> None:
    (_, control, _), (_, rest, _), (_, candidate, _) = slices_of(replace(ROLLOUT, weight_percent=weight / 100))
    assert control == candidate == weight
    assert control + rest + candidate == 10_000


def test_a_weight_changes_the_routes_and_nothing_else() -> None:
    before, after = render(ROLLOUT, PODS), render(replace(ROLLOUT, revision=3, weight_percent=50), PODS)
    assert {name for name in before if before[name] != after[name]} == {"rds.json"}


def test_a_promotion_keeps_both_arms_clusters_as_they_are() -> None:
    promoted = Routes(revision=3, stable=CANDIDATE)
    before, after = render(ROLLOUT, PODS, keep=[promoted]), render(promoted, PODS, keep=[ROLLOUT])
    assert {name for name in before if before[name] != after[name]} == {"rds.json"}


def test_without_keep_only_the_arms_of_the_routes_have_clusters() -> None:
    assert set(render(QUIET, PODS)) == {"rds.json", "cds.json", "eds-champion-svc.json"}


def test_an_arm_without_known_pods_has_an_empty_list() -> None:
    (assignment,) = render(QUIET, {})["eds-champion-svc.json"]["resources"]
    assert assignment["endpoints"] == [{"lb_endpoints": []}]


def test_a_pod_that_is_not_ready_drains() -> None:
    (assignment,) = render(ROLLOUT, PODS)["eds-challenger-svc.json"]["resources"]
    (pod,) = assignment["endpoints"][0]["lb_endpoints"]
    assert pod["health_status"] == "DRAINING"
    assert pod["metadata"]["filter_metadata"]["flywheel"] == {"arm": "challenger", "generation": "g1"}


def test_routes_never_time_a_generation_out_and_never_repeat_an_answer() -> None:
    for route in routes_of(render(ROLLOUT, PODS)):
        assert route["route"]["timeout"] == "0s"
        assert set(route["route"]["retry_policy"]["retry_on"].split(",")) == {"connect-failure", "refused-stream", "reset"}


def test_the_version_of_the_routes_is_the_revision_and_of_the_rest_its_content() -> None:
    files = render(ROLLOUT, PODS)
    assert files["rds.json"]["version_info"] == "2"
    moved = render(ROLLOUT, {**PODS, "champion-svc": [Endpoint("10.0.0.9", 8000)]})
    assert files["cds.json"]["version_info"] == moved["cds.json"]["version_info"]
    assert files["eds-champion-svc.json"]["version_info"] != moved["eds-champion-svc.json"]["version_info"]


def test_rendering_does_not_depend_on_the_order_of_pods() -> None:
    pods = [Endpoint("10.0.0.1", 8000), Endpoint("10.0.0.2", 8000)]
    assert render(QUIET, {"champion-svc": pods}) == render(QUIET, {"champion-svc": pods[::-1]})


def test_before_any_routes_every_request_is_refused() -> None:
    files = no_routes()
    (route,) = routes_of(files)
    assert route["direct_response"]["status"] == 503
    assert json.dumps(files)
