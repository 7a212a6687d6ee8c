"""The record of a decided lap on its way into the artifact store: a TrainingRun of method Record, tried until it succeeds.

The verdict and the traffic wait for none of this: the record stands in the status with the decision, and a store that is full
or gone only keeps the condition `Recorded` at False.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from flywheel.api.base import API_VERSION, get_condition, set_condition
from flywheel.api.generation import Generation, GenerationSpec, GenerationStatus
from flywheel.api.names import RETRY
from flywheel.api.reasons import Reason
from flywheel.api.training_run import TrainingRun
from flywheel.plan.base import LABEL, MANAGED_BY, Action, Apply, Manifest, Owner, child_name
from flywheel.plan.errands import errand_pod
from flywheel.plan.generation_lap import stages_if_any
from flywheel.plan.generation_observed import GenerationObserved

RECORD = LABEL + "record"  # on these runs: the revision whose record they write
CONDITION = "Recorded"
TICK = dt.timedelta(seconds=30)  # looked at again even if an event is lost
FIRST_RETRY = dt.timedelta(minutes=10)  # after the run's own retries are used up; doubled each time
LAST_RETRY = dt.timedelta(hours=6)


@dataclass(frozen=True)
class Recording:
    """What follows for the record of a lap."""

    status: GenerationStatus
    actions: tuple[Action, ...] = ()
    wake: dt.datetime | None = None


def plan_recording(observed: GenerationObserved, status: GenerationStatus, now: dt.datetime) -> Recording:
    """Make the run, read what it made, try it again. Nothing follows for a lap without a record."""
    status = _read_earlier(observed, status)
    spec = observed.snapshot or observed.generation.spec
    record = status.record
    if record is None or not spec.record:
        return Recording(status)
    generation = observed.generation
    if status.record_artifact is not None:
        return Recording(_say(status, generation, True, Reason.SUCCEEDED, f"it lies in {status.record_artifact.uri}", now))
    name = status.record_run or child_name(generation.metadata, "record", record.revision, record.retry)
    status = status.model_copy(update={"record_run": name})
    run = observed.record_runs.get(name)
    if run is not None:
        return _follow(observed, spec, status, run, now)
    busy = next((r.metadata.name for r in observed.record_runs.values() if r.status.phase not in ("Succeeded", "Failed")), None)
    if busy is not None:
        told = _say(status, generation, False, Reason.WAITING, f"waits for TrainingRun {busy}, which writes an earlier record", now)
        return Recording(told, (), now + TICK)
    if observed.flywheel is None:
        words = f"Flywheel {generation.spec.flywheel}, whose storage it belongs to, is gone"
        return Recording(_say(status, generation, False, Reason.REFERENCE_NOT_FOUND, words, now))
    told = _say(status, generation, False, Reason.STARTING, f"TrainingRun {name} is being created", now)
    return Recording(told, _made(observed, spec, status, None), now + TICK)


def unrecorded(generation: Generation, now: dt.datetime, patience: dt.timedelta) -> bool:
    """Whether a lap that was decided lately still waits for its record to reach the store: it should not be deleted yet."""
    status = generation.status
    waits = status.record is not None and generation.spec.record and status.record_artifact is None
    return waits and status.completion_time is not None and now - status.completion_time < patience


def _follow(observed: GenerationObserved, spec: GenerationSpec, status: GenerationStatus, run: TrainingRun, now: dt.datetime) -> Recording:
    generation, name = observed.generation, run.metadata.name
    artifact = run.status.artifact
    if run.status.phase == "Succeeded" and artifact is not None:
        status = status.model_copy(update={"record_artifact": artifact})
        return Recording(_say(status, generation, True, Reason.SUCCEEDED, f"it lies in {artifact.uri}", now))
    if run.status.phase != "Failed":
        return Recording(_say(status, generation, False, Reason.RUNNING, f"TrainingRun {name} writes it", now), (), now + TICK)
    condition = get_condition(run.status.conditions, "Succeeded")
    reason = Reason(condition.reason) if condition and condition.reason in set(Reason) else Reason.TRAINER_FAILED
    due = (run.status.completion_time or now) + _backoff(len(run.status.attempts) // (run.spec.retry.limit + 1))
    words = f"TrainingRun {name} failed: {condition.message if condition else ''}; the record stands in status.record, and is written later"
    told = _say(status, generation, False, reason, words, now)
    if now < due or observed.flywheel is None:
        return Recording(told, (), max(due, now + TICK))
    return Recording(told, _made(observed, spec, status, str(len(run.status.attempts))), now + TICK)


def _backoff(failures: int) -> dt.timedelta:
    doublings = min(max(failures - 1, 0), 6)
    return min(LAST_RETRY, FIRST_RETRY * (1 << doublings))


def _made(observed: GenerationObserved, spec: GenerationSpec, status: GenerationStatus, retry: str | None) -> tuple[Action, ...]:
    flywheel, generation = observed.flywheel, observed.generation
    if flywheel is None or status.record is None:
        return ()
    metadata: Manifest = {
        "name": status.record_run,
        "namespace": generation.metadata.namespace,
        "labels": {
            **MANAGED_BY,
            LABEL + "flywheel": flywheel.metadata.name,
            LABEL + "generation": generation.metadata.name,
            RECORD: str(status.record.revision),
        },
        "ownerReferences": [Owner("Generation", generation.metadata).reference()],
    }
    if retry is not None:
        metadata["annotations"] = {RETRY: retry}
    body = {
        "method": "Record",
        "parameters": {"record": status.record.dump()},
        "storage": flywheel.spec.storage.dump(),
        **errand_pod(stages_if_any(spec, observed.stages or ())),
    }
    return (Apply({"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": metadata, "spec": body}),)


def _read_earlier(observed: GenerationObserved, status: GenerationStatus) -> GenerationStatus:
    """A record of before a retry may reach the store after the retry has begun."""
    runs = observed.record_runs
    made = {e.run: runs[e.run].status.artifact for e in status.earlier_records if e.run and e.run in runs and e.artifact is None}
    if not any(made.values()):
        return status
    earlier = [e.model_copy(update={"artifact": made[e.run]}) if e.run and made.get(e.run) else e for e in status.earlier_records]
    return status.model_copy(update={"earlier_records": tuple(earlier)})


def _say(status: GenerationStatus, generation: Generation, done: bool, reason: Reason, words: str, now: dt.datetime) -> GenerationStatus:
    number = generation.metadata.generation
    conditions = set_condition(status.conditions, CONDITION, done, reason, words[:1024], generation=number, now=now)
    return status.model_copy(update={"conditions": conditions})
