"""What a Rollout's status says to people: conditions with numbers, and one line for `kubectl get`."""

from __future__ import annotations

import datetime as dt

from flywheel.api.base import Condition, set_condition
from flywheel.api.reasons import Reason
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES, Estimate, Rollout, RolloutStatus
from flywheel.plan.base import duration_text

Why = tuple[Reason, str]
OUTCOMES = {
    "Promoted": (True, Reason.PROMOTED),
    "Watching": (True, Reason.PROMOTED),
    "RolledBack": (False, Reason.ROLLED_BACK),
    "Inconclusive": (False, Reason.INCONCLUSIVE),
    "Failed": (False, Reason.CANDIDATE_FAILED),
}


def conditions(
    status: RolloutStatus, rollout: Rollout, waiting: Why | None, unmeasured: Why | None, now: dt.datetime
) -> tuple[Condition, ...]:
    """`Progressing`, `MetricsAvailable`, `Promoted`: what goes on, whether it can be judged, and how it ended."""
    generation = rollout.metadata.generation
    terminal = status.phase in TERMINAL_ROLLOUT_PHASES
    result = status.conditions
    reason, message = waiting or (_reason(status), _doing(status, rollout))
    result = set_condition(result, "Progressing", not terminal, reason, message, generation=generation, now=now)
    if status.last_analysis_time is not None:
        reason, message = unmeasured or (Reason.READY, "; ".join(estimate_text(e) for e in status.metrics) or "no user has matured yet")
        result = set_condition(result, "MetricsAvailable", unmeasured is None, reason, message, generation=generation, now=now)
    if status.decision is None:
        return set_condition(result, "Promoted", None, Reason.WAITING, "no decision yet", generation=generation, now=now)
    word, outcome = OUTCOMES.get(status.phase, (None, Reason.RUNNING))
    message = f"{status.decision.verdict} because {status.decision.reason}: {status.decision.message}"
    return set_condition(result, "Promoted", word, outcome, message, generation=generation, now=now)


def _reason(status: RolloutStatus) -> Reason:
    if status.phase in OUTCOMES and status.phase != "Watching":
        return OUTCOMES[status.phase][1]
    return {"Paused": Reason.SUSPENDED, "Progressing": Reason.ENROLLING, "Watching": Reason.WATCHING}.get(status.phase, Reason.RUNNING)


def _doing(status: RolloutStatus, rollout: Rollout) -> str:
    if status.phase in ("Progressing", "Paused"):
        weight, ends = status.weights.intended, status.window_end_time
        until = f"; the verdict is due at {ends:%Y-%m-%d %H:%M:%S} UTC" if ends else ""
        return f"{weight} % of users meet {rollout.spec.candidate.generation}, {weight} % are its control{until}"
    return f"{status.phase}: {rollout.spec.candidate.generation} against {rollout.spec.baseline.generation}"


def estimate_text(estimate: Estimate) -> str:
    """A metric in a few words: `breadth +12.3 % [+3.1, +21.5]`."""
    if estimate.lift is not None and estimate.lift_lower is not None and estimate.lift_upper is not None:
        return f"{estimate.name} {100 * estimate.lift:+.1f} % [{100 * estimate.lift_lower:+.1f}, {100 * estimate.lift_upper:+.1f}]"
    if estimate.difference is not None:
        return f"{estimate.name} {estimate.difference:+.3g}"
    return f"{estimate.name} {estimate.state}"


def summary(status: RolloutStatus, now: dt.datetime) -> str:
    """One line for a table."""
    if status.decision is not None:
        return f"{status.decision.verdict}: {status.decision.reason}: {status.decision.message}"[:120]
    parts = [f"{status.weights.intended} %"] if status.weights.intended else []
    parts += [estimate_text(e) for e in status.metrics if e.role == "Success"]
    if status.window_end_time is not None and now < status.window_end_time:
        parts.append(f"verdict in {duration_text(status.window_end_time - now)}")
    return (" · ".join(parts) or status.phase)[:120]
