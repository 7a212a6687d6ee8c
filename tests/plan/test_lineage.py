"""What a Flywheel remembers of its generations: who served when, and who was in front of how many users."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flywheel.api.base import Metadata
from flywheel.api.flywheel import ChampionStatus, FlywheelStatus
from flywheel.api.generation import Generation, GenerationSpec, GenerationStatus
from flywheel.api.lineage import MAX_ENTRIES, LineageEntry
from flywheel.api.rollout import Rollout, RolloutStatus
from flywheel.plan.base import Delete
from flywheel.plan.flywheel_laps import RECORD_PATIENCE
from flywheel.plan.lineage import bounded, remembered
from tests.plan.generation_world import digest_of
from tests.plan.rollout_world import rollout_spec
from tests.plan.test_flywheel import T0, flywheel, plan

HOUR = dt.timedelta(hours=1)


def champion(generation: str, hours: int) -> ChampionStatus:
    digest = digest_of(generation)
    return ChampionStatus(generation=generation, uri="file:///m", digest=digest, arm=f"{generation}-arm", since=T0 + hours * HOUR)


def lap(name: str, hours: int, verdict: str | None = None, **status: Any) -> Generation:
    """A lap that began then, asked users by a Rollout, and was decided an hour later."""
    began = T0 + hours * HOUR
    decision = {"verdict": verdict, "reason": verdict, "message": "", "time": began + HOUR, "revision": 1} if verdict else None
    body = {
        "phase": verdict or "RollingOut",
        "revision": 1,
        "startTime": began,
        "parent": {"generation": "demo-initial", "uri": "file:///m", "digest": digest_of("demo-initial")},
        "model": {"uri": "file:///m", "digest": digest_of(name)},
        "rollout": f"{name}-rollout",
        "decision": decision,
        **status,
    }
    metadata = Metadata(name=name, namespace="demo", uid=name)
    return Generation(metadata=metadata, spec=GenerationSpec(flywheel="demo"), status=GenerationStatus.model_validate(body))


def rollout(generation: str, percent: int, step_hours: int, cutover_hours: int | None = None) -> Rollout:
    spec = rollout_spec(candidate={"generation": generation, "uri": "file:///m", "digest": digest_of(generation)})
    status = RolloutStatus.model_validate(
        {
            "windowStartTime": T0,
            "stepStartTime": T0 + step_hours * HOUR,
            "cutoverTime": None if cutover_hours is None else T0 + cutover_hours * HOUR,
            "weights": {"intended": percent},
        }
    )
    return Rollout(metadata=Metadata(name=f"{generation}-rollout", namespace="demo"), spec=spec, status=status)


def deleted(actions: list[Any]) -> list[str]:
    return [action.name for action in actions if isinstance(action, Delete)]


def test_a_lap_is_remembered_with_its_shares_and_its_reign_after_its_objects_are_gone() -> None:
    status = FlywheelStatus(champion=champion("demo-initial", 0))
    for percent, hours in ((5, 2), (50, 3)):
        status = status.model_copy(update={"lineage": remembered(status, [lap("g1", 1)], [rollout("g1", percent, hours)])})
    status = status.model_copy(update={"champion": champion("g1", 4), "previous": (champion("demo-initial", 0),)})
    record = {"uri": "file:///flywheel/artifacts/r", "digest": digest_of("r")}
    decided = lap("g1", 1, "Promoted", recordArtifact=record)
    lineage = remembered(status, [decided], [rollout("g1", 50, 3, cutover_hours=4)])
    gone = remembered(status.model_copy(update={"lineage": lineage}), [], [])
    assert gone == lineage
    initial, g1 = gone
    assert (initial.generation, initial.served_from, initial.served_until) == ("demo-initial", T0, T0 + 4 * HOUR)
    assert (g1.parent, g1.verdict, g1.baseline, g1.served_from, g1.served_until) == (
        "demo-initial",
        "Promoted",
        "demo-initial",
        T0 + 4 * HOUR,
        None,
    )
    assert [(share.since, share.percent) for share in g1.shares] == [(T0 + 2 * HOUR, 5), (T0 + 3 * HOUR, 50), (T0 + 4 * HOUR, 0)]
    assert g1.record_digest == digest_of("r")


def test_a_lap_that_starts_again_is_another_entry() -> None:
    status = FlywheelStatus(champion=champion("demo-initial", 0))
    lineage = remembered(status, [lap("g1", 1, "RolledBack")], [])
    status = status.model_copy(update={"lineage": lineage})
    lineage = remembered(status, [lap("g1", 5, "Promoted")], [])
    assert [(e.generation, e.verdict) for e in lineage] == [("demo-initial", None), ("g1", "RolledBack"), ("g1", "Promoted")]


def test_a_second_reign_of_the_same_model_is_another_entry() -> None:
    status = FlywheelStatus(champion=champion("a", 6), previous=(champion("b", 3), champion("a", 0)))
    assert [(e.generation, e.served_from, e.served_until) for e in remembered(status, [], [])] == [
        ("a", T0, T0 + 3 * HOUR),
        ("b", T0 + 3 * HOUR, T0 + 6 * HOUR),
        ("a", T0 + 6 * HOUR, None),
    ]


def test_a_rollout_without_a_lap_is_remembered_as_soon_as_users_meet_it() -> None:
    status = FlywheelStatus(champion=champion("demo-initial", 0))
    (initial, trial) = remembered(status, [], [rollout("trial", 10, 2)])
    assert initial.generation == "demo-initial"
    assert (trial.generation, trial.rollout, [share.percent for share in trial.shares]) == ("trial", "trial-rollout", [10])
    assert len(remembered(status, [], [rollout("trial", 0, 2)])) == 1


def test_champions_outstay_laps_that_no_user_has_met() -> None:
    served = LineageEntry(generation="old", start_time=T0, served_from=T0, verdict="Promoted")
    met = LineageEntry(generation="met", start_time=T0, verdict="RolledBack", shares=({"since": T0, "percent": 5},))
    rejected = [LineageEntry(generation=f"r{i}", start_time=T0 + (i + 1) * HOUR, verdict="Rejected") for i in range(MAX_ENTRIES)]
    kept = bounded([served, met, *rejected])
    assert len(kept) == MAX_ENTRIES
    assert {"old", "met"} <= {entry.generation for entry in kept}
    assert [entry.generation for entry in kept if entry.verdict == "Rejected"] == [f"r{i}" for i in range(2, MAX_ENTRIES)]


def test_the_flywheel_has_the_memory_in_its_status_in_the_very_pass_that_deletes_a_lap() -> None:
    fly = flywheel(historyLimits={"successful": 1, "failed": 1})
    fly = fly.model_copy(update={"status": fly.status.model_copy(update={"champion": champion("demo-initial", 0)})})
    laps = tuple(lap(f"g{i}", i, "Rejected", completionTime=T0 + i * HOUR) for i in range(3))
    status, actions = plan(fly, T0 + 5 * HOUR, generations=laps)
    assert deleted(actions) == ["g0", "g1"]
    assert {entry.generation for entry in status.lineage} >= {"g0", "g1", "g2"}


def test_a_lap_above_the_limit_stays_until_its_record_is_in_the_store() -> None:
    fly = flywheel(historyLimits={"successful": 1, "failed": 1})
    record = {
        "generation": "g0",
        "flywheel": "demo",
        "revision": 1,
        "verdict": "Rejected",
        "reason": "r",
        "evidenceDigest": "e",
        "decisionTime": T0,
        "recipe": "x",
    }
    laps = tuple(lap(f"g{i}", i, "Rejected", completionTime=T0 + i * HOUR, record=record) for i in range(2))
    assert deleted(plan(fly, T0 + HOUR / 2, generations=laps)[1]) == []
    assert deleted(plan(fly, T0 + HOUR / 2 + RECORD_PATIENCE, generations=laps)[1]) == ["g0"]


LAPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 30), st.sampled_from([None, "Promoted", "RolledBack", "Rejected"])), max_size=8)
WEIGHTS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from([0, 5, 50]), st.integers(0, 30), st.none() | st.integers(0, 40)), max_size=8
)


@given(LAPS, WEIGHTS, st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_looking_again_changes_nothing_and_no_reign_is_ever_forgotten(laps: Any, weights: Any, reigns: list[int]) -> None:
    champions = [champion(f"g{g}", 40 - i) for i, g in enumerate(reigns)]
    status = FlywheelStatus(champion=champions[0], previous=tuple(champions[1:]))
    seen = {f"g{n}": lap(f"g{n}", hours, verdict) for n, hours, verdict in laps}
    asked = {f"g{n}": rollout(f"g{n}", percent, hours, cutover) for n, percent, hours, cutover in weights}
    once = remembered(status, list(seen.values()), list(asked.values()))
    again = remembered(status.model_copy(update={"lineage": once}), list(seen.values()), list(asked.values()))
    assert again == once
    found = {(entry.generation, entry.served_from) for entry in once if entry.served_from}
    assert found == {(c.generation, c.since) for c in champions}
    for entry in once:
        assert [share.since for share in entry.shares] == sorted(share.since for share in entry.shares)
