"""TrainingRun: attempt after attempt of one Job each, until an artifact is there or nothing more can be hoped for.

The list of attempts in the status is the state. An attempt is on record before its Job exists, and its Job's name follows
from its number, so a crash at any point makes no second one. A run that succeeded never runs again; one that failed runs again
after its spec or its `modelflywheel.dev/retry` annotation changed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flywheel.api.base import get_condition, parse_duration, set_condition
from flywheel.api.names import RETRY, retry_token
from flywheel.api.reasons import Reason
from flywheel.api.training_run import Attempt, Inputs, TrainingPhase, TrainingRun, TrainingRunStatus
from flywheel.plan import attempts as ends
from flywheel.plan.base import Action, Create, Defaults, Delete, Emit, Plan, child_name, duration_text, stable_hash
from flywheel.plan.base import Apply as ApplyAction
from flywheel.plan.kube import JobState, PodState
from flywheel.plan.references import Objects, Problem, resolve_inputs
from flywheel.specs.pods import InvalidPodTemplate
from flywheel.specs.trainer_job import DEFAULT_RESOURCES, run_config, suspend_patch, trainer_job

KEPT_ATTEMPTS = 128
MAX_BACKOFF = dt.timedelta(minutes=10)
POLL = dt.timedelta(seconds=2)  # progress of a running trainer
SOON = dt.timedelta(seconds=5)
BLOCKED = dt.timedelta(seconds=30)  # looked at again even if the event that unblocks it is lost
SUSPENDED = dt.timedelta(minutes=5)
PATIENCE = dt.timedelta(seconds=30)  # before a Job without a pod is remarked on
WAITING_ERRORS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
HOW_TO_RETRY = f"then change the spec, or set the annotation {RETRY} to a new value"
CALM = {Reason.STARTING, Reason.RUNNING, Reason.SUCCEEDED, Reason.SUSPENDED, Reason.WAITING}


@dataclass(frozen=True)
class TrainingRunObserved:
    """Everything a TrainingRun's plan depends on, besides the time."""

    run: TrainingRun
    jobs: tuple[JobState, ...] = ()  # all Jobs labelled as this run's and owned by it
    objects: Objects = field(default_factory=dict)  # what references.referenced(run.spec) names, as far as it exists
    stray_pods: tuple[PodState, ...] = ()  # pods labelled as this run's whose Job is gone
    progress: Mapping[str, Any] | None = None  # the answer of attempts.running_pod(jobs)
    poll: dt.timedelta = POLL  # how often this run may ask its trainer: the more trainers there are, the less often each
    refused: str | None = None  # why the API server refused this run's Job last time (not retryable)
    defaults: Defaults = field(default_factory=Defaults)


@dataclass(frozen=True)
class _Pass:
    """One pass: what is observed, and the status as far as it has been worked out."""

    observed: TrainingRunObserved
    now: dt.datetime
    status: TrainingRunStatus

    @property
    def run(self) -> TrainingRun:
        return self.observed.run

    @property
    def last(self) -> Attempt | None:
        return self.status.attempts[-1] if self.status.attempts else None

    def having(self, **changes: Any) -> _Pass:
        return replace(self, status=self.status.model_copy(update=changes))

    def with_last(self, attempt: Attempt) -> _Pass:
        """The newest attempt replaced."""
        spent = self.status.gpu_seconds - (self.last.gpu_seconds if self.last else 0) + attempt.gpu_seconds
        return self.having(attempts=(*self.status.attempts[:-1], attempt), gpu_seconds=max(0.0, round(spent, 1)))


