"""The decision."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.stats.verdict import (
    AnalysisPlan,
    Assessment,
    Evidence,
    Measured,
    MetricEstimate,
    MetricPlan,
    MetricState,
    Moments,
    NoData,
    Outcome,
    Reason,
    Stale,
    Unavailable,
    assess,
)
from tests.stats.strategies import enough, evidences, plans

PLAN = AnalysisPlan(
    metrics=(
        MetricPlan("breadth", "Success", "Increase", margin=0.05),
        MetricPlan("depth", "Success", "Increase", margin=0.05),
        MetricPlan("errors", "Guardrail", "Decrease", absolute_margin=0.05),
        MetricPlan("thumbs_down", "Guardrail", "Decrease", absolute_margin=0.05),
    ),
    minimum_users=100,
)
SAME = {"breadth": (150, 150), "depth": (300, 300), "errors": (2, 2), "thumbs_down": (8, 8)}
LIFTED = SAME | {"breadth": (150, 210), "depth": (300, 420)}
OUTAGES = (NoData(), Stale(320.0), Unavailable("connection refused"))


def seen(totals: dict[str, tuple[int, int]] = SAME, *, n: int = 400, over: bool = True, **change: Any) -> Evidence:
    """`n` matured users a slice; depth comes in threes, the rest in ones."""
    metrics: dict[str, Any] = {
        name: Measured(*(Moments(n, t, t * (3 if name == "depth" else 1)) for t in both)) for name, both in totals.items()
    }
    return Evidence(change.pop("assigned", (431, 430)), metrics | change, over)


def estimate_of(assessment: Assessment, name: str) -> MetricEstimate:
    return next(e for e in assessment.estimates if e.name == name)


# ------------------------------------------------------------------------------------------------ the window's end


def test_a_proven_lift_is_promoted() -> None:
    found = assess(PLAN, seen(LIFTED))
    assert (found.outcome, found.reason) == (Outcome.PROMOTE, Reason.SUCCESS_PROVEN)
    assert found.message == (
        "breadth +40 % [+20 %, +64.6 %] (p = 8.24e-06 ≤ 0.0125); depth +40 % [+13.2 %, +75.2 %] (p = 0.000965 ≤ 0.025); "
        "errors +0 [-0.0119, +0.0119] (within +0.05); thumbs_down +0 [-0.0205, +0.0205] (within +0.05)"
    )
    assert [e.state for e in found.estimates] == ["Proven", "Proven", "NonInferior", "NonInferior"]


def test_equal_models_are_inconclusive() -> None:
    found = assess(PLAN, seen(SAME))
    assert (found.outcome, found.reason) == (Outcome.INCONCLUSIVE, Reason.NO_SIGNIFICANT_LIFT)
    assert found.message.startswith("no success metric is proven better: breadth +0 % [")


def test_one_proven_success_promotes_if_the_other_is_no_worse() -> None:
    wide = replace(PLAN, metrics=(PLAN.metrics[0], replace(PLAN.metrics[1], margin=0.3), *PLAN.metrics[2:]))
    found = assess(wide, seen(LIFTED | {"depth": (300, 303)}))
    assert found.outcome is Outcome.PROMOTE
    assert estimate_of(found, "depth").state is MetricState.NON_INFERIOR


def test_one_proven_success_does_not_promote_if_the_other_may_be_worse() -> None:
    found = assess(PLAN, seen(LIFTED | {"depth": (300, 280)}))
    assert (found.outcome, found.reason) == (Outcome.INCONCLUSIVE, Reason.NON_INFERIORITY_NOT_SHOWN)
    assert found.message.startswith("breadth is better, but depth isn't shown to be no worse: ")
    assert estimate_of(found, "depth").state is MetricState.NOT_SHOWN


def test_a_guardrail_that_may_be_worse_than_its_margin_stops_a_promotion() -> None:
    found = assess(PLAN, seen(LIFTED | {"errors": (2, 16)}))
    assert (found.outcome, found.reason) == (Outcome.INCONCLUSIVE, Reason.NON_INFERIORITY_NOT_SHOWN)
    assert "errors isn't shown" in found.message
    assert "(not shown within +0.05)" in found.message


def test_a_metric_without_a_margin_must_be_within_five_percent() -> None:
    plans_ = [replace(PLAN, metrics=(PLAN.metrics[0], replace(PLAN.metrics[1], margin=m), *PLAN.metrics[2:])) for m in (None, 0.05)]
    assert len({assess(plan, seen(LIFTED | {"depth": (300, 330)})) for plan in plans_}) == 1


def test_two_success_metrics_share_the_error_rate() -> None:
    weak = seen(SAME | {"breadth": (150, 178)})  # one-sided p about 0.02
    alone = AnalysisPlan(metrics=PLAN.metrics[:1], minimum_users=100)
    assert assess(alone, weak).outcome is Outcome.PROMOTE
    assert assess(PLAN, weak).outcome is Outcome.INCONCLUSIVE


def test_a_metric_that_is_good_when_it_falls_is_promoted_when_it_falls() -> None:
    plan = AnalysisPlan(metrics=(MetricPlan("errors", "Success", "Decrease"),), minimum_users=100)
    assert assess(plan, seen({"errors": (150, 90)})).outcome is Outcome.PROMOTE
    assert assess(plan, seen({"errors": (90, 150)})).outcome is Outcome.ROLLBACK


def test_too_few_users_are_inconclusive_however_good_they_look() -> None:
    found = assess(PLAN, seen({"breadth": (10, 90), "depth": (20, 180), "errors": (0, 0), "thumbs_down": (0, 0)}, n=99))
    assert (found.outcome, found.reason) == (Outcome.INCONCLUSIVE, Reason.TOO_FEW_USERS)
    assert "breadth has 99 control and 99 candidate users, and needs 100 of each" in found.message
    assert estimate_of(found, "breadth").state is MetricState.TOO_FEW_USERS
    assert estimate_of(found, "breadth").lift_lower is None


# ------------------------------------------------------------------------------------------------ the sample ratio


@pytest.mark.parametrize("totals", [LIFTED, SAME, SAME | {"breadth": (210, 90)}])
@pytest.mark.parametrize("over", [True, False])
def test_a_broken_split_holds_whatever_the_metrics_say(totals: dict[str, tuple[int, int]], over: bool) -> None:
    found = assess(PLAN, seen(totals, over=over, assigned=(600, 430)))
    assert (found.outcome, found.reason) == (Outcome.HOLD, Reason.SAMPLE_RATIO_MISMATCH)
    assert found.message.startswith("600 control to 430 candidate users is not 1:1 (p = ")
    assert found.sample_ratio_p is not None
    assert found.sample_ratio_p < 0.001


@pytest.mark.parametrize("assigned", [None, (390, 431), (0, 0)])
def test_without_a_vouched_split_nothing_is_promoted_or_rolled_back(assigned: tuple[int, int] | None) -> None:
    for totals in (LIFTED, SAME | {"breadth": (210, 90)}):
        assert assess(PLAN, seen(totals, assigned=assigned)).outcome is Outcome.NO_VERDICT
        assert assess(PLAN, seen(totals, assigned=assigned, over=False)).outcome is Outcome.CONTINUE


def test_more_measured_than_assigned_users_are_named() -> None:
    found = assess(PLAN, seen(assigned=(390, 431)))
    assert found.reason is Reason.METRICS_UNAVAILABLE
    assert "breadth counts 400 control and 400 candidate users, more than the 390 and 431 that were assigned" in found.message


# ------------------------------------------------------------------------------------------------ harm


@pytest.mark.parametrize("over", [True, False])
def test_proven_harm_rolls_back_at_once(over: bool) -> None:
    found = assess(PLAN, seen(SAME | {"breadth": (220, 120)}, over=over))
    assert (found.outcome, found.reason) == (Outcome.ROLLBACK, Reason.GUARDRAIL_HARM)
    assert found.message == ("harm is proven: breadth -45.5 % (at best -26.3 %), worse than control (alpha 0.00625 at all looks together)")
    assert estimate_of(found, "breadth").state is MetricState.HARM


def test_harm_on_a_guardrail_rolls_back_though_success_is_proven() -> None:
    found = assess(PLAN, seen(LIFTED | {"errors": (2, 80)}))
    assert (found.outcome, found.reason) == (Outcome.ROLLBACK, Reason.GUARDRAIL_HARM)
    assert "errors +0.195 (at best +0.121), worse than the margin +0.05" in found.message


def test_a_loss_on_a_guardrail_within_its_margin_is_tolerated() -> None:
    tolerant = replace(PLAN, metrics=(*PLAN.metrics[:2], replace(PLAN.metrics[2], absolute_margin=0.5), PLAN.metrics[3]))
    assert assess(tolerant, seen(LIFTED | {"errors": (2, 80)})).outcome is Outcome.PROMOTE


def test_a_guardrail_without_a_margin_tolerates_no_proven_loss() -> None:
    bare = replace(PLAN, metrics=(*PLAN.metrics[:2], MetricPlan("errors", "Guardrail", "Decrease"), PLAN.metrics[3]))
    worse = seen(LIFTED | {"errors": (100, 170)})
    assert assess(bare, worse).outcome is Outcome.ROLLBACK
    assert "worse than control" in assess(bare, worse).message


def test_a_relative_margin_of_a_guardrail_is_named_in_the_message() -> None:
    bounded = replace(PLAN, metrics=(*PLAN.metrics[:2], MetricPlan("errors", "Guardrail", "Decrease", margin=0.1), PLAN.metrics[3]))
    assert "errors +100 % (at best +42.9 %), worse than the margin +10 %" in assess(bounded, seen(LIFTED | {"errors": (100, 200)})).message


def test_a_lift_without_bounds_is_told_as_a_difference() -> None:
    bounded = replace(PLAN, metrics=(*PLAN.metrics[:2], MetricPlan("errors", "Guardrail", "Decrease", margin=0.1), PLAN.metrics[3]))
    found = assess(bounded, seen(LIFTED | {"errors": (1, 80)}))
    assert found.outcome is Outcome.ROLLBACK
    assert "errors +0.198 (at best +0.1" in found.message


def test_a_loss_on_a_success_metric_is_harm_though_within_its_non_inferiority_margin() -> None:
    wide = replace(PLAN, metrics=(replace(PLAN.metrics[0], margin=0.9), *PLAN.metrics[1:]))
    assert assess(wide, seen(SAME | {"breadth": (220, 120)}, over=False)).outcome is Outcome.ROLLBACK


def test_harm_is_not_called_before_the_minimum_of_users() -> None:
    found = assess(PLAN, seen({"breadth": (90, 5), "depth": (180, 6), "errors": (0, 60), "thumbs_down": (0, 60)}, n=99, over=False))
    assert (found.outcome, found.reason) == (Outcome.CONTINUE, Reason.ENROLLING)


def test_a_dip_that_one_test_would_call_significant_is_not_proven_harm() -> None:
    found = assess(PLAN, seen(SAME | {"breadth": (180, 150)}, over=False))  # one-sided p about 0.02
    assert found.outcome is Outcome.CONTINUE


def test_more_watched_metrics_need_more_proof() -> None:
    borderline = seen(SAME | {"breadth": (150, 104)}, over=False)
    assert assess(AnalysisPlan(metrics=PLAN.metrics[:1], minimum_users=100), borderline).outcome is Outcome.ROLLBACK
    assert assess(PLAN, borderline).outcome is Outcome.CONTINUE


# ------------------------------------------------------------------------------------------------ before the window's end


def test_a_lift_is_not_promoted_before_the_window_is_over() -> None:
    found = assess(PLAN, seen(LIFTED, over=False))
    assert (found.outcome, found.reason) == (Outcome.CONTINUE, Reason.ENROLLING)
    assert all(e.p_value is None for e in found.estimates)


def test_an_open_window_shows_intervals_that_hold_at_all_looks() -> None:
    early, late = (estimate_of(assess(PLAN, seen(SAME, over=over)), "breadth") for over in (False, True))
    assert early.lift_lower is not None
    assert late.lift_lower is not None
    assert early.lift_lower < late.lift_lower < 0


# ------------------------------------------------------------------------------------------------ outages


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_prometheus_outage_never_rolls_back(outage: Any) -> None:
    evidence = Evidence(None, dict.fromkeys(SAME, outage), window_over=False)
    found = assess(PLAN, evidence)
    assert (found.outcome, found.estimates, found.sample_ratio_p) == (Outcome.CONTINUE, (), None)


@pytest.mark.parametrize(
    ("outage", "reason"), list(zip(OUTAGES, (Reason.NO_DATA, Reason.METRICS_STALE, Reason.METRICS_UNAVAILABLE), strict=True))
)
def test_a_prometheus_outage_at_the_windows_end_gives_no_verdict(outage: Any, reason: Reason) -> None:
    found = assess(PLAN, Evidence((431, 430), dict.fromkeys(SAME, outage), window_over=True))
    assert (found.outcome, found.reason, found.estimates) == (Outcome.NO_VERDICT, reason, ())


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("name", SAME)
def test_one_missing_metric_is_enough_for_no_verdict(name: str, outage: Any) -> None:
    found = assess(PLAN, seen(LIFTED, **{name: outage}))
    assert found.outcome is Outcome.NO_VERDICT
    assert name in found.message
    assert len(found.estimates) == 3


def test_a_metric_that_nobody_asked_the_provider_for_has_no_data() -> None:
    evidence = seen(LIFTED)
    found = assess(PLAN, replace(evidence, metrics={k: v for k, v in evidence.metrics.items() if k != "depth"}))
    assert (found.outcome, found.reason, found.message) == (Outcome.NO_VERDICT, Reason.NO_DATA, "depth has no data")


def test_the_gravest_reason_of_an_outage_is_given_and_all_are_told() -> None:
    found = assess(PLAN, seen(LIFTED, breadth=NoData(), depth=Unavailable("connection refused"), errors=Stale(320.0)))
    assert found.reason is Reason.METRICS_UNAVAILABLE
    assert found.message == "breadth has no data; depth is unavailable: connection refused; errors is 320 s old"


def test_harm_that_was_measured_counts_though_another_metric_is_missing() -> None:
    found = assess(PLAN, seen(SAME | {"breadth": (220, 120)}, depth=Stale(320.0), over=False))
    assert found.outcome is Outcome.ROLLBACK


def test_metrics_outside_the_plan_are_ignored() -> None:
    assert assess(PLAN, seen(LIFTED, fallbacks=Unavailable("x"))) == assess(PLAN, seen(LIFTED))


# ------------------------------------------------------------------------------------------------ whatever comes


@settings(max_examples=200)
@given(plans(), evidences)
def test_any_evidence_gets_an_answer_in_finite_numbers(plan: AnalysisPlan, evidence: Evidence) -> None:
    found = assess(plan, evidence)
    json.dumps([e.to_dict() for e in found.estimates], allow_nan=False)
    assert found.message
    assert "nan" not in found.message
    assert "inf" not in found.message.replace("inferior", "")
    for value in (x for e in found.estimates for x in e.to_dict().values() if isinstance(x, float)):
        assert math.isfinite(value)
    if found.outcome in (Outcome.PROMOTE, Outcome.INCONCLUSIVE, Outcome.NO_VERDICT):
        assert evidence.window_over
    if found.outcome is Outcome.CONTINUE:
        assert not evidence.window_over
    if found.outcome in (Outcome.PROMOTE, Outcome.ROLLBACK):
        assert evidence.assigned is not None
        assert found.sample_ratio_p is not None
        assert found.sample_ratio_p >= plan.sample_ratio_alpha
    if found.outcome is Outcome.PROMOTE:
        assert all(isinstance(evidence.metrics.get(m.name), Measured) for m in plan.metrics)


@given(plans(), evidences)
def test_a_stored_decision_replays_to_the_same_answer(plan: AnalysisPlan, evidence: Evidence) -> None:
    stored = json.loads(json.dumps([plan.to_dict(), evidence.to_dict()]))
    assert assess(AnalysisPlan.from_dict(stored[0]), Evidence.from_dict(stored[1])) == assess(plan, evidence)


@given(enough(100), enough(100))
def test_a_candidate_and_its_control_are_never_both_better(a: Moments, b: Moments) -> None:
    plan = AnalysisPlan(metrics=PLAN.metrics[:1], minimum_users=100)
    outcomes = [assess(plan, Evidence((5000, 5000), {"breadth": Measured(*pair)}, True)).outcome for pair in ((a, b), (b, a))]
    assert outcomes.count(Outcome.PROMOTE) <= 1
    assert outcomes.count(Outcome.ROLLBACK) <= 1
    if outcomes[0] is Outcome.ROLLBACK:
        assert outcomes[1] is Outcome.PROMOTE


@given(enough(100), enough(100), st.floats(0.01, 1000))
def test_the_unit_of_a_metric_does_not_change_the_verdict(a: Moments, b: Moments, unit: float) -> None:
    plan = AnalysisPlan(metrics=PLAN.metrics[:1], minimum_users=100)
    scaled = [Moments(m.n, m.total * unit, m.total_squares * unit * unit) for m in (a, b)]
    outcomes = [assess(plan, Evidence((5000, 5000), {"breadth": Measured(*pair)}, True)).outcome for pair in ((a, b), scaled)]
    assert outcomes[0] == outcomes[1]


# ------------------------------------------------------------------------------------------------ status


def test_status_has_six_digits_and_null_for_what_is_no_number() -> None:
    form = estimate_of(assess(PLAN, seen(SAME | {"errors": (0, 1)}, n=300, over=False)), "errors").to_dict()
    assert form == {
        "name": "errors",
        "role": "Guardrail",
        "nControl": 300,
        "nCandidate": 300,
        "meanControl": 0.0,
        "meanCandidate": 0.00333333,
        "difference": 0.00333333,
        "lift": None,
        "liftLower": None,
        "liftUpper": None,
        "pValue": None,
        "harmBound": -0.0170805,
        "state": "Measured",
    }


def test_an_empty_slice_has_no_mean() -> None:
    empty = Measured(Moments(0, 0, 0), Moments(400, 100, 100))
    form = estimate_of(assess(PLAN, seen(breadth=empty)), "breadth").to_dict()
    assert (form["meanControl"], form["difference"], form["lift"], form["state"]) == (None, None, None, "TooFewUsers")
