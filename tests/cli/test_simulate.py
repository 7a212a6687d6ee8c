"""`kubectl flywheel simulate`: a plan's chance, its refusal, and replays."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel.plan.experiment_plan import users_a_day
from flywheel.stats.sizing import Base, promotion_chance, requirements, users_needed
from flywheel.stats.verdict import AnalysisPlan, Evidence, Measured, Moments, assess
from tests.cli.conftest import Flywheel
from tests.plan.rollout_world import rollout_spec

WEEK = {"window": "168h", "horizon": "24h"}


def rollout(**changes: Any) -> dict[str, Any]:
    spec = rollout_spec(analysis=WEEK | changes.pop("analysis", {}), **changes).dump()
    return {"apiVersion": "modelflywheel.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "g1"}, "spec": spec}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rollout.yaml"
    path.write_text(yaml.safe_dump(rollout()))
    return path


LIFT = ("--lift", "breadth=0.088", "--lift", "depth=0.088", "--runs", "20")


def test_a_plan_with_enough_users_is_powered(flywheel: Flywheel, file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "chance.svg"
    shown = flywheel("simulate", str(file), "--users-per-day", "2858", *LIFT, "--plot", str(picture))
    assert shown.exit_code == 0, shown.output
    assert "10003 matured users a slice after 8 days" in shown.output
    assert "powered: such a candidate is promoted in" in shown.output
    assert "its opposite:  Rollback" in shown.output
    root = ET.fromstring(picture.read_text())
    assert root.tag.endswith("svg")
    assert "this plan: 10003" in picture.read_text()


def test_a_plan_without_power_is_refused_with_the_users_it_would_need(flywheel: Flywheel, file: Path) -> None:
    shown = flywheel("simulate", str(file), "--users-per-day", "400", *LIFT)
    assert shown.exit_code == 1
    assert "not powered" in shown.output
    assert "it would need" in shown.output
    answer = json.loads(flywheel("simulate", str(file), "--users-per-day", "400", *LIFT, "-o", "json").output)
    assert answer["powered"] is False
    enough = -(-answer["usersNeeded"] * 2 // 7)  # of both slices a day
    assert flywheel("simulate", str(file), "--users-per-day", str(enough), *LIFT).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--lift", "breadth=x"), "'breadth=x' is not metric=number"),
        (("--lift", "joy=0.1"), "joy is no metric of the plan; it has breadth, depth"),
        (("--mean", "breadth=1.5"), "breadth is the share of users who go on"),
        (("--lift", "breadth=-0.1"), "no Success metric has one in its good direction"),
    ],
)
def test_assumptions_that_make_no_sense_are_named(flywheel: Flywheel, file: Path, arguments: tuple[str, ...], said: str) -> None:
    shown = flywheel("simulate", str(file), "--users-per-day", "3000", *arguments)
    assert shown.exit_code == 2
    assert said in shown.output


def test_without_users_there_is_nothing_to_size(flywheel: Flywheel, file: Path) -> None:
    shown = flywheel("simulate", str(file))
    assert shown.exit_code == 2
    assert "--users-per-day" in shown.output


# ------------------------------------------------------------------------------------------------ replay

PLAN = AnalysisPlan.from_dict(
    {
        "metrics": [{"name": "breadth", "role": "Success", "direction": "Increase"}],
        "alpha": 0.025, "harmAlpha": 0.025, "sampleRatioAlpha": 0.001, "minimumUsers": 100,
    }
)  # fmt: skip


def at(n: int, candidate: float, *, over: bool = False) -> Evidence:
    totals = (round(n * 0.3), round(n * candidate))
    return Evidence((n, n), {"breadth": Measured(*(Moments(n, t, t) for t in totals))}, over)  # type: ignore[arg-type]


def decided(evidence: Evidence, verdict: str) -> str:
    stored = {"plan": PLAN.to_dict(), "evidence": evidence.to_dict()}
    found = assess(PLAN, evidence)
    decision = {"verdict": verdict, "reason": str(found.reason), "time": "2026-11-25T00:00:00Z", "evidence": stored}
    return json.dumps(rollout() | {"status": {"decision": decision}})


def test_a_stored_decision_is_replayed_to_the_same_answer(flywheel: Flywheel) -> None:
    shown = flywheel("simulate", "--replay", "-", stdin=decided(at(1000, 0.4, over=True), "Promote"))
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("Promote (SuccessProven) at look 1 of 1, 2026-11-25T00:00:00Z\n")
    assert shown.output.endswith("the stored decision is the same\n")


def test_a_decision_that_its_numbers_do_not_give_is_told(flywheel: Flywheel) -> None:
    shown = flywheel("simulate", "--replay", "-", stdin=decided(at(1000, 0.4, over=True), "Rollback"))
    assert shown.exit_code == 1
    assert "the stored decision was Rollback" in shown.output


def test_a_recording_is_decided_when_its_plan_would_have(flywheel: Flywheel) -> None:
    looks = [{"time": f"day {i}", "evidence": at(300 * i, 0.1, over=i == 5).to_dict()} for i in range(1, 6)]
    recording = json.dumps({"plan": PLAN.to_dict(), "looks": looks})
    shown = json.loads(flywheel("simulate", "--replay", "-", "-o", "json", stdin=recording).output)
    assert (shown["verdict"], shown["look"], shown["time"]) == ("Rollback", 1, "day 1")


def test_another_plan_may_be_tried_on_a_recording(flywheel: Flywheel, tmp_path: Path) -> None:
    only = [{"name": "breadth", "role": "Success"}]
    other = tmp_path / "other.yaml"
    few = {"minimumUsers": 100, "method": "GroupSequential", "groupSequential": {"usersPerSlice": 1500}}
    other.write_text(yaml.safe_dump(rollout(metrics=only, analysis=few)))
    looks = [{"time": f"day {i}", "evidence": at(300 * i, 0.42, over=i == 5).to_dict()} for i in range(1, 6)]
    shown = json.loads(flywheel("simulate", str(other), "--replay", "-", "-o", "json", stdin=json.dumps({"looks": looks})).output)
    assert (shown["verdict"], shown["look"]) == ("Promote", 2)


@pytest.mark.parametrize("recording", ["[]", "{}", '{"looks": [{}]}', '{"kind": "Rollout"}'])
def test_what_is_no_recording_is_refused(flywheel: Flywheel, recording: str) -> None:
    assert flywheel("simulate", "--replay", "-", stdin=recording).exit_code == 2


# ------------------------------------------------------------------------------------------------ the arithmetic


def test_users_mature_a_horizon_after_they_came_and_the_ramp_is_counted() -> None:
    steps = [{"weightPercent": 10, "duration": "24h"}, {"weightPercent": 50}]
    days = users_a_day(rollout_spec(traffic={"steps": steps}, analysis=WEEK), 1000)
    assert days == pytest.approx([0, 100, 500, 500, 500, 500, 500, 500])


def test_more_users_are_a_better_chance_and_the_needed_ones_are_enough() -> None:
    bases = {"breadth": Base(0.5, 1.0, lift=0.05)}
    chances = [promotion_chance(requirements(PLAN, bases, n)) for n in (100, 1000, 5000, 20_000)]
    assert chances == sorted(chances)
    needed = users_needed(PLAN, bases, 0.8)
    assert needed is not None
    assert promotion_chance(requirements(PLAN, bases, needed)) == pytest.approx(0.8, abs=0.002)
