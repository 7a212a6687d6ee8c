"""When the store is collected, and by which run: after a lap's end under policy Delete, or because somebody asked by annotation.

The decision is on record, with the laps that are released, before the run exists. The mark is taken after that, and what the sweep may
touch is older than the decision by the grace: what a run has made meanwhile is safe, whoever is late.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flywheel.api.artifacts import MAX_RELEASED, Collection
from flywheel.api.base import API_VERSION, format_time, get_condition, parse_duration
from flywheel.api.flywheel import Flywheel, FlywheelStatus
from flywheel.api.generation import TERMINAL_GENERATION_PHASES, Generation
from flywheel.api.rollout import Rollout
from flywheel.api.training_run import TrainingRun
from flywheel.plan.base import LABEL, MANAGED_BY, Action, Create, Delete, Emit, Manifest, Owner, child_name
from flywheel.plan.errands import errand_pod
from flywheel.plan.garbage import COLLECTION, MAX_KEPT, Mark, releasable
from flywheel.plan.generation_lap import stages_if_any

ASK = LABEL + "collect-garbage"  # `dry-run <anything>` or `delete <anything>`: a new value asks for a collection
DRY_RUN, DELETE = "dry-run", "delete"
KEPT_RUNS = 3
SHORTEST_GRACE = dt.timedelta(hours=1)


@dataclass(frozen=True)
class Collecting:
    """What follows for the store."""

    status: FlywheelStatus
    actions: tuple[Action, ...] = ()


def needs_mark(status: FlywheelStatus, runs: Mapping[str, TrainingRun]) -> bool:
    """Whether a collection was decided whose run has yet to be made: then the mark is taken."""
    current = status.collection
    return current is not None and current.phase == "Running" and current.name not in runs


def may_be_gone(flywheel: Flywheel | None, generation: str) -> bool:
    """Whether a lap's artifacts may have been deleted: nothing of it may be used again instead of being made."""
    return flywheel is not None and generation in flywheel.status.released


def gone(flywheel: Flywheel | None, runs: Iterable[TrainingRun]) -> frozenset[str]:
    """Digests of what these runs have made and what may have been deleted since: none of it may be taken over."""
    made = [run for run in runs if may_be_gone(flywheel, run.metadata.labels.get(LABEL + "generation", ""))]
    return frozenset(run.status.artifact.digest for run in made if run.status.artifact and run.status.artifact.digest)


def plan_collection(
    flywheel: Flywheel,
    status: FlywheelStatus,
    generations: Iterable[Generation],
    rollouts: Iterable[Rollout],
    runs: Mapping[str, TrainingRun],
    mark: Mark | None,
    now: dt.datetime,
) -> Collecting:
    """Decide a collection, make its run, read what it found, and clear away the runs of old ones."""
    laps = list(generations)
    present = {lap.metadata.name for lap in laps}
    status = status.model_copy(update={"released": tuple(name for name in status.released if name in present)})
    current = status.collection
    if current is not None and current.phase == "Running":
        return _follow(flywheel, status, current, runs.get(current.name), mark)
    tidy = tuple(_old(runs))
    wish = _wish(flywheel, status, laps)
    if wish is None:
        return Collecting(status, tidy)
    dry_run, asked, after = wish
    grace = max(SHORTEST_GRACE, parse_duration(flywheel.spec.artifacts.retention.grace))
    decided = Collection(
        name=child_name(flywheel.metadata, "collect", asked, after),
        time=now,
        grace_seconds=int(grace.total_seconds()),
        dry_run=dry_run,
        asked=asked,
        after=after,
    )
    released = status.released if dry_run else _released(flywheel, status, laps, rollouts)
    return Collecting(status.model_copy(update={"collection": decided, "released": released}), tidy)


def _wish(flywheel: Flywheel, status: FlywheelStatus, laps: list[Generation]) -> tuple[bool, str | None, str | None] | None:
    """(dry run, the request that is heeded, the lap that it follows); None: nothing is to be done."""
    last = status.collection
    asked, after = (last.asked, last.after) if last else (None, None)
    token = flywheel.metadata.annotations.get(ASK, "")[:256] or None
    if token is not None and token != asked and token.split(" ", 1)[0] in (DRY_RUN, DELETE):
        local = flywheel.spec.storage.uri.startswith("file:///")
        return (True if not local else token.split(" ", 1)[0] == DRY_RUN), token, after
    if flywheel.spec.artifacts.retention.policy != "Delete" or status.active or not flywheel.spec.storage.uri.startswith("file:///"):
        return None
    ended = [lap for lap in laps if lap.status.phase in TERMINAL_GENERATION_PHASES and lap.status.completion_time is not None]
    if not ended:
        return None
    newest = max(ended, key=lambda lap: (lap.status.completion_time or dt.datetime.min.replace(tzinfo=dt.UTC), lap.metadata.name))
    key = f"{newest.metadata.name} {newest.status.revision} {newest.status.retry or ''}"[:256].strip()
    return None if key == after else (False, asked, key)


