"""The ramp: step by step more users meet the candidate, each step counted from when the router has confirmed it.

A suspended Rollout keeps the share it has; its users go on being counted.
"""

from __future__ import annotations

from flywheel.api.base import parse_duration
from flywheel.api.reasons import Reason
from flywheel.api.rollout import Step
from flywheel.plan import arms
from flywheel.plan.rollout_arms import arm_in_role, baseline_arm, candidate_arm
from flywheel.plan.rollout_draft import TICK, Draft
from flywheel.plan.rollout_routes import route, shared_routes
from flywheel.specs.pods import InvalidPodTemplate


def progress(draft: Draft) -> None:
    """Give the candidate the share of its step, and look again when a step, an interval or the window ends."""
    spec, now = draft.observed.rollout.spec, draft.now
    draft.set(phase="Paused" if spec.suspend else "Progressing")
    try:
        draft.actions += arm_in_role(draft, spec.candidate, arms.CANDIDATE)  # made again if somebody has removed it
    except InvalidPodTemplate as error:
        draft.waiting = (Reason.INVALID_SPEC, f"the candidate's arm is gone and can't be made again: spec.serving.{error}")
    unready = _unready(draft)
    draft.waiting = draft.waiting or unready
    step = _step(draft, ramps=not spec.suspend and unready is None)
    weight = draft.status.weights.intended if spec.suspend else step.weight_percent
    if unready is not None:
        weight = min(weight, draft.status.weights.intended)  # never more traffic to an arm that can't answer
    if weight == 0:
        return  # suspended, or an arm fell silent, before the first user was sent
    acked = route(draft, shared_routes(draft, weight), weight)
    if acked and draft.status.step_start_time is None:
        _begin_step(draft)
    last = draft.status.last_analysis_time or now
    draft.wake_at(now + TICK, last + parse_duration(spec.analysis.interval), draft.status.window_end_time)
    if draft.status.window_end_time and now > draft.status.window_end_time:
        draft.wake = now + min(TICK, parse_duration(spec.analysis.interval))


def _unready(draft: Draft) -> tuple[Reason, str] | None:
    """What keeps the share from growing: an arm that can't answer, or a control that there is nothing to learn from."""
    deployments, candidate, baseline = draft.observed.deployments, candidate_arm(draft).arm, baseline_arm(draft).arm
    if not arms.ready_replicas(deployments, candidate):
        return Reason.NOT_READY, f"the candidate {candidate} has no ready pod; the router answers its users from stable meanwhile"
    if not arms.ready_replicas(deployments, baseline):
        return Reason.NOT_READY, f"the baseline {baseline} has no ready pod: the candidate's share does not grow meanwhile"
    return None


def _step(draft: Draft, *, ramps: bool) -> Step:
    """The step of the ramp that is due now."""
    spec, now = draft.observed.rollout.spec, draft.now
    steps = spec.traffic.steps
    index = min(draft.status.step or 0, len(steps) - 1)
    step, started = steps[index], draft.status.step_start_time
    if started and step.duration and index + 1 < len(steps) and ramps:
        ends = started + parse_duration(step.duration)
        if now >= ends:
            index, step, started = index + 1, steps[index + 1], None
            draft.tell("Ramping", f"step {index + 1} gives the candidate {step.weight_percent} % of users")
        else:
            draft.wake_at(ends)
    draft.set(step=index, step_start_time=started)
    return step


def _begin_step(draft: Draft) -> None:
    """A step counts from the router's word on it; the first one opens the window."""
    analysis, now = draft.observed.rollout.spec.analysis, draft.now
    draft.set(step_start_time=now)
    if draft.status.window_start_time is None:
        window = parse_duration(analysis.window) + parse_duration(analysis.horizon)
        draft.set(window_start_time=now, window_end_time=now + window)
        draft.tell("Enrolling", f"users are enrolled for {analysis.window} and watched for {analysis.horizon} each")
