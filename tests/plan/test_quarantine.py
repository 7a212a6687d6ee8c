"""What a model that users rejected said to them teaches no later lap, unless somebody asks for it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from flywheel.api.base import Metadata
from flywheel.api.generation import MAX_QUARANTINED, Generation, GenerationSpec, GenerationStatus
from flywheel.api.rollout import Rollout, RolloutStatus
from flywheel.plan.quarantine import rejected
from tests.plan.generation_world import T0, World
from tests.plan.rollout_world import rollout_spec

CONVERSATIONS = {"name": "conversations", "from": {"type": "Conversations"}}
CORPUS = {"name": "corpus", "from": {"type": "Uri", "uri": "file:///flywheel/d", "digest": "sha256:" + "d" * 64}}


def lap(name: str, verdict: str | None = None, *, minute: int = 0, carried: tuple[str, ...] = ()) -> Generation:
    """A lap that began when it was made, and ended a minute later if it has a verdict."""
    began = T0 + dt.timedelta(minutes=minute)
    status: dict[str, Any] = {"startTime": began, "quarantined": carried, "revision": 1}
    if verdict:
        ended = began + dt.timedelta(minutes=1)
        status |= {"phase": verdict, "decision": {"verdict": verdict, "reason": verdict, "message": "", "time": ended, "revision": 1}}
    meta = Metadata(name=name, namespace="demo", uid=f"u-{name}", creation_timestamp=began)
    return Generation(metadata=meta, spec=GenerationSpec(flywheel="demo"), status=GenerationStatus.model_validate(status))


def rollout(candidate: str, phase: str, verdict: str, *, minute: int = 0) -> Rollout:
    spec = rollout_spec()
    spec = spec.model_copy(update={"candidate": spec.candidate.model_copy(update={"generation": candidate})})
    when = T0 + dt.timedelta(minutes=minute)
    decision = {"verdict": verdict, "reason": "X", "message": "", "time": when, "revision": 1}
    status = RolloutStatus.model_validate({"phase": phase, "decision": decision, "cutoverTime": when})
    return Rollout(metadata=Metadata(name=f"r-{candidate}-{minute}", namespace="demo"), spec=spec, status=status)


def curated(world: World) -> list[Any]:
    """What the Curate runs were told to leave out."""
    return [run.spec.parameters.get("excludeGenerations") for run in world.runs.values() if run.spec.method == "Curate"]


def test_the_next_lap_curates_without_the_replies_of_generations_that_users_rejected() -> None:
    world = World()
    world.siblings = [lap("g9", "RolledBack"), lap("g2", "RolledBack"), lap("g3", "Inconclusive"), lap("g4", "Rejected")]
    status = world.run(3)
    assert status.quarantined == ("g2", "g9")
    assert curated(world) == [["g2", "g9"]]


def test_a_candidate_that_a_rollout_without_a_lap_took_back_counts_too() -> None:
    world = World()
    world.rollouts = [rollout("handmade", "RolledBack", "Rollback"), rollout("never-met", "Failed", "Rollback")]
    assert world.run(3).quarantined == ("handmade",)


def test_a_rollback_while_a_lap_runs_changes_nothing_of_it() -> None:
    world = World()
    world.run(3, succeed=False)
    before = set(world.runs)
    world.siblings = [lap("g0", "RolledBack")]
    status = world.run(3, succeed=False)
    assert set(world.runs) == before
    assert not world.deleted
    assert status.quarantined == ()


def test_a_lap_that_an_older_operator_began_goes_on_as_it_was_through_an_upgrade() -> None:
    world, plain = World(), World()
    world.siblings = [lap("g0", "RolledBack")]
    world.step()
    old = world.generation.status.dump()
    del old["quarantined"]
    world.generation = world.generation.model_copy(update={"status": GenerationStatus.model_validate(old)})
    world.run()
    plain.run()
    assert set(world.runs) == set(plain.runs)
    assert curated(world) == [None]


def test_a_crash_after_the_list_was_written_repeats_the_same_lap() -> None:
    world = World()
    world.siblings = [lap("g0", "RolledBack")]
    world.step(crash_after_status=True)
    world.siblings = [lap("g0", "RolledBack"), lap("g00", "RolledBack")]
    assert world.run(3).quarantined == ("g0",)
    assert curated(world) == [["g0"]]


@pytest.mark.parametrize("again", ["retry", "edit"])
def test_a_lap_that_starts_again_keeps_its_list_as_it_keeps_what_had_passed(again: str) -> None:
    curate = {"name": "curate", "run": {"method": "Curate"}}
    sft = {"name": "sft", "run": {"method": "SFT", "model": {"type": "Base"}, "datasets": [{**CORPUS, "name": "train"}]}}
    world = World(stages=[curate, sft])
    world.siblings = [lap("g0", "RolledBack")]
    world.run()
    world.end_rollout("RolledBack", "Rollback", "GuardrailHarm")
    assert world.step().phase == "RolledBack"
    before = set(world.runs)
    assert world.rollout is not None
    world.siblings, world.rollouts = [lap("g0", "RolledBack"), lap("g00", "RolledBack"), world.generation], [world.rollout]
    if again == "retry":
        world.annotate("1")
    else:
        world.edit(rollout={"watch": {"duration": "1m"}})
    status = world.run()
    assert status.phase == "RollingOut"
    assert status.quarantined == ("g0",)
    assert set(world.runs) == before


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"excludeGenerations": ["mine"]}, ["mine", "g2", "g9"]),
        ({"excludeGenerations": ["g9"]}, ["g9", "g2"]),
        ({"includeGenerations": ["g2", "g5"]}, ["g9"]),
        ({"includeGenerations": ["g2", "g9"]}, None),
        ({"includeGenerations": ["g2"], "excludeGenerations": ["g2"]}, ["g2", "g9"]),
        ({"excludeGenerations": "g1"}, "g1"),  # the trainer refuses it, and says how to write it
        ({"includeGenerations": 7}, None),
    ],
)
def test_what_the_user_wrote_stays_and_what_he_asks_for_is_his(parameters: dict[str, Any], expected: Any) -> None:
    world = World(stages=[{"name": "curate", "run": {"method": "Curate", "parameters": parameters}}])
    world.siblings = [lap("g2", "RolledBack"), lap("g9", "RolledBack")]
    world.run(3)
    assert curated(world) == [expected]


def test_only_what_reads_the_conversations_is_told() -> None:
    curate = {"method": "Curate", "datasets": [CONVERSATIONS]}
    stages = [
        {"name": "talks", "run": curate},
        {"name": "corpus", "run": {"method": "Curate", "datasets": [CORPUS]}},
        {"name": "sft", "run": {"method": "SFT", "model": {"type": "Base"}, "datasets": [CONVERSATIONS]}},
    ]
    world = World(stages=stages)
    world.siblings = [lap("g0", "RolledBack")]
    world.run(3)
    told = {world.stage(name): run.spec.parameters for name, run in world.runs.items()}
    assert told == {"talks": {"excludeGenerations": ["g0"]}, "corpus": {}, "sft": {}}


def test_sources_of_the_lap_that_are_no_conversations_are_left_alone() -> None:
    world = World(sources=[CORPUS], stages=[{"name": "curate", "run": {"method": "Curate"}}])
    world.siblings = [lap("g0", "RolledBack")]
    world.run(3)
    assert curated(world) == [None]


def test_a_generation_that_was_deleted_stays_in_the_list_that_the_latest_lap_hands_on() -> None:
    laps = [lap("g1", "Promoted", minute=1, carried=("older",)), lap("g3", "Rejected", minute=9, carried=("g2", "older"))]
    assert rejected([*laps, lap("g4", "RolledBack", minute=5)], [], None) == ("g2", "g4", "older")


def test_an_old_lap_that_is_tried_again_does_not_hand_on_its_old_list() -> None:
    old = lap("g1", minute=1)
    retried = old.model_copy(update={"status": old.status.model_copy(update={"start_time": T0 + dt.timedelta(days=1)})})
    assert rejected([retried, lap("g3", "Rejected", minute=9, carried=("g2",))], [], None) == ("g2",)


def test_who_was_rejected_and_then_won_is_free_again() -> None:
    again = [rollout("g1", "Watching", "Promote", minute=10)]
    assert rejected([lap("g1", "RolledBack", minute=5)], again, None) == ()
    assert rejected([lap("g2", "Rejected", minute=7, carried=("g1",)), lap("g1", "Promoted", minute=8)], [], None) == ()


def test_who_won_and_was_then_rejected_stays_out_even_when_only_the_list_remembers_it() -> None:
    laps = [lap("g1", "Promoted", minute=1)]
    assert rejected(laps, [rollout("g1", "RolledBack", "Rollback", minute=10)], None) == ("g1",)
    assert rejected([*laps, lap("g2", "Rejected", minute=20, carried=("g1",))], [], None) == ("g1",)


def test_the_champion_is_never_quarantined_for_its_replies_are_nearly_all_there_is() -> None:
    assert rejected([lap("g1", "RolledBack")], [rollout("g1", "RolledBack", "Rollback")], "g1") == ()


def test_the_list_is_bounded_and_the_newest_stay() -> None:
    laps = [lap(f"g{n}", "RolledBack", minute=n) for n in range(8, 8 + MAX_QUARANTINED)]
    carrier = lap("c", minute=1000, carried=tuple(sorted(f"g{n}" for n in range(8))))
    assert rejected([*laps, carrier], [], None) == tuple(sorted(g.metadata.name for g in laps))
    # Of those that only the list remembers, the times are gone: what a Flywheel numbers is ordered by its number.
    kept = rejected([*laps[4:], carrier], [], None)
    assert len(kept) == MAX_QUARANTINED
    assert {"g4", "g5", "g6", "g7"} <= set(kept)
    assert not {"g0", "g1", "g2", "g3"} & set(kept)
