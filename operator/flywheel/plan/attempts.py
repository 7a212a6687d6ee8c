"""How an attempt ended, read from its Job and pods: the exit codes and termination messages of ARCHITECTURE.md, section 2."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from flywheel.api.common import Artifact
from flywheel.api.reasons import Reason
from flywheel.api.training_run import Progress
from flywheel.plan.kube import JobState, PodState

EXIT_CONFIG, EXIT_DATA, EXIT_RETRY, EXIT_KILLED, EXIT_TERMINATED = 64, 65, 75, 137, 143
TRAINER_REASONS: Mapping[int, frozenset[Reason]] = {
    EXIT_CONFIG: frozenset({Reason.INVALID_CONFIG, Reason.INVALID_PARAMETER}),
    EXIT_DATA: frozenset(
        {
            Reason.DATASET_MISSING,
            Reason.DATASET_EMPTY,
            Reason.DATASET_INVALID,
            Reason.DIGEST_MISMATCH,
            Reason.MODEL_MISSING,
            Reason.MODEL_INVALID,
        }
    ),
    EXIT_RETRY: frozenset({Reason.INTERRUPTED, Reason.PEER_LOST, Reason.STORAGE_UNAVAILABLE}),
}
LOST_NODE_REASONS = {"Evicted", "NodeLost", "NodeShutdown", "Preempting", "Terminated"}
SETTLE = dt.timedelta(seconds=10)  # how long a finished Job's pod may lag behind it in the watch caches
MAX_METRICS = 256
MAX_MESSAGE = 1024


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. Without an artifact it failed."""

    reason: Reason
    message: str
    retryable: bool = False
    counted: bool = False
    exit_code: int | None = None
    artifact: Artifact | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    started: dt.datetime | None = None
    finished: dt.datetime | None = None
    weak: bool = False  # a consequence or a guess: what was seen before explains it better


def outcome(job: JobState, now: dt.datetime) -> Outcome | None:
    """How the attempt ended; None while it has not, or while its pods' last word may still come."""
    done = next((pod for pod in job.pods if pod.exit_code == 0 and pod.index == 0), None)
    if done is not None:
        return _result(done)
    settled = job.finished is None or now - job.finished >= SETTLE
    if job.succeeded:
        return _lost(job, "has completed") if settled else None
    if not job.failed:
        return None
    if job.failure_reason == "DeadlineExceeded":
        return Outcome(
            Reason.DEADLINE_EXCEEDED, f"{job.backend} {job.name} ran longer than spec.deadline allows; raise it, or ask for fewer steps"
        )
    ended = culprit(job)
    if job.nodes > 1 and not settled and (ended is None or _rank_of_guilt(ended) >= VICTIM):
        return None
    if job.nodes > 1 and "DisruptionTarget" in job.failure_message and (ended is None or _rank_of_guilt(ended) >= VICTIM):
        # The pod that the cluster took away is gone; its Job has kept the reason, and what the others said is a consequence.
        message = f"the cluster took a pod of {job.backend} {job.name} away: {job.failure_message}"
        return Outcome(Reason.INTERRUPTED, message[:MAX_MESSAGE], retryable=True)
    if ended is None:
        return _lost(job, f"has failed ({job.failure_reason or 'no reason given'})") if settled else None
    return _failure(ended, job)


def _lost(job: JobState, how: str) -> Outcome:
    pods = "its pod was gone before its last word was" if job.nodes == 1 else "its pods were gone before their last words were"
    message = f"{job.backend} {job.name} {how}, but {pods} read; it is tried again from its last checkpoint"
    return Outcome(Reason.TRAINER_FAILED, message, retryable=True, counted=True, weak=True)


def first_sign(job: JobState) -> Outcome | None:
    """What already explains the end that a group of pods is coming to: once its Job has failed, its pods may be gone."""
    if job.nodes == 1 or job.suspended or job.failed or job.succeeded:
        return None
    seen = culprit(job)
    if seen is not None:
        return _failure(seen, job) if _rank_of_guilt(seen) < VICTIM else None
    taken = next((pod for pod in job.pods if pod.deleting and pod.exit_code is None), None)
    if taken is None:
        return None
    return Outcome(Reason.INTERRUPTED, f"node {taken.index} of {job.nodes}: pod {taken.name} was deleted", retryable=True)


