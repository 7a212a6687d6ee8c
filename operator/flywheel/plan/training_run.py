"""TrainingRun: attempt after attempt of one Job or JobSet each, until an artifact is there or nothing more can be hoped for.

The list of attempts in the status is the state. An attempt is on record before its Job exists, and its Job's name follows
from its number, so a crash at any point makes no second one. A run that succeeded never runs again; one that failed runs again
after its spec or its `modelflywheel.dev/retry` annotation changed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flywheel.api.base import get_condition, set_condition
from flywheel.api.names import retry_token
from flywheel.api.reasons import Reason
from flywheel.api.training_run import Attempt, Backend, Inputs, TrainingPhase, TrainingRun, TrainingRunStatus
from flywheel.plan import attempts as ends
from flywheel.plan.base import Action, Create, Defaults, Delete, Emit, Plan, child_name, duration_text
from flywheel.plan.base import Apply as ApplyAction
from flywheel.plan.custom_parameters import invalid_parameter
from flywheel.plan.gpu_budget import Wait, gpus
from flywheel.plan.kube import JobState, PodState
from flywheel.plan.references import Objects, Problem, resolve_inputs
from flywheel.plan.training_retries import backoff, final, fresh, spec_changed, spec_hash
from flywheel.plan.training_whereabouts import whereabouts
from flywheel.specs import gang
from flywheel.specs.pods import InvalidPodTemplate
from flywheel.specs.trainer_job import API_VERSIONS, run_config, suspend_patch, trainer_job

KEPT_ATTEMPTS = 128
POLL = dt.timedelta(seconds=2)  # progress of a running trainer
SOON = dt.timedelta(seconds=5)
BLOCKED = dt.timedelta(seconds=30)  # looked at again even if the event that unblocks it is lost
SUSPENDED = dt.timedelta(minutes=5)
CALM = {Reason.STARTING, Reason.RUNNING, Reason.SUCCEEDED, Reason.SUSPENDED, Reason.WAITING, Reason.QUEUED, Reason.WAITING_FOR_GPUS}


@dataclass(frozen=True)
class TrainingRunObserved:
    """Everything a TrainingRun's plan depends on, besides the time."""

    run: TrainingRun
    jobs: tuple[JobState, ...] = ()  # all Jobs labelled as this run's and owned by it
    objects: Objects = field(default_factory=dict)  # what references.referenced(run.spec) names, as far as it exists
    stray_pods: tuple[PodState, ...] = ()  # pods labelled as this run's whose Job is gone
    progress: Mapping[str, Any] | None = None  # the answer of attempts.running_pod(jobs)
    queue_says: str | None = None  # Kueue's word on why the newest Job waits
    backends: frozenset[Backend] = frozenset({"Job"})  # those whose objects the API server knows and the operator watches
    poll: dt.timedelta = POLL  # how often this run may ask its trainer: the more trainers there are, the less often each
    refused: str | None = None  # why the API server refused this run's Job last time (not retryable)
    gpu_wait: Wait | None = None  # what it has to wait for before it may hold GPUs
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
    adopted = Attempt(
        number=newest.attempt, job=newest.name, backend=newest.backend, job_uid=newest.uid, revision=revision, spec_hash=made_from
    )
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
            "image_id": next((pod.image_id for pod in job.pods if pod.image_id and pod.index == 0), attempt.image_id),
            "gpu_seconds": _spent(this, attempt, job),
        }
    )
    attempt = _with_sign(attempt, job)
    this = this.with_last(attempt).having(next_retry_time=None)
    outcome = ends.outcome(job, this.now)
    if outcome is not None and (outcome.artifact is not None or not job.deleting):
        return _ended(this, attempt, outcome)
    if job.deleting:
        return _settle(this, "Pending", Reason.WAITING, f"{job.backend} {job.name} is being deleted", progressing=False, again=SOON)
    return _watch(this, attempt, job)


def _spent(this: _Pass, attempt: Attempt, job: JobState) -> float:
    """GPU-seconds so far: exact at the end, meanwhile as of the last poll. A number that grew at every look would write the
    status at every look, and every write is a reason to look again."""
    a_pod = this.run.spec.gpus_per_node
    spent = ends.gpu_seconds(job, a_pod, this.now)
    over = job.succeeded or job.failed or any(pod.exit_code is not None for pod in job.pods)
    due = spent - attempt.gpu_seconds >= a_pod * this.observed.poll.total_seconds()
    return max(attempt.gpu_seconds, spent) if over or due else attempt.gpu_seconds


def _with_sign(attempt: Attempt, job: JobState) -> Attempt:
    """The attempt with the first thing that was seen to go wrong, kept for the time when nothing of it can be seen any more."""
    if job.suspended:
        return attempt.model_copy(update={"reason": None, "message": None, "retryable": None, "counted": False, "exit_code": None})
    sign = ends.first_sign(job) if attempt.reason is None else None
    return attempt if sign is None else attempt.model_copy(update=_told(sign))