def plan_training_run(observed: TrainingRunObserved, now: dt.datetime) -> Plan:
    """What to do about a TrainingRun now."""
    run = observed.run
    if run.status.phase == "Succeeded" or run.metadata.deletion_timestamp is not None:
        return Plan(run.status.model_copy(update={"observed_generation": run.metadata.generation}).dump())
    this = _adopt(_Pass(observed, now, run.status))
    try:
        return _follow(this, this.last) if this.last is not None and this.last.end_time is None else _go_on(this)
    except InvalidPodTemplate as error:
        return _blocked(this, Problem(Reason.INVALID_SPEC, f"spec.{error}", final=True))


def _adopt(this: _Pass) -> _Pass:
    """A Job newer than the status knows: the status was read from a stale cache (persisting it will say so), or was lost."""
    newest = max(this.observed.jobs, key=lambda job: job.attempt, default=None)
    if newest is None or (this.last is not None and newest.attempt <= this.last.number):
        return this
    revision, made_from = this.run.metadata.generation, spec_hash(this.run)
    adopted = Attempt(number=newest.attempt, job=newest.name, job_uid=newest.uid, revision=revision, spec_hash=made_from)
    return this.having(attempts=(*this.status.attempts, adopted)[-KEPT_ATTEMPTS:])


# ------------------------------------------------------------------------------------------------- an attempt under way


def _follow(this: _Pass, attempt: Attempt) -> Plan:
    job = next((job for job in this.observed.jobs if job.name == attempt.job), None)
    if job is None and attempt.job_uid is None:
        return _create(this, attempt)
    if job is None or attempt.job_uid not in (None, job.uid):
        return _missing(this, attempt)
    pods = [pod for pod in job.pods if pod.started is not None]
    attempt = attempt.model_copy(
        update={
            "job_uid": job.uid,
            "retry_token": retry_token(this.run.metadata) or attempt.retry_token,
            "start_time": attempt.start_time or min((pod.started for pod in pods if pod.started), default=None),
            "gpu_seconds": _spent(this, attempt, job),
        }
    )
    this = this.with_last(attempt).having(next_retry_time=None)
    outcome = ends.outcome(job, this.now)
    if outcome is not None and (outcome.artifact is not None or not job.deleting):
        return _ended(this, attempt, outcome)
    if job.deleting:
        return _settle(this, "Pending", Reason.WAITING, f"Job {job.name} is being deleted", progressing=False, again=SOON)
    return _watch(this, attempt, job)


def _spent(this: _Pass, attempt: Attempt, job: JobState) -> float:
    """GPU-seconds so far: exact at the end, meanwhile as of the last poll. A number that grew at every look would write the
    status at every look, and every write is a reason to look again."""
    gpus = this.run.spec.gpus_per_node
    spent = ends.gpu_seconds(job, gpus, this.now)
    over = job.succeeded or job.failed or any(pod.exit_code is not None for pod in job.pods)
    due = spent - attempt.gpu_seconds >= gpus * this.observed.poll.total_seconds()
    return max(attempt.gpu_seconds, spent) if over or due else attempt.gpu_seconds


def _create(this: _Pass, attempt: Attempt) -> Plan:
    """The attempt is on record, but nobody has seen its Job yet: make it (again). Creating what is there changes nothing."""
    if spec_hash(this.run) != attempt.spec_hash or this.status.inputs is None:
        return _begin(this.having(attempts=this.status.attempts[:-1]), attempt.number)
    if this.observed.refused is not None:
        message = f"the API server refuses Job {attempt.job}: {this.observed.refused}"
        return _settle(this, "Pending", Reason.INVALID_SPEC, message, progressing=False, again=BLOCKED, actions=_manifests(this, attempt))
    message = f"attempt {attempt.number}: Job {attempt.job} is being created"
    return _settle(this, "Pending", Reason.STARTING, message, progressing=True, again=SOON, actions=_manifests(this, attempt))


