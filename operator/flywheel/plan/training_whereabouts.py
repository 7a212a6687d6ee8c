"""Where an attempt under way is: what its Job, its queue and its pods say, in one sentence with the mend."""

from __future__ import annotations

import datetime as dt

from flywheel.api.reasons import Reason
from flywheel.api.training_run import Attempt, TrainingPhase, TrainingRun
from flywheel.plan.kube import JobState, PodState

Whereabouts = tuple[TrainingPhase, Reason, str]
PATIENCE = dt.timedelta(seconds=30)  # before a Job without a pod is remarked on
WAITING_ERRORS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


def whereabouts(
    run: TrainingRun, attempt: Attempt, job: JobState, now: dt.datetime, *, image: str | None, queue_says: str | None = None
) -> Whereabouts:
    """(phase, reason, message) of a Job that lives. `image` is what it was made with, None if that is no longer known; `queue_says` is
    Kueue's own word on why it waits."""
    if run.spec.suspend or (job.suspended and job.queue is None):
        stopping = any(pod.exit_code is None for pod in job.pods)
        message = "the pod saves a checkpoint and stops" if stopping else "spec.suspend is true; false goes on from the checkpoint"
        return "Suspended", Reason.SUSPENDED, message
    if job.suspended:
        return "Pending", Reason.QUEUED, _queued(attempt, job, queue_says)
    if not job.pods:
        waited = job.created is not None and now - job.created >= PATIENCE and job.queue is None
        hint = f"; kubectl describe {job.backend.lower()} {job.name} tells why (quota, service account, Pod Security)" if waited else ""
        return "Pending", Reason.STARTING, f"attempt {attempt.number}: {job.backend} {job.name} has made no pod yet{hint}"
    return _of_pods(attempt, job, image)


def _queued(attempt: Attempt, job: JobState, queue_says: str | None) -> str:
    began = attempt.start_time is not None
    before = "it was running and gave its place to others; it goes on from its newest checkpoint, and no retry is counted" if began else ""
    why = queue_says or f"kubectl get workloads shows why; without Kueue in the cluster, remove spec.queueName ({job.queue})"
    return ". ".join(part for part in (f"waits for admission by Kueue queue {job.queue}", before, why) if part)


def _of_pods(attempt: Attempt, job: JobState, image: str | None) -> Whereabouts:
    newest = {pod.index: pod for pod in reversed(job.pods)}  # of each rank; the list has the newest first
    waiting = [pod for _, pod in sorted(newest.items()) if pod.started is None and pod.exit_code is None]
    missing = job.nodes - len(newest)
    if waiting:
        phase, reason, message = _not_started(attempt, waiting[0], image)
        return phase, reason, _counted(job, len(newest) - len(waiting), message)
    if missing > 0:
        message = f"attempt {attempt.number}: {job.backend} {job.name} has not made all its pods yet"
        return "Pending", Reason.STARTING, _counted(job, len(newest), message)
    ended = next((pod for pod in newest.values() if pod.exit_code is not None), None)
    if ended is not None:
        return "Running", Reason.RUNNING, _between_pods(job, ended)
    nodes = f" on {job.nodes} nodes" if job.nodes > 1 else ""
    return "Running", Reason.RUNNING, f"attempt {attempt.number} runs in {job.backend} {job.name}{nodes}"


def _counted(job: JobState, running: int, message: str) -> str:
    return message if job.nodes == 1 else f"{message}; {running} of {job.nodes} pods have started, all are needed"


def _between_pods(job: JobState, pod: PodState) -> str:
    if pod.disrupted and job.nodes == 1:
        return f"pod {pod.name} was evicted or its node was lost; its {job.backend} makes another, which goes on from the last checkpoint"
    return f"pod {pod.name} ended with exit code {pod.exit_code}; its {job.backend} has not closed yet"


def _not_started(attempt: Attempt, pod: PodState, image: str | None) -> Whereabouts:
    if pod.image_pull_failed:
        what = f"image {image}" if image else "its image"
        mend = "push the image, or correct spec.image or spec.imagePullSecrets; the run goes on by itself"
        return "Pending", Reason.IMAGE_PULL_FAILED, f"{what} can't be pulled ({pod.waiting_message or pod.waiting_reason}): {mend}"
    if pod.waiting_reason in WAITING_ERRORS:
        return "Pending", Reason.INVALID_SPEC, f"pod {pod.name} can't start: {pod.waiting_message or pod.waiting_reason}"
    if pod.unschedulable is not None:
        return "Pending", Reason.UNSCHEDULABLE, f"no node takes pod {pod.name}: {pod.unschedulable}"
    return "Pending", Reason.STARTING, f"attempt {attempt.number}: pod {pod.name} is starting ({pod.waiting_reason or pod.phase})"