def _told(end: ends.Outcome) -> dict[str, Any]:
    """How an attempt ended, as its record says it."""
    return {
        "exit_code": end.exit_code,
        "reason": end.reason.value,
        "message": end.message[: ends.MAX_MESSAGE],
        "retryable": end.retryable,
        "counted": end.counted,
    }


def _create(this: _Pass, attempt: Attempt) -> Plan:
    """The attempt is on record, but nobody has seen its Job yet: make it (again). Creating what is there changes nothing."""
    if spec_hash(this.run) != attempt.spec_hash or this.status.inputs is None:
        return _begin(this.having(attempts=this.status.attempts[:-1]), attempt.number)
    if attempt.backend not in this.observed.backends:
        return _blocked(this, _no_backend(attempt.backend))
    if this.observed.refused is not None:
        message = f"the API server refuses {attempt.backend} {attempt.job}: {this.observed.refused}"
        return _settle(this, "Pending", Reason.INVALID_SPEC, message, progressing=False, again=BLOCKED, actions=_manifests(this, attempt))
    message = f"attempt {attempt.number}: {attempt.backend} {attempt.job} is being created"
    return _settle(this, "Pending", Reason.STARTING, message, progressing=True, again=SOON, actions=_manifests(this, attempt))


def _missing(this: _Pass, attempt: Attempt) -> Plan:
    """The Job was seen, and is gone: deleted by hand, or this operator's cache is behind the one that saw it. Time tells."""
    if attempt.backend not in this.observed.backends:
        return _blocked(this, _no_backend(attempt.backend))  # nobody can say whether it is there
    due = this.status.next_retry_time or this.now + SOON
    if this.run.spec.suspend:
        paused = f"{attempt.backend} {attempt.job} was deleted while the run is suspended; it goes on from its checkpoint"
        return _ended(this.having(next_retry_time=None), attempt, ends.Outcome(Reason.SUSPENDED, paused, retryable=True))
    gone = f"{attempt.backend} {attempt.job} was deleted; a new attempt goes on from the last checkpoint"
    if this.now >= due:
        return _ended(this.having(next_retry_time=None), attempt, ends.Outcome(Reason.INTERRUPTED, gone, retryable=True))
    return _settle(this.having(next_retry_time=due), "Retrying", Reason.INTERRUPTED, gone, progressing=True, again=due - this.now)


def _watch(this: _Pass, attempt: Attempt, job: JobState) -> Plan:
    """The Job lives: say where it is, pause or resume it, and replace one that can't start once its spec is mended."""
    run, started = this.run, any(pod.started for pod in job.pods)
    image = None if spec_changed(run, attempt) else run.spec.image or this.observed.defaults.trainer_image
    phase, reason, message = whereabouts(run, attempt, job, this.now, image=image, queue_says=this.observed.queue_says)
    if spec_changed(run, attempt):
        if not started:
            mended = ends.Outcome(reason, f"{message}; replaced because the spec was changed", retryable=True)
            return _ended(this, attempt, mended)
        message += "; the change of the spec since then holds for the next attempt only"
    actions = _deletions(this, keep=job.name)
    if job.suspended and not run.spec.suspend and this.status.gpus == 0 and (wait := this.observed.gpu_wait) is not None:
        return _settle(this, "Suspended", wait.reason, wait.message, progressing=False, again=wait.again, actions=actions)
    actions += _pause_or_resume(run, job)
    progress, metrics = ends.read_progress(this.observed.progress)
    this = this.having(progress=ends.further(this.status.progress, progress), metrics=metrics or this.status.metrics)
    again = {"Running": this.observed.poll, "Suspended": SUSPENDED if job.suspended else SOON}.get(phase, SOON)
    going = reason in (Reason.STARTING, Reason.RUNNING)
    return _settle(this, phase, reason, message, progressing=going, again=again, actions=actions)


def _pause_or_resume(run: TrainingRun, job: JobState) -> list[Action]:
    """`suspend` of what Kueue admits is Kueue's alone: it would lift a pause at once. Such a run gives up its Job, and the quota too."""
    if not _live(job):
        return []
    if job.queue is not None:
        return [_delete(run, job)] if run.spec.suspend else []
    if job.suspended == run.spec.suspend:
        return []
    return [ApplyAction(suspend_patch(run, job.name, job.uid, run.spec.suspend, backend=job.backend))]


# ----------------------------------------------------------------------------------------------------- between attempts


def _ended(this: _Pass, attempt: Attempt, outcome: ends.Outcome) -> Plan:
    """Put the attempt's end on record, and go on from there."""
    attempt = attempt.model_copy(
        update={
            "start_time": attempt.start_time or outcome.started,
            "end_time": outcome.finished or this.now,
            **({} if outcome.weak and attempt.reason is not None else _told(outcome)),
        }
    )
    this = this.with_last(attempt)
    if outcome.artifact is None:
        return _go_on(this)
    progress = ends.finished(this.status.progress, this.run.spec.parameters)  # it was polled before the last steps
    this = this.having(
        artifact=outcome.artifact, metrics=dict(outcome.metrics), progress=progress, completion_time=attempt.end_time, next_retry_time=None
    )
    return _settle(this, "Succeeded", Reason.SUCCEEDED, f"attempt {attempt.number} {outcome.message}", succeeded=True, progressing=False)


