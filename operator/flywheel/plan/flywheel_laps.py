"""When the next lap starts, which laps run, and which finished ones may go."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from flywheel.api.base import API_VERSION, get_condition, set_condition
from flywheel.api.flywheel import Flywheel, FlywheelStatus
from flywheel.api.generation import TERMINAL_GENERATION_PHASES, Generation, GenerationSpec
from flywheel.api.reasons import Reason
from flywheel.plan.base import LABEL, MANAGED_BY, Action, Create, Delete, Emit, Manifest, Owner
from flywheel.plan.flywheel_backoff import count_failures
from flywheel.plan.flywheel_names import lap_name, newest_lap
from flywheel.plan.flywheel_trigger import Trigger, read_trigger
from flywheel.plan.quarantine import rejected
from flywheel.plan.recording import unrecorded

RECORD_PATIENCE = dt.timedelta(hours=1)  # how long a finished lap may outstay its limit until its record is in the store
MADE = "LapCreated"  # False from the decision to start a lap until it has been seen: then it is made again; later it was deleted by hand
NEXT = "NextLap"
REPLACEABLE = ("Pending", "Training", "Suspended")  # no user has been asked yet


@dataclass(frozen=True)
class Laps:
    """What follows for a Flywheel's laps."""

    status: FlywheelStatus
    actions: tuple[Action, ...]
    wake: dt.datetime | None


def plan_laps(
    flywheel: Flywheel, status: FlywheelStatus, generations: Sequence[Generation], conversations: float | None, now: dt.datetime
) -> Laps:
    """Start the next lap when it is due and nothing is in its way; else say what is."""
    actions: list[Action] = []
    present = {g.metadata.name: g for g in generations}
    newest, made = newest_lap(flywheel, status), get_condition(status.conditions, MADE)
    lost = newest is not None and newest not in present and made is not None and made.status == "False"
    own = tuple(n for n in status.active if (n in present and not _ended(present[n])) or (n == newest and lost))
    if lost and newest is not None:
        actions.append(Create(lap_manifest(flywheel, newest)))
    elif newest in present:
        status = _made_condition(flywheel, status, str(newest), True, now)
    running = [g.metadata.name for g in generations if not _ended(g)]
    status = status.model_copy(update={"active": tuple(sorted({*own, *running}))[:16]})
    status, replaced = _replace(status, present, newest)
    status, actions = count_failures(flywheel, status, generations), actions + replaced
    try:
        trigger = read_trigger(flywheel, status, conversations, now)
    except ValueError as error:
        return Laps(_schedule_condition(flywheel, status, str(error), now), tuple(actions), None)
    status = _schedule_condition(flywheel, status, None, now).model_copy(update={"next_lap_time": trigger.next_time})
    obstacle = _obstacle(flywheel, status, present, trigger, now)
    if trigger.due and obstacle is None:
        status, started = _start(flywheel, status, present, conversations, now)
        actions += started
    status = _next_condition(flywheel, status, trigger, obstacle, now)
    waiting = {g.metadata.name for g in generations if unrecorded(g, now, RECORD_PATIENCE)}
    actions += [delete for delete in _retire(flywheel, generations) if delete.name not in waiting]
    overdue = trigger.next_time is not None and trigger.next_time <= now  # what is in its way wakes by its end, not the clock
    return Laps(status, tuple(actions), None if overdue else trigger.next_time)


def _ended(generation: Generation) -> bool:
    return generation.status.phase in TERMINAL_GENERATION_PHASES


def _schedule_condition(flywheel: Flywheel, status: FlywheelStatus, error: str | None, now: dt.datetime) -> FlywheelStatus:
    reason, message = (Reason.INVALID_SPEC, error) if error else (Reason.READY, "the trigger is understood")
    generation = flywheel.metadata.generation
    conditions = set_condition(status.conditions, "TriggerValid", error is None, reason, message, generation=generation, now=now)
    return status.model_copy(update={"conditions": conditions})


