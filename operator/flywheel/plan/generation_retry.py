"""Another try of a stage: by its own policy after a failure that may pass, or because somebody asked for that one stage."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from flywheel.api.base import parse_duration
from flywheel.api.generation import Generation, GenerationStatus, Stage, StageStatus
from flywheel.api.names import RETRY_STAGE, retry_token
from flywheel.api.reasons import Reason
from flywheel.plan.attempts import EXIT_CONFIG, EXIT_DATA, TRAINER_REASONS
from flywheel.plan.generation_inputs import dependencies

MAX_BACKOFF = dt.timedelta(hours=1)
ENDED_WELL = ("Passed", "Held", "Rejected", "AwaitingApproval")  # it has a result: another one needs another child
# The same inputs would fail in the same way.
PERMANENT = {
    *(TRAINER_REASONS[EXIT_CONFIG] | TRAINER_REASONS[EXIT_DATA]),
    *(Reason.INVALID_SPEC, Reason.VALIDATION_FAILED, Reason.NAME_CONFLICT),
}


def another_try(
    stage: Stage, status: StageStatus, reason: str, message: str, generation: Generation, now: dt.datetime
) -> StageStatus | None:
    """The stage whose child has failed for good, on its way to another try; None if it gets none."""
    policy = stage.retry
    if policy is None or reason in PERMANENT or status.retries >= policy.limit:
        return None
    number = status.retries + 1
    if status.next_retry_time is None:
        wait = min(MAX_BACKOFF, parse_duration(policy.backoff) * int(2 ** min(status.retries, 16)))
        when = now + wait
        told = f"{message[:3900]}; retry {number} of {policy.limit} at {when:%Y-%m-%d %H:%M:%S} UTC"
        return status.model_copy(update={"phase": "Retrying", "message": told, "next_retry_time": when})
    if now < status.next_retry_time or generation.spec.suspend:
        return status.model_copy(update={"phase": "Retrying"})
    lap = generation.status
    return status.model_copy(
        update={
            "phase": "Running",
            "message": f"retry {number} of {policy.limit} begins",
            "retries": number,
            "next_retry_time": None,
            # Of this lap and this try alone: its child has never heeded it before.
            "retry": f"{lap.retry or ''}/{lap.revision or 0}/{stage.name}/{number}"[:400],
        }
    )


def asked_for(generation: Generation) -> str | None:
    """The one stage that a new retry annotation is about; None: all that failed."""
    named = generation.metadata.annotations.get(RETRY_STAGE)
    known = {stage.name for stage in generation.status.stages}
    return named if named in known and retry_token(generation.metadata) != generation.status.retry else None


def remembered(status: GenerationStatus, only: str | None, token: str | None) -> tuple[StageStatus, ...]:
    """What of the stages outlives the start of another lap: that they were asked to run again, which is part of their child's name."""
    kept = []
    for stage in status.stages:
        again = token if stage.name == only and stage.phase in ENDED_WELL else stage.rerun
        if again is not None:
            kept.append(StageStatus(name=stage.name, kind=stage.kind, rerun=again))
    return tuple(kept)


def retried(stages: Iterable[Stage], only: str | None) -> frozenset[str]:
    """The stages that the lap's retry annotation is handed to: all, or one and what depends on it."""
    stages = tuple(stages)
    if only is None:
        return frozenset(stage.name for stage in stages)
    found = {only}
    while more := {s.name for s in stages if s.name not in found and found & set(dependencies(s))}:
        found |= more
    return frozenset(found)
