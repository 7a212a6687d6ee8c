"""When the next lap starts, which laps run, and which finished ones may go."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from flywheel.api.base import API_VERSION, get_condition, set_condition
from flywheel.api.flywheel import Flywheel, FlywheelStatus
from flywheel.api.generation import TERMINAL_GENERATION_PHASES, Generation, GenerationSpec
from flywheel.api.reasons import Reason
from flywheel.plan.base import LABEL, MANAGED_BY, Action, Create, Delete, Emit, Manifest, Owner
from flywheel.plan.quarantine import rejected
from flywheel.plan.recording import unrecorded

RECORD_PATIENCE = dt.timedelta(hours=1)  # how long a finished lap may outstay its limit until its record is in the store
MADE = "LapCreated"  # False from the decision to start a lap until it has been seen: then it is made again; later it was deleted by hand


@dataclass(frozen=True)
class Laps:
    """What follows for a Flywheel's laps."""

    status: FlywheelStatus
    actions: tuple[Action, ...]
    wake: dt.datetime | None


def plan_laps(
    flywheel: Flywheel, status: FlywheelStatus, generations: Sequence[Generation], conversations: float | None, now: dt.datetime
) -> Laps:
    """Start the next lap when it is due and none of this Flywheel's own laps runs."""
    actions: list[Action] = []
    present = {g.metadata.name: g for g in generations}
    newest, made = _lap_name(flywheel, status.laps), get_condition(status.conditions, MADE)
    lost = newest not in present and made is not None and made.status == "False"
    own = tuple(n for n in status.active if (n in present and not _ended(present[n])) or (n == newest and lost))
    if lost:
        actions.append(Create(lap_manifest(flywheel, newest)))
    elif newest in present:
        status = _made_condition(flywheel, status, newest, True, now)
    running = [g.metadata.name for g in generations if not _ended(g)]
    status = status.model_copy(update={"active": tuple(sorted({*own, *running}))[:16]})
    try:
        next_time = _next_time(flywheel, status, now)
    except ValueError as error:
        return Laps(_schedule_condition(flywheel, status, str(error), now), tuple(actions), None)
    status = _schedule_condition(flywheel, status, None, now).model_copy(update={"next_lap_time": next_time})
    if not flywheel.spec.suspend and not status.active and _due(flywheel, status, next_time, conversations, now):
        status, started = _start(flywheel, status, present, conversations, now)
        actions += started
    waiting = {g.metadata.name for g in generations if unrecorded(g, now, RECORD_PATIENCE)}
    actions += [delete for delete in _retire(flywheel, generations) if delete.name not in waiting]
    overdue = next_time is not None and next_time <= now  # a lap runs or the loop is suspended: their end wakes, not the clock
    return Laps(status, tuple(actions), None if overdue else next_time)


def _ended(generation: Generation) -> bool:
    return generation.status.phase in TERMINAL_GENERATION_PHASES


def _next_time(flywheel: Flywheel, status: FlywheelStatus, now: dt.datetime) -> dt.datetime | None:
    trigger = flywheel.spec.trigger
    if not trigger.schedule:
        return None
    since = status.last_lap_time or flywheel.metadata.creation_timestamp or now
    try:
        zone = ZoneInfo(trigger.time_zone)
        return next(CronSim(trigger.schedule, since.astimezone(zone))).astimezone(dt.UTC)
    except (CronSimError, StopIteration):
        raise ValueError(
            f"spec.trigger.schedule '{trigger.schedule}' is no cron expression; write five fields, such as '0 3 * * 1'"
        ) from None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"spec.trigger.timeZone '{trigger.time_zone}' is unknown; use an IANA name, such as 'Europe/Berlin'") from None


