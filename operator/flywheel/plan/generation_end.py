"""After a lap has ended: what its stages are then, and when a lap that was made by hand may go."""

from __future__ import annotations

import datetime as dt

from flywheel.api.base import API_VERSION, parse_duration
from flywheel.api.generation import StageStatus
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES
from flywheel.plan.base import Action, Delete, Emit
from flywheel.plan.generation_observed import GenerationObserved
from flywheel.plan.quarantine import remembers_alone
from flywheel.plan.recording import unrecorded

RECORDING = dt.timedelta(days=1)  # that a record may take to reach the store before its lap goes without it
LATER = dt.timedelta(minutes=10)  # until it is looked again whether what keeps a lap has passed; most of it wakes the lap itself
PAUSED = "paused, for the lap has ended; a retry of the lap takes it up again"


def at_rest(stages: tuple[StageStatus, ...], going_on: frozenset[str]) -> tuple[StageStatus, ...]:
    """The stages of a lap that has ended: none of them runs, but for one whose child somebody has asked to go on by itself."""
    return tuple(
        stage.model_copy(update={"phase": "Suspended", "message": PAUSED, "eta_seconds": None, "next_retry_time": None})
        if stage.phase in ("Running", "Retrying") and stage.child not in going_on
        else stage
        for stage in stages
    )


def expiry(observed: GenerationObserved, now: dt.datetime) -> tuple[tuple[Action, ...], dt.datetime | None]:
    """(what removes a lap whose time is over, when to look again)."""
    generation = observed.generation
    ttl, ended = generation.spec.ttl_after_finished, generation.status.completion_time
    if ttl is None or ended is None or any(owner.kind == "Flywheel" for owner in generation.metadata.owner_references):
        return (), None
    due = ended + parse_duration(ttl)
    if now < due:
        return (), due
    if unrecorded(generation, now, RECORDING) or _needed(observed):
        return (), now + LATER
    meta = generation.metadata
    told = Emit("Normal", "Expired", f"spec.ttlAfterFinished {ttl} is over: the record is deleted; what serves users is not its own")
    return (told, Delete(API_VERSION, "Generation", meta.namespace, meta.name, meta.uid)), now + LATER


def _needed(observed: GenerationObserved) -> bool:
    """Whether its rollout is still watched, its model serves users, or nobody else remembers whom users rejected."""
    generation, champion = observed.generation, observed.flywheel.status.champion if observed.flywheel else None
    watched = observed.rollout is not None and observed.rollout.status.phase not in TERMINAL_ROLLOUT_PHASES
    serves = champion is not None and champion.generation == generation.metadata.name
    others = [g for g in observed.siblings if g.metadata.uid != generation.metadata.uid and g.metadata.deletion_timestamp is None]
    return watched or serves or not _remembered(observed) or remembers_alone(generation, others)


def _remembered(observed: GenerationObserved) -> bool:
    """Whether its Flywheel, if there is one, knows what became of it: the lineage goes on without the lap."""
    generation, flywheel = observed.generation, observed.flywheel
    name, decision = generation.metadata.name, generation.status.decision
    return flywheel is None or any(e.generation == name and decision and e.verdict == decision.verdict for e in flywheel.status.lineage)