# ------------------------------------------------------------------------------------------------------------- failures

VICTIM = 4  # from this rank of guilt on, another pod's failure is the better explanation


def culprit(job: JobState) -> PodState | None:
    """The pod whose end explains that of the attempt. One that fails takes all others along, and they say so in many ways."""
    ended = [pod for pod in job.pods if pod.exit_code is not None or pod.pod_reason in LOST_NODE_REASONS]
    if job.nodes == 1:
        return ended[0] if ended else None
    failed = [pod for pod in job.pods if pod.exit_code or pod.disrupted or pod.pod_reason in LOST_NODE_REASONS]
    no_time = dt.datetime.max.replace(tzinfo=dt.UTC)
    return min(failed, key=lambda pod: (_rank_of_guilt(pod), pod.finished or no_time, pod.index), default=None)


def _rank_of_guilt(pod: PodState) -> int:
    said, _ = _trainer_error(pod.termination_message)
    if pod.exit_code in (EXIT_CONFIG, EXIT_DATA):
        return 0
    if pod.disrupted or pod.pod_reason in LOST_NODE_REASONS:
        return 1
    if pod.terminated_reason == "OOMKilled":
        return 2
    if said == Reason.PEER_LOST:
        return VICTIM + 2
    if pod.deleting:  # the Job stops those that still run, once one has failed
        return VICTIM + 1
    if pod.exit_code in (EXIT_RETRY, EXIT_TERMINATED) and said != Reason.STORAGE_UNAVAILABLE:
        return VICTIM
    return 3


def _failure(pod: PodState, job: JobState) -> Outcome:
    reason, message, retryable = _cause(pod)
    if job.nodes > 1:
        message = f"node {pod.index} of {job.nodes}: {message}"
    # What the cluster did to the pod is not held against the user.
    counted = retryable and not (pod.disrupted or pod.deleting or pod.pod_reason in LOST_NODE_REASONS)
    return Outcome(
        reason,
        message[:MAX_MESSAGE],
        retryable=retryable,
        counted=counted,
        exit_code=pod.exit_code,
        started=pod.started,
        finished=pod.finished,
        weak=job.nodes > 1 and _rank_of_guilt(pod) >= VICTIM,
    )


def _cause(pod: PodState) -> tuple[Reason, str, bool]:
    """(reason, message, whether the same attempt may pass when tried again)."""
    said, detail = _trainer_error(pod.termination_message)
    if pod.exit_code in (EXIT_CONFIG, EXIT_DATA):
        return _known(pod.exit_code, said), detail, False
    if pod.disrupted or pod.pod_reason in LOST_NODE_REASONS:
        return Reason.INTERRUPTED, f"pod {pod.name} was evicted or its node was lost ({pod.pod_reason or 'DisruptionTarget'})", True
    if pod.terminated_reason == "OOMKilled" or pod.exit_code == EXIT_KILLED:
        return Reason.OUT_OF_MEMORY, f"pod {pod.name} was killed (exit code 137): it used more memory than its limit", True
    if pod.exit_code == EXIT_RETRY:
        return _known(EXIT_RETRY, said), detail, True
    if pod.exit_code == EXIT_TERMINATED or said == Reason.INTERRUPTED:
        return Reason.INTERRUPTED, f"pod {pod.name} was stopped before it could save: {detail}", True
    return Reason.TRAINER_FAILED, f"the trainer ended with exit code {pod.exit_code}: {detail}", True


def _known(exit_code: int, said: str | None) -> Reason:
    """The trainer's own reason, if it is one of this exit code."""
    return next((reason for reason in TRAINER_REASONS[exit_code] if reason.value == said), Reason.TRAINER_FAILED)


def _trainer_error(text: str) -> tuple[str | None, str]:
    """(reason, message) of a termination message; whatever else stands there is quoted from its end."""
    document = _json(text)
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error.get("reason")), error["message"]
    return None, text.strip()[-500:] or "it left no message; see the logs of its pod"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# -------------------------------------------------------------------------------------------------------------- results