def _released(flywheel: Flywheel, status: FlywheelStatus, laps: list[Generation], rollouts: Iterable[Rollout]) -> tuple[str, ...]:
    """Once released, a lap stays so: its artifacts may be gone, whatever the retention says later."""
    own = flywheel.model_copy(update={"status": status})
    return tuple(sorted({*status.released, *releasable(own, laps, rollouts)}))[:MAX_RELEASED]


def _follow(flywheel: Flywheel, status: FlywheelStatus, current: Collection, run: TrainingRun | None, mark: Mark | None) -> Collecting:
    if run is None:
        if mark is None:
            return Collecting(status)
        if len(mark.digests) + len(mark.runs) > MAX_KEPT:
            many = f"{len(mark.digests)} artifacts and {len(mark.runs)} runs"
            words = f"{many} are referred to, and at most {MAX_KEPT} fit into a run: nothing is deleted"
            return Collecting(_end(status, current, "Failed", words), (Emit("Warning", "CollectionFailed", words),))
        return Collecting(status, (Create(_manifest(flywheel, current, mark)),))
    if run.status.phase == "Succeeded":
        ended = current.model_copy(
            update={
                "phase": "Done",
                "metrics": dict(run.status.metrics),
                "report": run.status.artifact,
                "completion_time": run.status.completion_time,
            }
        )
        count, size = (run.status.metrics.get(f"collected_{what}", 0.0) for what in ("artifacts", "bytes"))
        words = f"{'would delete' if current.dry_run else 'deleted'} {count:.0f} artifacts, {size:.0f} bytes"
        return Collecting(status.model_copy(update={"collection": ended}), (Emit("Normal", "Collected", words),))
    if run.status.phase == "Failed":
        condition = get_condition(run.status.conditions, "Succeeded")
        words = f"TrainingRun {current.name}: {condition.message if condition else 'failed'}"[:1024]
        return Collecting(_end(status, current, "Failed", words), (Emit("Warning", "CollectionFailed", words),))
    return Collecting(status)


def _end(status: FlywheelStatus, current: Collection, phase: str, words: str) -> FlywheelStatus:
    return status.model_copy(update={"collection": current.model_copy(update={"phase": phase, "message": words})})


def _manifest(flywheel: Flywheel, current: Collection, mark: Mark) -> Manifest:
    metadata: Manifest = {
        "name": current.name,
        "namespace": flywheel.metadata.namespace,
        "labels": {**MANAGED_BY, LABEL + "flywheel": flywheel.metadata.name, COLLECTION: "dry-run" if current.dry_run else "delete"},
        "ownerReferences": [Owner("Flywheel", flywheel.metadata).reference()],
    }
    parameters = {
        "flywheel": flywheel.metadata.name,
        "markedAt": format_time(current.time),
        "graceSeconds": current.grace_seconds,
        "dryRun": current.dry_run,
        "keep": {"digests": list(mark.digests), "runs": list(mark.runs)},
    }
    spec = {
        "method": "GarbageCollect",
        "parameters": parameters,
        "storage": flywheel.spec.storage.dump(),
        **errand_pod(stages_if_any(flywheel.spec.generation_template)),
    }
    return {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": metadata, "spec": spec}


def _old(runs: Mapping[str, TrainingRun]) -> Iterable[Delete]:
    """Runs of earlier collections, but for the newest."""
    ended = [run for run in runs.values() if run.status.phase in ("Succeeded", "Failed") and run.metadata.deletion_timestamp is None]
    ended.sort(key=lambda run: (run.status.completion_time or dt.datetime.min.replace(tzinfo=dt.UTC), run.metadata.name))
    for run in ended[: max(0, len(ended) - KEPT_RUNS)]:
        meta = run.metadata
        yield Delete(API_VERSION, "TrainingRun", meta.namespace, meta.name, meta.uid)
