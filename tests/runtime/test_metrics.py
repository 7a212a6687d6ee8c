from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from prometheus_client import generate_latest

from flywheel.adapters.resources import resource_of
from flywheel.api.base import format_time
from flywheel.ports import ClusterError, Conflict
from flywheel.runtime.cache import key_of
from flywheel.runtime.keys import KINDS, Key
from flywheel.runtime.metrics import Metrics
from flywheel.runtime.object_metrics import MAX_NAMED, STILL_AFTER, ObjectMetrics
from flywheel.runtime.object_summary import AT_REST
from tests.runtime.faketime import START

Body = dict[str, Any]
SPECS = {"Generation": {"flywheel": "companion"}, "TrainingRun": {"method": "SFT"}}


class FixedClock:
    def now(self) -> dt.datetime:
        return START


def ago(seconds: float) -> str:
    return format_time(START - dt.timedelta(seconds=seconds))


def body(kind: str, name: str = "x", *, made: float = 86400.0, **status: Any) -> Body:
    meta = {"name": name, "namespace": "demo", "creationTimestamp": ago(made)[:19] + "Z"}
    return {"kind": kind, "metadata": meta, "spec": SPECS.get(kind, {}), "status": status}


def condition(type_: str, status: str, reason: str, since: float) -> Body:
    return {"type": type_, "status": status, "reason": reason, "lastTransitionTime": ago(since)}


def decided(verdict: str, seconds: float, reason: str = "GuardrailHarm") -> Body:
    return {"verdict": verdict, "reason": reason, "time": ago(seconds)}


def told_of(*bodies: Body) -> ObjectMetrics:
    metrics = ObjectMetrics(FixedClock())
    for one in bodies:
        metrics.seen(key_of(one), one)
    return metrics


def scrape(*bodies: Body) -> dict[str, dict[tuple[str, ...], float]]:
    """What Prometheus gets: by family, the values by their labels in the order they are declared in."""
    families = told_of(*bodies).collect()
    return {family.name: {tuple(s.labels.values()): s.value for s in family.samples} for family in families}


def test_objects_are_counted_by_kind_and_phase_and_one_without_a_status_is_pending() -> None:
    counted = scrape(body("Rollout", "a", phase="Progressing"), body("Rollout", "b", phase="Progressing"), body("Generation"))
    assert counted["flywheel_objects"] == {("Generation", "Pending"): 1, ("Rollout", "Progressing"): 2}


def test_every_kind_has_phases_in_which_it_rests() -> None:
    assert set(AT_REST) == set(KINDS)


def test_time_in_a_phase_is_that_of_the_object_that_has_not_moved_for_longest() -> None:
    seconds = scrape(
        body("Rollout", "a", phase="Promoting", decision=decided("Promote", 30)),
        body("Rollout", "b", phase="Promoting", decision=decided("Promote", 90)),
        body("Rollout", "c", phase="Promoted", decision=decided("Promote", 9000)),
    )["flywheel_phase_seconds"]
    assert seconds == {("Rollout", "Promoting"): 90.0}


@pytest.mark.parametrize(
    "status",
    [
        {"stepStartTime": ago(50), "windowEndTime": ago(-3600)},
        {"attempts": [{"startTime": ago(5000), "endTime": ago(50)}]},
        {"stages": [{"startTime": ago(5000), "completionTime": ago(50)}, {"name": "rl"}]},
        {"conditions": [condition("Progressing", "True", "Running", 50)]},
        {"decision": decided("Rollback", 50)},
    ],
)
def test_an_object_moved_when_the_newest_past_time_in_its_status_says_so(status: Body) -> None:
    assert scrape(body("Rollout", phase="RollingBack", **status))["flywheel_phase_seconds"] == {("Rollout", "RollingBack"): 50.0}


def test_an_object_that_nothing_ever_happened_to_has_stood_still_since_it_was_made() -> None:
    still = scrape(body("TrainingRun", made=7200))["flywheel_object_still_since_timestamp_seconds"]
    assert still == {("TrainingRun", "demo", "x", "Pending", ""): (START - dt.timedelta(hours=2)).timestamp()}