def _go_on(this: _Pass) -> Plan:
    """No attempt is under way: start one, wait for the right moment, or stop for good."""
    last, run = this.last, this.run
    if last is not None and not fresh(run, last):
        if (why := final(run, this.status.attempts, last)) is not None:
            return _settle(
                this.having(completion_time=last.end_time, next_retry_time=None),
                "Failed",
                *why,
                succeeded=False,
                progressing=False,
                actions=_deletions(this),
            )
        paused = last.reason == Reason.SUSPENDED
        start = this.now if paused else (last.end_time or this.now) + backoff(run, this.status.attempts)
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
    run, backend = this.run, this.run.spec.backend
    if (wrong := invalid_parameter(run.spec)) is not None:
        return _blocked(this, wrong)
    if backend not in this.observed.backends:
        return _blocked(this, _no_backend(backend))
    inputs = _inputs(this)
    if isinstance(inputs, Problem):
        return _blocked(this, inputs)
    if (wait := this.observed.gpu_wait) is not None:
        return _settle(this, "Pending", wait.reason, wait.message, progressing=False, again=wait.again)
    longest = 63 if gang.alone(run) else gang.LONGEST_NAME
    attempt = Attempt(
        number=number,
        job=child_name(run.metadata, f"a{number}", number, longest=longest),
        backend=backend,
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
    message = f"attempt {number}: {backend} {attempt.job} is being created"
    return _settle(begun, "Pending", Reason.STARTING, message, progressing=True, again=POLL, actions=_manifests(begun, attempt))


def _inputs(this: _Pass) -> Inputs | Problem:
    """Retries of one spec read what its first attempt read."""
    last = this.last
    if last is not None and this.status.inputs is not None and not fresh(this.run, last) and last.spec_hash == spec_hash(this.run):
        return this.status.inputs
    return resolve_inputs(this.run.spec, this.observed.objects)


def _blocked(this: _Pass, problem: Problem) -> Plan:
    if problem.final:
        return _settle(this, "Failed", problem.reason, problem.message, succeeded=False, progressing=False)
    return _settle(this, "Pending", problem.reason, problem.message, progressing=False, again=BLOCKED)


def _no_backend(backend: Backend) -> Problem:
    """Only JobSet can be missing: every cluster has Jobs."""
    return Problem(
        Reason.BACKEND_MISSING,
        f"spec.backend is {backend}, but the cluster doesn't serve {API_VERSIONS[backend]}; install JobSet (https://jobset.sigs.k8s.io), "
        "or set spec.backend to Job. The run starts by itself once it is there",
    )


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
    return [_delete(this.run, job) for job in this.observed.jobs if job.name != keep and _live(job) and not job.deleting]


def _delete(run: TrainingRun, job: JobState) -> Delete:
    return Delete(API_VERSIONS[job.backend], job.backend, run.metadata.namespace, job.name, job.uid)


def _still_there(this: _Pass) -> str | None:
    """What must be gone before another pod may write checkpoints."""
    job = next((job for job in this.observed.jobs if _live(job)), None)
    pod = next((pod.name for pod in this.observed.stray_pods if pod.phase in ("Pending", "Running") and pod.exit_code is None), None)
    return f"{job.backend} {job.name}" if job else f"pod {pod}" if pod else None


def _gpus_held(this: _Pass, reason: Reason) -> int | None:
    """What the run holds of the GPU budgets: all its GPUs, from the decision to make an attempt until its pods have ended or are paused."""
    before, last = this.run.status, this.last
    if not gpus(this.run.spec) and before.gpus is None:
        return None
    job = next((job for job in this.observed.jobs if last is not None and job.name == last.job), None)
    under_way = last is not None and last.end_time is None
    paused = this.run.spec.suspend and job is not None and job.suspended and all(pod.exit_code is not None for pod in job.pods)
    if (under_way and paused) or reason in (Reason.SUCCEEDED, Reason.WAITING_FOR_GPUS, Reason.GPU_BUDGET_TOO_SMALL):
        return 0
    begun = last is not None and (not before.attempts or before.attempts[-1].number != last.number)
    if under_way:
        return gpus(this.run.spec) if begun else before.gpus or gpus(this.run.spec)
    return before.gpus if _still_there(this) else 0


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
    held = _gpus_held(this, reason)
    status = this.status.model_copy(update={"phase": phase, "conditions": conditions, "observed_generation": generation, "gpus": held})
    changed = old is None or old.reason != reason.value
    event = [Emit("Normal" if reason in CALM else "Warning", reason.value, message[:1024])] if changed else []
    return Plan(status.dump(), (*(actions or ()), *event), this.now + again if again is not None else None)
