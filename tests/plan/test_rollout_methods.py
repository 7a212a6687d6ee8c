"""A Rollout whose success is tested in another way than once at the window's end; `run` is seconds since the start."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel.api.rollout import Analysis
from flywheel.plan import rollout_verdict
from flywheel.plan.rollout_routes import asked_of_the_collector
from flywheel.stats.verdict import AnalysisPlan, Evidence, Measured, Moments, assess
from tests.plan.rollout_world import BETTER, EQUAL, World, evidence, rollout_spec

TIMES = {"interval": "2s", "window": "150s", "horizon": "15s", "minimumUsers": 50, "patience": "60s"}
FEW = {"method": "GroupSequential", "groupSequential": {"usersPerSlice": 1000, "looks": 4}}


def world(**analysis: Any) -> World:
    return World(rollout_spec(analysis=TIMES | analysis))


def test_a_few_looks_promote_long_before_the_window_is_over_and_the_decision_replays() -> None:
    few = world(**FEW)
    few.evidence = evidence(EQUAL, BETTER, n=300)
    assert few.run(20) in ("Promoting", "Watching")
    status = few.rollout.status
    assert status.looks == (0.3,)
    assert status.decision is not None
    assert (status.decision.verdict, status.decision.reason) == ("Promote", "SuccessProven")
    stored = status.decision.evidence
    assert stored is not None
    again = assess(AnalysisPlan.from_dict(stored["plan"]), Evidence.from_dict(stored["evidence"]))
    assert (str(again.outcome), again.message) == ("Promote", status.decision.message)


def test_a_look_is_remembered_and_not_repeated_however_often_the_metrics_are_seen() -> None:
    few = world(**FEW)
    few.evidence = evidence(EQUAL, EQUAL, n=300)
    assert few.run(60) == "Progressing"
    assert few.rollout.status.looks == (0.3,)
    few.evidence = evidence(EQUAL, EQUAL, n=520)
    few.run(80)
    assert few.rollout.status.looks == (0.3, 0.52)


def test_a_suspended_rollout_spends_no_look() -> None:
    few = world(**FEW)
    few.run(10)
    few.edit(suspend=True)
    few.evidence = evidence(EQUAL, EQUAL, n=300)
    few.run(40)
    assert few.rollout.status.looks == ()


def test_at_any_time_a_sure_promotion_is_made() -> None:
    sure = world(method="AlwaysValid", alwaysValid={"usersPerSlice": 300})
    sure.evidence = evidence(EQUAL, BETTER, n=300)
    assert sure.run(20) in ("Promoting", "Watching")
    assert sure.rollout.status.looks == ()


def test_the_stored_evidence_holds_only_what_the_plan_asks_for() -> None:
    plain = world()
    one = Moments(200, 100, 100)
    full = Measured(one, one, segments=(("de", one, one),))
    _, kept = rollout_verdict.look(plain.rollout, Evidence((200, 200), {"breadth": full}, False), looks=(0.2,), window_over=False)
    assert kept.metrics["breadth"] == Measured(one, one)
    assert kept.looks == ()
    asked = world(segments=["de"])
    _, kept = rollout_verdict.look(asked.rollout, Evidence((200, 200), {"breadth": full}, False), window_over=False)
    assert kept.metrics["breadth"] == full


@pytest.mark.parametrize(
    ("analysis", "asked"),
    [
        ({}, {}),
        ({"cuped": {}}, {"covariateSeconds": 604800.0}),
        ({"burnIn": "1h"}, {"burnInSeconds": 3600.0}),
        ({"novelty": {}, "window": "168h"}, {"segments": ["early", "late"], "earlySeconds": 302400.0}),
        ({"cuped": {"period": "48h"}, "segments": ["known", "de"]}, {"covariateSeconds": 172800.0, "segments": ["known", "de"]}),
    ],
)
def test_the_collector_is_asked_only_for_what_the_plan_needs(analysis: dict[str, Any], asked: dict[str, Any]) -> None:
    assert asked_of_the_collector(Analysis.model_validate(analysis)) == asked
