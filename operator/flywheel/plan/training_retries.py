"""What the end of an attempt means for its run: another attempt and when, or none and what to mend."""

from __future__ import annotations

import datetime as dt

from flywheel.api.base import parse_duration
from flywheel.api.names import RETRY, retry_token
from flywheel.api.reasons import Reason
from flywheel.api.training_run import Attempt, TrainingRun
from flywheel.plan.base import stable_hash
from flywheel.specs.trainer_job import DEFAULT_RESOURCES

MAX_BACKOFF = dt.timedelta(minutes=10)
HOW_TO_RETRY = f"then change the spec, or set the annotation {RETRY} to a new value"


def final(run: TrainingRun, attempts: tuple[Attempt, ...], last: Attempt) -> tuple[Reason, str] | None:
    """Why there is no further attempt; None if there is one."""
    reason = Reason(last.reason) if last.reason in set(Reason) else Reason.TRAINER_FAILED
    if not last.retryable:
        return reason, f"attempt {last.number} failed: {last.message}. Mend it, {HOW_TO_RETRY}"
    series = [attempt for attempt in _series(attempts) if attempt.counted]
    if reason is Reason.OUT_OF_MEMORY and (run.spec.retry.limit == 0 or sum(a.reason == reason for a in series) > 1):
        mend = f"raise spec.resources.limits.memory (now {_memory_limit(run)}), or lower the batch size in spec.parameters"
        return reason, f"{last.message}, after {len(series)} attempts of the same size: {mend}"
    if len(series) > run.spec.retry.limit:
        limit = f"failed {len(series)} times, spec.retry.limit is {run.spec.retry.limit}"
        return Reason.RETRIES_EXHAUSTED, f"{limit}; the last time: {last.reason}: {last.message}. Mend it, {HOW_TO_RETRY}"
    return None


def _series(attempts: tuple[Attempt, ...]) -> list[Attempt]:
    """The newest attempts of one spec and one retry annotation: a mended run gets a fresh budget of retries."""
    last, series = attempts[-1], []
    for attempt in reversed(attempts):
        if (attempt.spec_hash, attempt.retry_token) != (last.spec_hash, last.retry_token):
            break
        series.append(attempt)
    return series


def backoff(run: TrainingRun, attempts: tuple[Attempt, ...]) -> dt.timedelta:
    """How long the next attempt waits: doubled with each that failed, at most ten minutes."""
    doublings = min(len(_series(attempts)) - 1, 16)
    return min(MAX_BACKOFF, parse_duration(run.spec.retry.backoff) * int(2**doublings))


def _memory_limit(run: TrainingRun) -> str:
    given = run.spec.resources
    if given is None or not (given.limits or given.requests):
        return f"the default of {DEFAULT_RESOURCES['limits']['memory']}"
    return str(given.limits.get("memory", "none: the node's memory"))


def spec_hash(run: TrainingRun) -> str:
    """Identifies what an attempt is made from. Pausing changes nothing about it, nor does a field that a newer operator adds."""
    return stable_hash(run.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"suspend"}), length=16)


def spec_changed(run: TrainingRun, attempt: Attempt) -> bool:
    """Whether the spec is another than the attempt was made from."""
    return run.metadata.generation > attempt.revision and spec_hash(run) != attempt.spec_hash


def fresh(run: TrainingRun, last: Attempt) -> bool:
    """Whether somebody has mended the run or asked for another try since its newest attempt."""
    return retry_token(run.metadata) not in (None, last.retry_token) or spec_changed(run, last)