def _obstacle(
    flywheel: Flywheel, status: FlywheelStatus, present: dict[str, Generation], trigger: Trigger, now: dt.datetime
) -> tuple[Reason, str] | None:
    """What keeps the next lap from starting though its trigger asks for it, or will."""
    spec = flywheel.spec
    if trigger.due and spec.suspend:
        return Reason.SUSPENDED, "a lap is due, but spec.suspend is true"
    if status.backoff_until is not None and now < status.backoff_until:
        until = f"{status.backoff_until:%Y-%m-%d %H:%M:%S} UTC"
        return Reason.BACKING_OFF, (
            f"{status.consecutive_failures} laps in a row ended badly (spec.backoff.after is {spec.backoff.after}): none starts by itself "
            f"before {until}; a promotion, an edit of spec.generationTemplate or `kubectl flywheel retry flywheel/{flywheel.metadata.name}`"
            " begins anew"
        )
    if not trigger.due or not status.active:
        return None
    kept = [name for name in status.active if not _replaceable(flywheel, present.get(name))]
    if spec.concurrency_policy == "Replace":
        if not kept and len(status.active) < 16:
            return None
        why = "only what this Flywheel started and still trains is replaced"
        return Reason.LAP_RUNNING, f"a lap is due, and starts when {', '.join(kept)} has ended: {why}"
    return Reason.LAP_RUNNING, f"a lap is due, and starts when {', '.join(status.active)} has ended (spec.concurrencyPolicy is Forbid)"


def _next_condition(
    flywheel: Flywheel, status: FlywheelStatus, trigger: Trigger, obstacle: tuple[Reason, str] | None, now: dt.datetime
) -> FlywheelStatus:
    """`NextLap`: what the next lap waits for. A Flywheel whose laps are started by hand has no such condition."""
    said = flywheel.spec.trigger
    if not said.schedule and said.new_conversations is None:
        rest = tuple(c for c in status.conditions if c.type != NEXT)
        return status.model_copy(update={"conditions": rest})
    if obstacle is None and trigger.due:
        reason, message = Reason.STARTING, f"Generation {status.last_lap} was due"
    elif obstacle is None:
        ways = [f"by the schedule '{said.schedule}' ({said.time_zone})"] if said.schedule else []
        ways += [f"with {said.new_conversations} new conversations"] if said.new_conversations is not None else []
        late = f"; the one of {trigger.skipped:%Y-%m-%d %H:%M} UTC was missed by more than startingDeadline" if trigger.skipped else ""
        reason, message = Reason.WAITING, f"the next lap starts {' or '.join(ways)}{late}"
    else:
        reason, message = obstacle
    conditions = set_condition(status.conditions, NEXT, obstacle is None, reason, message, generation=flywheel.metadata.generation, now=now)
    return status.model_copy(update={"conditions": conditions})


def _start(
    flywheel: Flywheel, status: FlywheelStatus, present: dict[str, Generation], conversations: float | None, now: dt.datetime
) -> tuple[FlywheelStatus, list[Action]]:
    number = status.laps + 1
    while lap_name(flywheel, number) in present:
        number += 1
    name = lap_name(flywheel, number)
    started = status.model_copy(
        update={
            "laps": number,
            "last_lap": name,
            "active": tuple(sorted({*status.active, name})),
            "replacing": status.active,
            "last_lap_time": now,
            "last_lap_conversations": conversations or status.last_lap_conversations,
        }
    )
    started = _made_condition(flywheel, started, name, False, now)
    return started, [Create(lap_manifest(flywheel, name)), Emit("Normal", "LapStarted", f"Generation {name} starts")]


def _replaceable(flywheel: Flywheel, lap: Generation | None) -> bool:
    """Whether a lap that runs is this Flywheel's own, and has not asked any user yet."""
    if lap is None:
        return False
    return lap.status.phase in REPLACEABLE and any(o.uid == flywheel.metadata.uid and o.controller for o in lap.metadata.owner_references)


def _replace(status: FlywheelStatus, present: dict[str, Generation], newest: str | None) -> tuple[FlywheelStatus, list[Action]]:
    """Delete what the newest lap replaces, once that has begun: by then it has on record whose replies users had rejected."""
    left = [present[name] for name in status.replacing if name in present and present[name].status.phase in REPLACEABLE]
    left = [lap for lap in left if lap.metadata.deletion_timestamp is None]
    status = status.model_copy(update={"replacing": tuple(lap.metadata.name for lap in left)})
    if newest not in present or present[newest].status.revision is None:
        return status, []
    actions: list[Action] = [Emit("Normal", "LapReplaced", f"Generation {lap.metadata.name} is replaced by {newest}") for lap in left]
    return status, [*actions, *(_delete(lap) for lap in left)]


def _delete(lap: Generation) -> Delete:
    return Delete(API_VERSION, "Generation", lap.metadata.namespace, lap.metadata.name, lap.metadata.uid)


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
    return [_delete(lap) for lap in gone]


def _completed(generation: Generation) -> dt.datetime:
    return generation.status.completion_time or dt.datetime.min.replace(tzinfo=dt.UTC)