def _missing(this: _Pass, attempt: Attempt) -> Plan:
    """The Job was seen, and is gone: deleted by hand, or this operator's cache is behind the one that saw it. Time tells."""
    due = this.status.next_retry_time or this.now + SOON
    gone = f"Job {attempt.job} was deleted; a new attempt goes on from the last checkpoint"
    if this.now >= due:
        return _ended(this.having(next_retry_time=None), attempt, ends.Outcome(Reason.INTERRUPTED, gone, retryable=True))
    return _settle(this.having(next_retry_time=due), "Retrying", Reason.INTERRUPTED, gone, progressing=True, again=due - this.now)


def _watch(this: _Pass, attempt: Attempt, job: JobState) -> Plan:
    """The Job lives: say where it is, pause or resume it, and replace one that can't start once its spec is mended."""
    run, started = this.run, any(pod.started for pod in job.pods)
    phase, reason, message = _whereabouts(this, attempt, job)
    if _spec_changed(run, attempt):
        if not started:
            mended = ends.Outcome(reason, f"{message}; replaced because the spec was changed", retryable=True)
            return _ended(this, attempt, mended)
        message += "; the change of the spec since then holds for the next attempt only"
    actions = _deletions(this, keep=job.name)
    if job.suspended != run.spec.suspend and _live(job):
        actions.append(ApplyAction(suspend_patch(run, job.name, job.uid, run.spec.suspend)))
    progress, metrics = ends.read_progress(this.observed.progress)
    this = this.having(progress=ends.further(this.status.progress, progress), metrics=metrics or this.status.metrics)
    again = {"Running": this.observed.poll, "Suspended": SUSPENDED if job.suspended else SOON}.get(phase, SOON)
    return _settle(this, phase, reason, message, progressing=reason in (Reason.STARTING, Reason.RUNNING), again=again, actions=actions)


def _whereabouts(this: _Pass, attempt: Attempt, job: JobState) -> tuple[TrainingPhase, Reason, str]:
    """(phase, reason, message) of a Job that lives."""
    pod = job.pods[0] if job.pods else None
    if this.run.spec.suspend or job.suspended:
        stopping = pod is not None and pod.exit_code is None
        message = "the pod saves a checkpoint and stops" if stopping else "spec.suspend is true; false goes on from the checkpoint"
        return "Suspended", Reason.SUSPENDED, message
    if pod is None:
        waited = job.created is not None and this.now - job.created >= PATIENCE
        hint = f"; kubectl describe job {job.name} tells why (quota, service account, Pod Security)" if waited else ""
        return "Pending", Reason.STARTING, f"attempt {attempt.number}: Job {job.name} has made no pod yet{hint}"
    if pod.exit_code is not None:
        return "Running", Reason.RUNNING, _between_pods(pod)
    if pod.started is not None:
        return "Running", Reason.RUNNING, f"attempt {attempt.number} runs in Job {job.name}"
    return _not_started(this.run, attempt, pod, this.observed.defaults)


def _between_pods(pod: PodState) -> str:
    if pod.disrupted:
        return f"pod {pod.name} was evicted or its node was lost; its Job makes another, which goes on from the last checkpoint"
    return f"pod {pod.name} ended with exit code {pod.exit_code}; its Job has not closed yet"


def _not_started(run: TrainingRun, attempt: Attempt, pod: PodState, defaults: Defaults) -> tuple[TrainingPhase, Reason, str]:
    if pod.image_pull_failed:
        image = "its image" if _spec_changed(run, attempt) else f"image {run.spec.image or defaults.trainer_image}"
        mend = "push the image, or correct spec.image or spec.imagePullSecrets; the run goes on by itself"
        return "Pending", Reason.IMAGE_PULL_FAILED, f"{image} can't be pulled ({pod.waiting_message or pod.waiting_reason}): {mend}"
    if pod.waiting_reason in WAITING_ERRORS:
        return "Pending", Reason.INVALID_SPEC, f"pod {pod.name} can't start: {pod.waiting_message or pod.waiting_reason}"
    if pod.unschedulable is not None:
        return "Pending", Reason.UNSCHEDULABLE, f"no node takes pod {pod.name}: {pod.unschedulable}"
    return "Pending", Reason.STARTING, f"attempt {attempt.number}: pod {pod.name} is starting ({pod.waiting_reason or pod.phase})"


