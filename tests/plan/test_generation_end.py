"""After a lap's end: what its stages are said to be, and when a lap that was made by hand goes by itself."""

from __future__ import annotations

import datetime as dt
from typing import Any

from flywheel.api.base import Metadata, OwnerReference
from flywheel.api.generation import Generation, GenerationSpec, GenerationStatus
from flywheel.api.training_run import TrainingRunStatus
from flywheel.plan.base import Delete
from flywheel.plan.lineage import remembered
from tests.plan.generation_world import T0, World, digest_of
from tests.plan.test_generation import half_failed, sft_stage


def test_the_stages_of_an_ended_lap_that_were_paused_are_said_to_be() -> None:
    world = half_failed()
    status = world.step()
    assert {s.name: s.phase for s in status.stages} == {"bad": "Failed", "good": "Suspended", "reward": "Suspended"}
    assert "a retry of the lap takes it up again" in (status.stages[1].message or "")
    assert (status.current_stage, world.step().stages) == (None, status.stages)
    world.annotate("now")
    assert {s.phase for s in world.run(3, succeed=False).stages} == {"Running"}


def test_a_stage_whose_run_somebody_asked_for_by_itself_is_not_said_to_rest() -> None:
    world = half_failed()
    name = next(name for name in world.runs if world.stage(name) == "good")
    asked = world.runs[name].metadata.model_copy(update={"annotations": {"modelflywheel.dev/retry": "only this one"}})
    world.runs[name] = world.runs[name].model_copy(update={"metadata": asked, "status": TrainingRunStatus(phase="Running")})
    assert {s.name: s.phase for s in world.step().stages}["good"] == "Running"


def test_an_older_record_that_says_running_is_put_right() -> None:
    world = half_failed()
    world.step()
    stages = tuple(s.model_copy(update={"phase": "Running"}) if s.name == "good" else s for s in world.generation.status.stages)
    status = world.generation.status.model_copy(update={"stages": stages})
    world.generation = world.generation.model_copy(update={"status": status})
    assert {s.name: s.phase for s in world.step().stages}["good"] == "Suspended"


def ended(**spec: Any) -> World:
    """A lap that has ended as Completed, at about T0 + 10 s, and is to be kept for a minute."""
    world = World(stages=[sft_stage()], **{"ttlAfterFinished": "60s", "rollout": None, **spec})
    world.run(10)
    assert world.generation.status.decision is not None
    remember(world)
    return world


def remember(world: World) -> None:
    """The Flywheel has a look at the lap; what it made lies in the store."""
    for name, run in world.record_runs.items():
        made = {"uri": f"file:///flywheel/{name}", "digest": digest_of(name), "kind": "dataset"}
        done = TrainingRunStatus.model_validate({"phase": "Succeeded", "artifact": made})
        world.record_runs[name] = run.model_copy(update={"status": done})
    world.step()
    flywheel = world.flywheel
    assert flywheel is not None
    known = remembered(flywheel.status, [world.generation], ())
    world.flywheel = flywheel.model_copy(update={"status": flywheel.status.model_copy(update={"lineage": known})})


def leaves(world: World, seconds: float = 120) -> bool:
    """Whether the lap asks for its own removal so long after the start."""
    world.now = T0 + dt.timedelta(seconds=seconds)
    world.step()
    found = [a for a in world.plans[-1].actions if isinstance(a, Delete)]
    assert all((a.kind, a.name, a.uid) == ("Generation", "g1", "u-g1") for a in found)
    return bool(found)


def test_a_lap_made_by_hand_goes_when_its_time_is_over_and_wakes_up_for_it() -> None:
    world = ended()
    assert not leaves(world, 30)
    completed = world.generation.status.completion_time
    assert completed is not None
    assert world.plans[-1].requeue_at == completed + dt.timedelta(seconds=60)
    assert leaves(world)


def test_a_lap_stays_until_its_flywheel_remembers_it() -> None:
    world = ended()
    flywheel = world.flywheel
    assert flywheel is not None
    forgetful = flywheel.model_copy(update={"status": flywheel.status.model_copy(update={"lineage": ()})})
    world.flywheel = forgetful
    assert not leaves(world, 1e6)
    world.flywheel = flywheel
    assert leaves(world, 1e6)


def test_a_lap_stays_until_its_record_is_in_the_store_but_not_for_ever() -> None:
    world = ended()
    status = world.generation.status.model_copy(update={"record_artifact": None})
    world.generation = world.generation.model_copy(update={"status": status})
    world.record_runs.clear()
    assert not leaves(world, 3600)
    assert leaves(world, 100_000)


def test_without_a_time_to_live_a_lap_stays_for_good() -> None:
    world = ended(ttlAfterFinished=None)
    assert not leaves(world, 1e7)
    assert world.plans[-1].requeue_at is None


def test_a_lap_of_a_flywheel_goes_by_its_history_limits_alone() -> None:
    world = ended()
    owner = OwnerReference(api_version="modelflywheel.dev/v1alpha1", kind="Flywheel", name="demo", uid="u-f", controller=True)
    meta = world.generation.metadata.model_copy(update={"owner_references": (owner,)})
    world.generation = world.generation.model_copy(update={"metadata": meta})
    assert not leaves(world)


def test_a_lap_stays_while_its_rollout_is_watched() -> None:
    world = World(stages=[sft_stage()], ttlAfterFinished="60s")
    world.run()
    world.end_rollout("Watching", "Promote", "SuccessProven")
    world.step()
    assert not leaves(world)
    assert world.plans[-1].requeue_at is not None
    world.end_rollout("Promoted", "Promote", "SuccessProven")
    remember(world)
    assert leaves(world)


def test_a_lap_stays_while_its_model_is_the_champion() -> None:
    world = ended()
    assert world.flywheel is not None
    assert world.flywheel.status.champion is not None
    champion = world.flywheel.status.champion.model_copy(update={"generation": "g1"})
    status = world.flywheel.status.model_copy(update={"champion": champion})
    world.flywheel = world.flywheel.model_copy(update={"status": status})
    assert not leaves(world)


def test_a_lap_that_alone_remembers_whom_users_rejected_stays_until_another_does() -> None:
    world = World(stages=[sft_stage()], ttlAfterFinished="60s")
    world.run()
    world.end_rollout("RolledBack", "Rollback", "GuardrailHarm")
    assert world.step().phase == "RolledBack"
    remember(world)
    world.siblings = [world.generation]
    assert not leaves(world)
    later = Metadata(name="g2", namespace="demo", uid="u-g2", creation_timestamp=T0 + dt.timedelta(seconds=60))
    status = GenerationStatus(revision=1, quarantined=("g1",))
    world.siblings.append(Generation(metadata=later, spec=GenerationSpec(flywheel="demo"), status=status))
    assert leaves(world)


def test_to_change_how_long_a_lap_is_kept_does_not_start_it_again() -> None:
    world = ended(ttlAfterFinished=None)
    decided = world.generation.status.decision
    world.edit(ttlAfterFinished="1s")
    assert leaves(world)
    assert world.generation.status.decision == decided