def _result(pod: PodState) -> Outcome:
    """What a trainer that ended well left; a message that can't be read is worth another try, from the last checkpoint."""
    try:
        artifact, metrics = _read_result(pod.termination_message)
    except ValueError as error:
        message = f"the trainer ended well, but its result can't be used: {error}"
        return Outcome(
            Reason.TRAINER_FAILED,
            message[:MAX_MESSAGE],
            retryable=True,
            counted=True,
            exit_code=0,
            started=pod.started,
            finished=pod.finished,
        )
    return Outcome(
        Reason.SUCCEEDED,
        f"made {artifact.kind or 'artifact'} {artifact.digest}",
        exit_code=0,
        artifact=artifact,
        metrics=metrics,
        started=pod.started,
        finished=pod.finished,
    )


def _read_result(text: str) -> tuple[Artifact, dict[str, float]]:
    document = _json(text)
    if not isinstance(document, dict) or not isinstance(document.get("artifact"), dict):
        raise ValueError(f"no JSON with an 'artifact' in its termination message ({text.strip()[:200]!r})")
    try:
        artifact = Artifact.model_validate(document["artifact"])
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"artifact.{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
    if artifact.digest is None:
        raise ValueError("artifact.digest is missing")
    return artifact, _read_metrics(document.get("metrics", {}))


def _read_metrics(metrics: object) -> dict[str, float]:
    if not isinstance(metrics, dict):
        raise ValueError("metrics is not an object")
    if len(metrics) > MAX_METRICS:
        raise ValueError(f"{len(metrics)} metrics, at most {MAX_METRICS} are kept")
    bad = next((name for name, value in metrics.items() if not is_number(value)), None)
    if bad is not None:
        raise ValueError(f"metric {bad!r} is {metrics[bad]!r}, not a finite number")
    return {name: float(value) for name, value in metrics.items()}


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


# ------------------------------------------------------------------------------------------------------------- on the way


def running_pod(jobs: Iterable[JobState]) -> PodState | None:
    """The pod that can be asked for its progress: of several the leader, who alone serves it."""
    pods = (pod for job in jobs if not (job.failed or job.succeeded) for pod in job.pods)
    leaders = (pod for pod in pods if pod.index == 0)
    return next((pod for pod in leaders if pod.phase == "Running" and pod.ip and pod.exit_code is None and not pod.deleting), None)


def read_progress(answer: Mapping[str, Any] | None) -> tuple[Progress | None, dict[str, float]]:
    """What a trainer said of itself: (progress, metrics so far). Nonsense is nothing."""
    if answer is None:
        return None, {}
    try:
        progress = Progress.model_validate(dict(answer))
    except ValidationError:
        progress = None
    metrics = answer.get("metrics")
    numbers = {str(k)[:63]: float(v) for k, v in metrics.items() if is_number(v)} if isinstance(metrics, Mapping) else {}
    return progress, dict(list(numbers.items())[:64])


def further(before: Progress | None, now: Progress | None) -> Progress | None:
    """The progress of an attempt: a pod that takes it up again, and has not counted its steps yet, takes nothing back."""
    if now is None or before is None or now.total_steps or not before.total_steps:
        return now or before
    return before.model_copy(update={"phase": now.phase, "eta_seconds": None, "tokens_per_second": None})


def finished(progress: Progress | None, parameters: Mapping[str, Any]) -> Progress | None:
    """The progress of a run that is done. One that was too quick to be asked has done the steps it was asked for."""
    asked = parameters.get("maxSteps")
    steps = progress.total_steps if progress and progress.total_steps else asked if isinstance(asked, int) and asked > 0 else 0
    if progress is None and not steps:
        return None
    return (progress or Progress()).model_copy(
        update={"phase": "Done", "step": steps, "total_steps": steps, "percent": 100, "eta_seconds": 0}
    )


def gpu_seconds(job: JobState, gpus: int, now: dt.datetime) -> float:
    """GPUs of a pod x seconds of all pods that can still be seen."""
    spans = ((pod.finished or now) - pod.started for pod in job.pods if pod.started is not None)
    return round(gpus * sum(max(0.0, span.total_seconds()) for span in spans), 1)