# ----------------------------------------------------------------------------------------------------- between attempts


def _ended(this: _Pass, attempt: Attempt, outcome: ends.Outcome) -> Plan:
    """Put the attempt's end on record, and go on from there."""
    attempt = attempt.model_copy(
        update={
            "start_time": attempt.start_time or outcome.started,
            "end_time": outcome.finished or this.now,
            "exit_code": outcome.exit_code,
            "reason": outcome.reason.value,
            "message": outcome.message[: ends.MAX_MESSAGE],
            "retryable": outcome.retryable,
            "counted": outcome.counted,
        }
    )
    this = this.with_last(attempt)
    if outcome.artifact is None:
        return _go_on(this)
    last = this.status.progress  # as it was polled, before the last steps
    progress = last and last.model_copy(update={"phase": "Done", "step": last.total_steps, "percent": 100, "eta_seconds": 0})
    this = this.having(
        artifact=outcome.artifact, metrics=dict(outcome.metrics), progress=progress, completion_time=attempt.end_time, next_retry_time=None
    )
    return _settle(this, "Succeeded", Reason.SUCCEEDED, f"attempt {attempt.number} {outcome.message}", succeeded=True, progressing=False)


def _go_on(this: _Pass) -> Plan:
    """No attempt is under way: start one, wait for the right moment, or stop for good."""
    last, run = this.last, this.run
    if last is not None and not _fresh(run, last):
        if (final := _final(run, this.status.attempts, last)) is not None:
            return _settle(
                this.having(completion_time=last.end_time, next_retry_time=None),
                "Failed",
                *final,
                succeeded=False,
                progressing=False,
                actions=_deletions(this),
            )
        start = (last.end_time or this.now) + _backoff(run, this.status.attempts)
    else:
        start = this.now
    this = this.having(completion_time=None)
    if run.spec.suspend:
        message = "spec.suspend is true; no attempt is started"
        return _settle(this, "Suspended", Reason.SUSPENDED, message, progressing=False, again=SUSPENDED, actions=_deletions(this))
    if (still := _still_there(this)) is not None:
        message = f"waiting until {still} is gone"
        return _settle(this, "Retrying", Reason.WAITING, message, progressing=True, again=SOON, actions=_deletions(this))
    if this.now < start and last is not None:
        message = f"attempt {last.number} failed: {last.reason}: {last.message}. Next attempt in {duration_text(start - this.now)}"
        this = this.having(next_retry_time=start)
        return _settle(this, "Retrying", Reason.RETRYING, _stable(message, this), progressing=True, again=start - this.now)
    return _begin(this, last.number + 1 if last else 1)


def _stable(message: str, this: _Pass) -> str:
    """The message as it was first written: a countdown in it must not rewrite the status at every look."""
    old = get_condition(this.run.status.conditions, "Succeeded")
    same = old is not None and old.reason == Reason.RETRYING and this.run.status.next_retry_time == this.status.next_retry_time
    return old.message if old is not None and same else message


def _begin(this: _Pass, number: int) -> Plan:
    """Resolve what the spec refers to, put the attempt on record, and only then make its Job."""
    run = this.run
    inputs = _inputs(this)
    if isinstance(inputs, Problem):
        return _blocked(this, inputs)
    attempt = Attempt(
        number=number,
        job=child_name(run.metadata, f"a{number}", number),
        revision=run.metadata.generation,
        spec_hash=spec_hash(run),
        retry_token=retry_token(run.metadata) or (this.last.retry_token if this.last else None),
    )
    begun = this.having(
        attempts=(*this.status.attempts, attempt)[-KEPT_ATTEMPTS:],
        inputs=inputs,
        start_time=this.status.start_time or this.now,
        next_retry_time=None,
        progress=None,
        metrics={},
    )
    message = f"attempt {number}: Job {attempt.job} is being created"
    return _settle(begun, "Pending", Reason.STARTING, message, progressing=True, again=POLL, actions=_manifests(begun, attempt))


