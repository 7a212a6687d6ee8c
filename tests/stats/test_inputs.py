"""Plans and evidence: what is refused, and what survives storage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from flywheel.stats.verdict import AnalysisPlan, Evidence, Measured, MetricPlan, Moments, Stale, Unavailable, evidence_digest
from tests.stats.strategies import evidences, plans

BREADTH = MetricPlan("breadth", "Success", "Increase", margin=0.05)


def plan_of(**change: Any) -> AnalysisPlan:
    defaults: dict[str, Any] = {"metrics": (BREADTH,), "minimum_users": 100}
    return AnalysisPlan(**(defaults | change))


@given(plans(), evidences)
def test_plan_and_evidence_survive_json(plan: AnalysisPlan, evidence: Evidence) -> None:
    stored = json.loads(json.dumps({"plan": plan.to_dict(), "evidence": evidence.to_dict()}, allow_nan=False))
    replayed = AnalysisPlan.from_dict(stored["plan"]), Evidence.from_dict(stored["evidence"])
    assert replayed == (plan, evidence)
    assert evidence_digest(*replayed) == evidence_digest(plan, evidence)


def test_the_digest_does_not_depend_on_the_order_of_metrics_in_the_evidence() -> None:
    a, b = Stale(3.0), Unavailable("down")
    one, other = Evidence(None, {"breadth": a, "depth": b}, False), Evidence(None, {"depth": b, "breadth": a}, False)
    assert evidence_digest(plan_of(), one) == evidence_digest(plan_of(), other)


def test_the_digest_changes_with_one_user_or_one_margin() -> None:
    evidence = Evidence((10, 10), {"breadth": Measured(Moments(10, 3, 3), Moments(10, 4, 4))}, True)
    other = Evidence((10, 11), dict(evidence.metrics), True)
    digests = {evidence_digest(plan_of(), evidence), evidence_digest(plan_of(), other), evidence_digest(plan_of(alpha=0.02), evidence)}
    assert len(digests) == 3


def test_the_digest_of_a_stored_decision_never_changes() -> None:
    evidence = Evidence((10, 10), {"breadth": Measured(Moments(10, 3, 3), Moments(10, 4, 4)), "x": Unavailable("é")}, True)
    assert evidence_digest(plan_of(), evidence) == "sha256:ea2bfc98f0a232001d973e88cc68df5ecbccd330aa65a8421ef80bbe14066083"


def test_absent_things_are_left_out_of_the_stored_form() -> None:
    assert Evidence(None, {}, False).to_dict() == {"metrics": {}, "windowOver": False}
    assert "harmOptimizeUsers" not in plan_of().to_dict()
    assert BREADTH.to_dict() == {"name": "breadth", "role": "Success", "direction": "Increase", "margin": 0.05}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"metrics": ()}, "at least one with role Success"),
        ({"metrics": (MetricPlan("errors", "Guardrail", "Decrease"),)}, "at least one with role Success"),
        ({"metrics": (BREADTH, BREADTH)}, "breadth is there twice"),
        ({"alpha": 0.0}, "alpha: .*got 0.0"),
        ({"harm_alpha": float("nan")}, "harm_alpha: .*nan"),
        ({"sample_ratio_alpha": 1.0}, "sample_ratio_alpha: .*got 1.0"),
        ({"minimum_users": 1}, "minimum_users: expected at least 2, got 1"),
        ({"minimum_users": 10.5}, "minimum_users: .*got 10.5"),
        ({"harm_optimize_users": 0}, "harm_optimize_users: .*got 0"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        plan_of(**change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": ""}, "name: .*got ''"),
        ({"role": "Other"}, "role: .*got 'Other'"),
        ({"direction": "Up"}, "direction: .*got 'Up'"),
        ({"margin": -0.1}, "margin: .*got -0.1"),
        ({"margin": 1.5}, "margin: .*got 1.5"),
        ({"absolute_margin": float("inf")}, "absolute_margin: .*got inf"),
        ({"margin": 0.1, "absolute_margin": 0.1}, "has both"),
    ],
)
def test_a_metric_that_cannot_be_judged_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MetricPlan(**({"name": "breadth", "role": "Success", "direction": "Increase"} | change))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"assigned": [1], "metrics": {}, "windowOver": True}, "assigned: .*got \\[1\\]"),
        ({"assigned": [1, -1], "metrics": {}, "windowOver": True}, r"assigned\[1\]: .*got -1"),
        ({"metrics": {}, "windowOver": 1}, "window_over: .*got 1"),
        ({"metrics": [], "windowOver": True}, "metrics: .*got \\[\\]"),
        ({"metrics": {}, "windowOver": True, "verdict": "Promote"}, "unknown key 'verdict'"),
        ({"metrics": {"breadth": {"type": "Guessed"}}, "windowOver": True}, r"metrics\['breadth'\]\.type: .*'Guessed'"),
        ({"metrics": {"breadth": 0.3}, "windowOver": True}, r"metrics\['breadth'\]: expected an object"),
        ({"metrics": {"breadth": {"type": "Stale", "ageSeconds": "5"}}, "windowOver": True}, r"metrics\['breadth'\]\.age_seconds: .*'5'"),
        ({"metrics": {"breadth": {"type": "Unavailable"}}, "windowOver": True}, r"metrics\['breadth'\]\.message: .*None"),
        (
            {"metrics": {"breadth": {"type": "Measured", "control": {"n": 2, "total": 9, "totalSquares": 9}}}, "windowOver": True},
            r"metrics\['breadth'\]\.control\.total_squares: 9.* is too small",
        ),
    ],
)
def test_malformed_evidence_is_refused_with_the_path_of_what_is_wrong(data: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Evidence.from_dict(data)


def test_evidence_of_the_wrong_types_is_refused() -> None:
    with pytest.raises(ValueError, match=r"metrics\['breadth'\].*got 0\.3"):
        Evidence(None, {"breadth": 0.3}, True)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="at most 1000000000000 users"):
        Measured(Moments(10**12 + 1, 0, 0), Moments(1, 0, 0))
    with pytest.raises(ValueError, match="metrics: expected a list"):
        AnalysisPlan.from_dict({"metrics": "breadth"})


def test_changing_the_mapping_later_does_not_change_the_evidence() -> None:
    metrics: dict[str, Any] = {"breadth": Stale(1.0)}
    evidence = Evidence(None, metrics, True)
    metrics.clear()
    assert evidence.metrics == {"breadth": Stale(1.0)}