def _schedule_condition(flywheel: Flywheel, status: FlywheelStatus, error: str | None, now: dt.datetime) -> FlywheelStatus:
    reason, message = (Reason.INVALID_SPEC, error) if error else (Reason.READY, "the trigger is understood")
    generation = flywheel.metadata.generation
    conditions = set_condition(status.conditions, "TriggerValid", error is None, reason, message, generation=generation, now=now)
    return status.model_copy(update={"conditions": conditions})


def _due(flywheel: Flywheel, status: FlywheelStatus, next_time: dt.datetime | None, conversations: float | None, now: dt.datetime) -> bool:
    if next_time is not None and now >= next_time:
        return True
    needed = flywheel.spec.trigger.new_conversations
    return needed is not None and conversations is not None and conversations - (status.last_lap_conversations or 0) >= needed


def _start(
    flywheel: Flywheel, status: FlywheelStatus, present: dict[str, Generation], conversations: float | None, now: dt.datetime
) -> tuple[FlywheelStatus, list[Action]]:
    number = status.laps + 1
    while _lap_name(flywheel, number) in present:
        number += 1
    name = _lap_name(flywheel, number)
    started = status.model_copy(
        update={
            "laps": number,
            "active": (name,),
            "last_lap_time": now,
            "last_lap_conversations": conversations or status.last_lap_conversations,
        }
    )
    started = _made_condition(flywheel, started, name, False, now)
    return started, [Create(lap_manifest(flywheel, name)), Emit("Normal", "LapStarted", f"Generation {name} starts")]


def _lap_name(flywheel: Flywheel, number: int) -> str:
    return f"{flywheel.metadata.name[:32]}-{number}"


def _made_condition(flywheel: Flywheel, status: FlywheelStatus, name: str, made: bool, now: dt.datetime) -> FlywheelStatus:
    reason, message = (Reason.READY, f"Generation {name} was made") if made else (Reason.STARTING, f"Generation {name} is being made")
    generation = flywheel.metadata.generation
    return status.model_copy(
        update={"conditions": set_condition(status.conditions, MADE, made, reason, message, generation=generation, now=now)}
    )


def lap_manifest(flywheel: Flywheel, name: str) -> Manifest:
    """A Generation from the template. It is the Flywheel's, and goes with it; what serves does not."""
    spec = GenerationSpec.model_validate({**flywheel.spec.generation_template.dump(), "flywheel": flywheel.metadata.name}).dump()
    metadata: Manifest = {
        "name": name,
        "namespace": flywheel.metadata.namespace,
        "labels": {**MANAGED_BY, LABEL + "flywheel": flywheel.metadata.name},
        "ownerReferences": [Owner("Flywheel", flywheel.metadata).reference()],
    }
    return {"apiVersion": API_VERSION, "kind": "Generation", "metadata": metadata, "spec": spec}


def _retire(flywheel: Flywheel, generations: Sequence[Generation]) -> list[Delete]:
    """Delete finished laps above the history limits, oldest first. What serves belongs to the Flywheel and stays.

    So does the only one that remembers whom users rejected: the next lap must learn of it before it goes.
    """
    limits = flywheel.spec.history_limits
    ended = sorted((g for g in generations if _ended(g) and g.metadata.deletion_timestamp is None), key=_completed)
    good = [g for g in ended if g.status.phase == "Promoted"]
    bad = [g for g in ended if g.status.phase != "Promoted"]
    old = good[: max(0, len(good) - limits.successful)] + bad[: max(0, len(bad) - limits.failed)]
    rest, gone = [g for g in generations if g.metadata.deletion_timestamp is None], []
    for lap in old:
        without = [g for g in rest if g is not lap]
        if set(rejected(rest, (), None)) <= set(rejected(without, (), None)):
            gone.append(lap)
            rest = without
    return [Delete(API_VERSION, "Generation", g.metadata.namespace, g.metadata.name, g.metadata.uid) for g in gone]


def _completed(generation: Generation) -> dt.datetime:
    return generation.status.completion_time or dt.datetime.min.replace(tzinfo=dt.UTC)
