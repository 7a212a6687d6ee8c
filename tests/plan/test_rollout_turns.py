"""One question at a time for a service, even if two Rollouts began before either could know of the other."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flywheel.api.base import Metadata
from flywheel.api.rollout import Rollout, RolloutStatus
from flywheel.plan.base import Apply, Create, Plan
from flywheel.plan.rollout_observed import holds_service, queued_behind
from tests.plan.rollout_world import T0, World, rollout_spec, seconds


def a_rollout(name: str, *, made: int = 0, began: float | None = None, **status: Any) -> Rollout:
    meta = Metadata(name=name, namespace="demo", uid=f"u-{name}", creation_timestamp=T0 + seconds(made))
    given_ = {"phase": "Preparing", "experiment": f"demo.{name}.x", "prepareStartTime": T0 + seconds(began)} if began is not None else {}
    return Rollout(metadata=meta, spec=rollout_spec(), status=RolloutStatus.model_validate({**given_, **status}))


def behind(rollouts: list[Rollout]) -> dict[str, str | None]:
    return {r.metadata.name: queued_behind(r, rollouts) for r in rollouts}


def test_of_two_that_hold_a_service_the_one_that_began_first_goes_on_whichever_is_older() -> None:
    older, first = a_rollout("older", made=0, began=5.2), a_rollout("first", made=1, began=5.1)
    assert behind([older, first]) == {"older": "first", "first": None}


def test_what_is_decided_is_carried_out_before_what_is_not() -> None:
    decision = {"verdict": "Promote", "reason": "SuccessProven", "message": "", "time": T0, "revision": 1}
    first, decided = a_rollout("first", began=1), a_rollout("decided", began=2, phase="Promoting", decision=decision)
    assert behind([first, decided]) == {"first": "decided", "decided": None}


PHASES = st.sampled_from(["Pending", "Preparing", "Progressing", "Paused", "Watching", "Promoted", "RolledBack", "Failed"])


@given(st.lists(st.tuples(PHASES, st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=5))
def test_exactly_one_of_all_that_hold_a_service_has_nobody_before_it(drawn: list[tuple[str, int, int]]) -> None:
    rollouts = []
    for number, (phase, made, began) in enumerate(drawn):
        cutover = T0 if phase in ("Watching", "Promoted", "RolledBack", "Failed") else None
        status = {"phase": phase, "cutoverTime": cutover}
        rollouts.append(a_rollout(f"r{number}", made=made, began=None if phase == "Pending" else began, **status))
    holders = [r for r in rollouts if holds_service(r)]
    if holders:
        names = behind(rollouts)
        assert len([r for r in holders if names[r.metadata.name] is None]) == 1
        assert all(names[r.metadata.name] for r in rollouts if r.status.phase == "Pending")


class Two:
    """Two Rollouts of one Flywheel whose first passes knew nothing of each other."""

    def __init__(self, later: float = 0.01) -> None:
        self.worlds = []
        for number, delay in enumerate((0.0, later), start=1):
            world = World(rollout_spec(candidate={"generation": f"g{number}", "uri": "file:///x", "digest": f"sha256:{number:064x}"}))
            meta = world.rollout.metadata.model_copy(update={"name": f"r{number}", "uid": f"uid-{number}"})
            world.rollout, world.now = world.rollout.model_copy(update={"metadata": meta}), T0 + seconds(delay)
            self.worlds.append(world)

    def together(self) -> tuple[Plan, Plan]:
        """A pass of each, in which it sees what the other's last pass left."""
        seen = [world.rollout for world in self.worlds]
        plans = []
        for world in self.worlds:
            world.queued_behind = queued_behind(world.rollout, seen)
            plans.append(world.step())
            world.now += seconds(1)
        return plans[0], plans[1]

    def phases(self) -> tuple[str, ...]:
        return tuple(world.rollout.status.phase for world in self.worlds)


def test_a_rollout_that_began_at_the_same_time_goes_back_into_the_queue_and_says_so() -> None:
    two = Two()
    for world in two.worlds:
        world.step()
    assert two.phases() == ("Preparing", "Preparing")
    question = two.worlds[1].rollout.status.experiment
    two.together()
    assert two.phases()[1] == "Pending"
    later = two.worlds[1].rollout
    assert not holds_service(later)
    assert [entry.event for entry in later.status.history][-1] == "Queued"
    assert next(c.reason for c in later.status.conditions if c.type == "Progressing") == "Queued"
    assert later.status.experiment == question  # no user has met it
    for _ in range(3):
        two.together()
    assert two.phases() == ("Progressing", "Pending")


def test_users_that_met_the_one_that_gives_way_are_assigned_anew_and_its_routes_are_written_no_more() -> None:
    two = Two()
    for world in two.worlds:
        for _ in range(4):
            world.step()
            world.now += seconds(1)
    assert two.phases() == ("Progressing", "Progressing")
    before = two.worlds[1].rollout.status
    assert before.weights.intended == 50
    _, given_up = two.together()
    after = two.worlds[1].rollout.status
    assert (after.phase, after.weights.intended, after.window_start_time) == ("Pending", 0, None)
    assert (after.experiment, after.salt) != (before.experiment, before.salt)
    assert str(after.experiment).startswith(f"{before.experiment}.")
    assert [a for a in given_up.actions if isinstance(a, Apply | Create) and a.manifest["kind"] == "ConfigMap"] == []


def test_a_rollout_whose_flywheel_is_gone_makes_and_writes_nothing_and_starts_anew_with_the_next() -> None:
    world = World()
    for _ in range(4):
        world.step()
        world.now += seconds(1)
    asked = world.rollout.status
    assert asked.weights.intended == 50
    whole, world.flywheel, world.writes = world.flywheel, None, []  # type: ignore[assignment]
    for _ in range(3):
        world.step()
    left = world.rollout.status
    assert (left.phase, left.weights.intended, world.writes) == ("Pending", 0, [])
    assert next(c.reason for c in left.conditions if c.type == "Progressing") == "ReferenceNotFound"
    world.flywheel = whole
    for _ in range(4):
        world.step()
    assert world.rollout.status.phase == "Progressing"
    assert world.rollout.status.salt != asked.salt


def test_what_was_decided_waits_for_another_flywheel_and_is_carried_out_then() -> None:
    world = World()
    for _ in range(4):
        world.step()
        world.now += seconds(1)
    world.edit(abort=True)
    world.acks = False
    world.step()
    assert world.rollout.status.phase == "RollingBack"
    whole, world.flywheel, world.writes = world.flywheel, None, []  # type: ignore[assignment]
    world.step()
    assert (world.rollout.status.phase, world.writes) == ("RollingBack", [])
    world.flywheel, world.acks = whole, True
    world.step()
    assert world.rollout.status.phase == "RolledBack"


def test_a_rollout_that_waits_starts_anew_when_the_other_has_ended() -> None:
    two = Two()
    for world in two.worlds:
        world.step()
    two.together()
    waiting = two.worlds[1]
    waiting.queued_behind = None
    for _ in range(4):
        waiting.step()
        waiting.now += dt.timedelta(seconds=1)
    assert waiting.rollout.status.phase == "Progressing"