def test_only_what_stands_still_is_named_with_the_reason_it_gives() -> None:
    waits = [condition("Progressing", "False", "Queued", STILL_AFTER)]
    still = scrape(
        body("Rollout", "waits", phase="Pending", conditions=waits),
        body("Rollout", "moves", phase="Promoting", decision=decided("Promote", STILL_AFTER - 1)),
        body("Rollout", "ended", phase="RolledBack", decision=decided("Rollback", 7200)),
        body("Flywheel", "serves", phase="Serving"),
    )["flywheel_object_still_since_timestamp_seconds"]
    assert list(still) == [("Rollout", "demo", "waits", "Pending", "Queued")]


def test_an_object_on_its_way_out_is_no_longer_spoken_of() -> None:
    leaving = body("TrainingRun", made=7200)
    leaving["metadata"]["deletionTimestamp"] = ago(1)
    assert not any(scrape(leaving).values())


def test_no_family_names_more_objects_than_prometheus_can_bear_and_the_longest_still_come_first() -> None:
    crowd = [body("TrainingRun", f"run-{n}", made=10_000 + n, phase="Pending") for n in range(MAX_NAMED + 50)]
    still = scrape(*crowd)["flywheel_object_still_since_timestamp_seconds"]
    assert len(still) == MAX_NAMED
    assert ("TrainingRun", "demo", f"run-{MAX_NAMED + 49}", "Pending", "") in still


def test_an_object_that_cannot_be_reconciled_is_named_even_when_it_rests() -> None:
    wrong = [condition("Reconciled", "False", "NameConflict", 60)]
    failing = scrape(body("Generation", phase="Promoted", conditions=wrong))["flywheel_condition_false_since_timestamp_seconds"]
    assert list(failing) == [("Generation", "demo", "x", "Reconciled", "NameConflict")]


def test_metrics_that_cannot_be_had_are_told_while_the_rollout_lasts() -> None:
    stale = [condition("MetricsAvailable", "False", "MetricsStale", 60)]
    failing = scrape(
        body("Rollout", "goes-on", phase="Progressing", conditions=stale),
        body("Rollout", "ended", phase="Inconclusive", conditions=stale),
        body("Rollout", "fine", phase="Progressing", conditions=[condition("MetricsAvailable", "True", "Ready", 60)]),
    )["flywheel_condition_false_since_timestamp_seconds"]
    assert failing == {("Rollout", "demo", "goes-on", "MetricsAvailable", "MetricsStale"): (START - dt.timedelta(seconds=60)).timestamp()}


def test_a_decision_is_named_for_a_week() -> None:
    told = scrape(
        body("Rollout", "lately", phase="RolledBack", decision=decided("Rollback", 3600)),
        body("Rollout", "long-ago", phase="RolledBack", decision=decided("Rollback", 8 * 86400)),
        body("Rollout", "being-carried-out", phase="RollingBack", decision=decided("Rollback", 1)),
    )["flywheel_decided_timestamp_seconds"]
    assert list(told) == [("Rollout", "demo", "lately", "Rollback", "GuardrailHarm")]


def test_a_held_lap_is_named_until_a_later_lap_of_its_flywheel_and_no_longer_than_it_is_held() -> None:
    held = body("Generation", "g2", made=30 * 86400, phase="Held", decision=decided("Held", 29 * 86400, "GateHeld"))
    assert list(scrape(held)["flywheel_decided_timestamp_seconds"]) == [("Generation", "demo", "g2", "Held", "GateHeld")]
    assert not scrape(held, body("Generation", "g3", made=60))["flywheel_decided_timestamp_seconds"]
    again = {**held, "status": {**held["status"], "phase": "Training"}}
    assert not scrape(again)["flywheel_decided_timestamp_seconds"]