def _inputs(this: _Pass) -> Inputs | Problem:
    """Retries of one spec read what its first attempt read."""
    last = this.last
    if last is not None and this.status.inputs is not None and not _fresh(this.run, last) and last.spec_hash == spec_hash(this.run):
        return this.status.inputs
    return resolve_inputs(this.run.spec, this.observed.objects)


def _blocked(this: _Pass, problem: Problem) -> Plan:
    if problem.final:
        return _settle(this, "Failed", problem.reason, problem.message, succeeded=False, progressing=False)
    return _settle(this, "Pending", problem.reason, problem.message, progressing=False, again=BLOCKED)


# --------------------------------------------------------------------------------------------------- what an end means


def _final(run: TrainingRun, attempts: tuple[Attempt, ...], last: Attempt) -> tuple[Reason, str] | None:
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


def _backoff(run: TrainingRun, attempts: tuple[Attempt, ...]) -> dt.timedelta:
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


def _spec_changed(run: TrainingRun, attempt: Attempt) -> bool:
    return run.metadata.generation > attempt.revision and spec_hash(run) != attempt.spec_hash


def _fresh(run: TrainingRun, last: Attempt) -> bool:
    """Whether somebody has mended the run or asked for another try since its newest attempt."""
    return retry_token(run.metadata) not in (None, last.retry_token) or _spec_changed(run, last)


# -------------------------------------------------------------------------------------------------- actions and status


def _manifests(this: _Pass, attempt: Attempt) -> list[Action]:
    assert this.status.inputs is not None
    config = run_config(this.run, this.status.inputs, attempt.number)
    manifests = trainer_job(this.run, attempt=attempt.number, job_name=attempt.job, config=config, defaults=this.observed.defaults)
    return [Create(manifest) for manifest in manifests]


def _live(job: JobState) -> bool:
    return not (job.failed or job.succeeded)


def _deletions(this: _Pass, keep: str | None = None) -> list[Action]:
    """Jobs that still run although their attempt is over."""
    namespace = this.run.metadata.namespace
    leftover = [job for job in this.observed.jobs if job.name != keep and _live(job) and not job.deleting]
    return [Delete("batch/v1", "Job", namespace, job.name, job.uid) for job in leftover]


def _still_there(this: _Pass) -> str | None:
    """What must be gone before another pod may write checkpoints."""
    job = next((job.name for job in this.observed.jobs if _live(job)), None)
    pod = next((pod.name for pod in this.observed.stray_pods if pod.phase in ("Pending", "Running") and pod.exit_code is None), None)
    return f"Job {job}" if job else f"pod {pod}" if pod else None


def _settle(
    this: _Pass,
    phase: TrainingPhase,
    reason: Reason,
    message: str,
    *,
    progressing: bool,
    succeeded: bool | None = None,
    again: dt.timedelta | None = None,
    actions: list[Action] | None = None,
) -> Plan:
    """The whole status, with an event when the reason has changed."""
    old = get_condition(this.run.status.conditions, "Succeeded")
    conditions, generation = this.status.conditions, this.run.metadata.generation
    for type_, value in (("Succeeded", succeeded), ("Progressing", progressing)):
        conditions = set_condition(conditions, type_, value, reason, message, generation=generation, now=this.now)
    status = this.status.model_copy(update={"phase": phase, "conditions": conditions, "observed_generation": generation})
    changed = old is None or old.reason != reason.value
    event = [Emit("Normal" if reason in CALM else "Warning", reason.value, message[:1024])] if changed else []
    return Plan(status.dump(), (*(actions or ()), *event), this.now + again if again is not None else None)
