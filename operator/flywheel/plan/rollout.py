"""Rollout: prepare the candidate, ramp, look, decide once, carry the decision out.

Traffic is only ever what the persisted status says: a decision is written before the routes are, and the routes are
derived from it in every later pass until all router replicas have confirmed them.
"""

from __future__ import annotations

import datetime as dt

from flywheel.api.reasons import Reason
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES
from flywheel.plan.base import Plan
from flywheel.plan.rollout_alone import leave_in_order, stand_alone
from flywheel.plan.rollout_arms import arm_statuses
from flywheel.plan.rollout_conditions import conditions, summary
from flywheel.plan.rollout_decide import decide
from flywheel.plan.rollout_draft import TICK, Draft
from flywheel.plan.rollout_observed import RolloutObserved, promotion_pending
from flywheel.plan.rollout_outcome import carry_out
from flywheel.plan.rollout_progress import progress
from flywheel.plan.rollout_restart import asked_again, forsaken, give_way, gives_way, leftover, restart
from flywheel.plan.rollout_start import may_start, prepare


def plan_rollout(observed: RolloutObserved, now: dt.datetime) -> Plan:
    """The next status of a Rollout, what follows from it, and when to look again."""
    rollout = observed.rollout
    draft = Draft(observed, now, rollout.status)
    if asked_again(rollout) and not leftover(draft):
        restart(draft)
    elif gives_way(draft):
        give_way(draft)
    if draft.status.phase not in (*TERMINAL_ROLLOUT_PHASES, "Pending") and forsaken(draft):
        draft.waiting = (Reason.REFERENCE_NOT_FOUND, f"Flywheel {rollout.spec.flywheel} is gone: what was decided waits for another")
    elif draft.status.phase not in TERMINAL_ROLLOUT_PHASES:
        _advance(draft)
    if draft.status.phase in TERMINAL_ROLLOUT_PHASES and not rollout.spec.flywheel:
        leave_in_order(draft)
    draft.set(arms=arm_statuses(draft), observed_generation=rollout.metadata.generation)
    draft.set(conditions=conditions(draft.status, rollout, draft.waiting, draft.unmeasured, now))
    draft.set(summary=summary(draft.status, now))
    terminal = draft.status.phase in TERMINAL_ROLLOUT_PHASES
    return Plan(draft.status.dump(), tuple(draft.actions), draft.wake if terminal else draft.wake or now + TICK)


def _advance(draft: Draft) -> None:
    if draft.status.phase == "Pending" and not may_start(draft):
        return
    if not draft.observed.rollout.spec.flywheel:
        stand_alone(draft)
    if draft.status.decision is None or promotion_pending(draft.status):
        decide(draft)
    if draft.status.decision is not None:
        carry_out(draft, draft.status.decision)
    elif draft.status.phase == "Preparing":
        prepare(draft)
    if draft.status.decision is None and draft.status.phase in ("Progressing", "Paused"):
        progress(draft)