def test_a_weight_that_the_router_has_not_confirmed_has_no_acknowledged_series() -> None:
    weights = scrape(
        body("Rollout", "asked", phase="Progressing", weights={"intended": 25, "revision": 7}),
        body("Rollout", "confirmed", phase="Progressing", weights={"intended": 50, "acknowledged": 50, "revision": 9}),
        body("Rollout", "prepares", phase="Preparing", weights={"intended": 0, "revision": 0}),
        body("Rollout", "ended", phase="Promoted", weights={"intended": 100, "acknowledged": 100, "revision": 9}),
    )["flywheel_rollout_weight_percent"]
    assert weights == {
        ("demo", "asked", "intended"): 25,
        ("demo", "confirmed", "intended"): 50,
        ("demo", "confirmed", "acknowledged"): 50,
    }


def test_the_lift_comes_with_its_interval_as_far_as_it_is_known() -> None:
    known = {"name": "breadth", "role": "Success", "lift": 0.1, "liftLower": -0.02, "liftUpper": 0.22}
    lifts = scrape(body("Rollout", phase="Progressing", metrics=[known, {"name": "errors", "role": "Guardrail"}]))[
        "flywheel_rollout_lift_ratio"
    ]
    assert lifts == {
        ("demo", "x", "breadth", "estimate"): 0.1,
        ("demo", "x", "breadth", "lower"): -0.02,
        ("demo", "x", "breadth", "upper"): 0.22,
    }


def test_the_progress_of_a_run_is_told_while_it_runs() -> None:
    percents = scrape(
        body("TrainingRun", "runs", phase="Running", progress={"percent": 40}),
        body("TrainingRun", "begins", phase="Running"),
        body("TrainingRun", "done", phase="Succeeded", progress={"percent": 100}),
    )["flywheel_training_run_percent"]
    assert percents == {("demo", "runs", "SFT"): 40}


def test_the_loop_is_looked_at_when_prometheus_asks_and_not_when_it_moves() -> None:
    metrics = Metrics()
    depth = 3
    metrics.watch_loop(lambda: depth, lambda: 12, lambda: 1234.5)
    assert metrics.registry.get_sample_value("flywheel_operator_awaiting_first_pass") == 12
    assert metrics.registry.get_sample_value("flywheel_operator_queue_depth") == 3
    depth = 7
    assert metrics.registry.get_sample_value("flywheel_operator_queue_depth") == 7
    assert metrics.registry.get_sample_value("flywheel_operator_last_tick_timestamp_seconds") == 1234.5


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (Conflict("written in between", status=409, retryable=True), "conflict"),
        (ClusterError("forbidden", status=403, retryable=False), "http_403"),
        (ClusterError("no route", status=0, retryable=True), "unreachable"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_failed_pass_is_counted_by_what_failed(error: Exception, word: str) -> None:
    metrics = Metrics()
    metrics.passed(Key("Rollout", "demo", "r"), 0.1, error)
    assert metrics.registry.get_sample_value("flywheel_operator_reconcile_errors_total", {"kind": "Rollout", "error": word}) == 1
    assert metrics.registry.get_sample_value("flywheel_operator_reconcile_seconds_count", {"kind": "Rollout"}) == 1


def test_requests_are_counted_by_resource_and_timed_without_it() -> None:
    metrics = Metrics()
    metrics.request("PUT", "rollouts", 409, 0.2)
    labels = {"method": "PUT", "resource": "rollouts", "code": "409"}
    assert metrics.registry.get_sample_value("flywheel_operator_api_requests_total", labels) == 1
    assert metrics.registry.get_sample_value("flywheel_operator_api_request_seconds_count", {"method": "PUT"}) == 1


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/pods", "pods"),
        ("/api/v1/namespaces/demo/pods/p", "pods"),
        ("/apis/modelflywheel.dev/v1alpha1/namespaces/demo/rollouts/r/status", "rollouts"),
        ("/apis/batch/v1/jobs", "jobs"),
        ("/api/v1/namespaces", "namespaces"),
    ],
)
def test_a_request_is_about_the_resource_in_its_path(path: str, resource: str) -> None:
    assert resource_of(path) == resource


def test_all_series_are_printed_together() -> None:
    metrics = Metrics()
    metrics.registry.register(told_of(body("Generation", phase="Training")))
    assert b'flywheel_objects{kind="Generation",phase="Training"} 1.0' in generate_latest(metrics.registry)
