"""A promotion by a person's word: it stands in for numbers that are missing, never for what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from flywheel.api.base import get_condition
from flywheel.plan.rollout_observed import ErrorShare
from tests.plan.rollout_world import BETTER, EQUAL, NEW_ARM, NEXT, T0, WORSE, World, evidence, rollout_spec, seconds

WORD = {"digest": NEXT, "by": "alice", "reason": "Prometheus is down"}


def asked(world: World) -> World:
    spec = rollout_spec(**{**world.rollout.spec.dump(), "promote": WORD})
    world.edit(promote=spec.promote)
    return world


def at_work(until: float = 20) -> World:
    """Users meet the candidate, and nobody has measured anything."""
    world = World()
    assert world.run(until) == "Progressing"
    return world


def later(world: World, span: float) -> str:
    return world.run((world.now - T0).total_seconds() + span)


def test_a_persons_word_promotes_now_without_numbers_and_says_whose_it_was() -> None:
    world = asked(at_work())
    later(world, 3)
    decision = world.rollout.status.decision
    assert decision is not None
    assert (decision.verdict, decision.reason, world.rollout.status.phase) == ("Promote", "PromotedByHand", "Watching")
    assert decision.message == "promoted by alice: Prometheus is down (known by then: no user has matured yet)"
    assert world.routes is not None
    assert world.routes.routes.stable.arm == NEW_ARM
    promoted = get_condition(world.rollout.status.conditions, "Promoted")
    assert promoted is not None
    assert "promoted by alice" in promoted.message


def test_what_was_known_by_then_is_kept_with_the_word() -> None:
    world = at_work()
    world.evidence = evidence(EQUAL, BETTER)
    later(world, 4)
    asked(world)
    later(world, 3)
    assert world.rollout.status.decision is not None
    assert "breadth +40.0 %" in world.rollout.status.decision.message


@pytest.mark.parametrize("suspend", [False, True])
def test_a_pause_keeps_no_promotion_by_hand_back(suspend: bool) -> None:
    world = at_work()
    world.edit(suspend=suspend)
    later(world, 3)
    asked(world)
    assert later(world, 3) == "Watching"


def test_a_hard_limit_is_stronger() -> None:
    world = at_work()
    world.errors = ErrorShare(60, 100)
    asked(world)
    world.step()
    assert world.rollout.status.decision is not None
    assert (world.rollout.status.decision.verdict, world.rollout.status.decision.reason) == ("Rollback", "HardLimit")


def test_an_abort_is_stronger_also_after_the_word_while_the_router_has_yet_to_confirm() -> None:
    world = asked(at_work())
    world.acks = False
    later(world, 3)
    assert world.rollout.status.phase == "Promoting"
    world.edit(abort=True)
    world.acks = True
    later(world, 3)
    assert world.rollout.status.decision is not None
    assert world.rollout.status.decision.reason == "Aborted"


def test_proven_harm_is_stronger() -> None:
    world = at_work()
    world.evidence = evidence(EQUAL, WORSE)
    asked(world)
    world.now += seconds(3)
    world.step()
    assert world.rollout.status.decision is not None
    assert (world.rollout.status.decision.verdict, world.rollout.status.decision.reason) == ("Rollback", "GuardrailHarm")


def test_users_are_never_sent_to_an_arm_without_a_ready_pod() -> None:
    world = at_work()
    world.deployments[NEW_ARM] = world.deployment(NEW_ARM, "candidate", ready=False)
    asked(world)
    later(world, 5)
    assert world.rollout.status.decision is None
    progressing = get_condition(world.rollout.status.conditions, "Progressing")
    assert progressing is not None
    assert (progressing.reason, "alice has promoted g1, which has no ready pod yet" in progressing.message) == ("NotReady", True)
    world.deployments[NEW_ARM] = world.deployment(NEW_ARM, "candidate")
    assert later(world, 3) == "Watching"


def test_a_word_that_comes_before_the_candidate_is_ready_waits_for_it() -> None:
    world = World()
    world.ready = False
    world.run(3)
    asked(world)
    assert later(world, 5) == "Preparing"
    world.deployments[NEW_ARM] = world.deployment(NEW_ARM, "candidate")
    assert later(world, 5) == "Watching"


def test_at_the_windows_end_the_word_stands_in_for_what_was_not_proven() -> None:
    world = at_work()
    world.evidence = evidence(EQUAL, EQUAL)
    world.run(165)
    assert world.rollout.status.decision is None
    asked(world)
    world.run(172)
    assert world.rollout.status.decision is not None
    assert (world.rollout.status.decision.verdict, world.rollout.status.decision.reason) == ("Promote", "PromotedByHand")


def test_a_crash_after_the_decision_repeats_the_act_and_not_the_word() -> None:
    world = asked(at_work())
    world.step(crash_after_status=True)
    first = world.rollout.status.decision
    later(world, 3)
    assert (world.rollout.status.decision, world.rollout.status.phase) == (first, "Watching")


def test_the_word_on_another_candidate_is_none_on_this_one() -> None:
    world = at_work()
    stale: dict[str, Any] = {**WORD, "digest": "sha256:" + "c" * 64}
    world.edit(promote=asked(World()).rollout.spec.promote.model_copy(update=stale))  # type: ignore[union-attr]
    later(world, 5)
    assert world.rollout.status.decision is None
