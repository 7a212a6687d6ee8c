"""When a lap is due: by the schedule, or by the conversations that were kept since the last one began."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from flywheel.api.base import parse_duration
from flywheel.api.flywheel import Flywheel, FlywheelStatus


@dataclass(frozen=True)
class Trigger:
    """What the trigger says now."""

    due: bool = False
    next_time: dt.datetime | None = None  # by the schedule, and not before a backoff ends; in the past while a due lap may not start
    skipped: dt.datetime | None = None  # a time of the schedule that was missed by more than startingDeadline


def read_trigger(flywheel: Flywheel, status: FlywheelStatus, conversations: float | None, now: dt.datetime) -> Trigger:
    """Raises ValueError, with the mend, for a schedule or a time zone that nobody can understand.

    However many times were missed (the operator was down, a lap ran, the loop was suspended), one lap makes up for all of them.
    """
    said, delayed = flywheel.spec.trigger, status.backoff_until if status.backoff_until and status.backoff_until > now else None
    enough = said.new_conversations is not None and conversations is not None
    due = enough and (conversations or 0) - (status.last_lap_conversations or 0) >= (said.new_conversations or 0)
    if not said.schedule:
        return Trigger(due, delayed if said.new_conversations is not None else None)
    since = status.last_lap_time or flywheel.metadata.creation_timestamp or now
    first = _after(flywheel, since)
    if said.starting_deadline is None:
        next_time, counts = first, first
    else:
        patience = parse_duration(said.starting_deadline)
        next_time = first if first + patience >= now else _after(flywheel, now - patience)
        counts = next_time if delayed is None or next_time + patience >= delayed else _after(flywheel, delayed - patience)
    planned = max(counts, delayed) if delayed is not None else next_time
    return Trigger(due or next_time <= now, planned, first if first < next_time else None)


def _after(flywheel: Flywheel, since: dt.datetime) -> dt.datetime:
    """The first time of the schedule after a moment."""
    trigger = flywheel.spec.trigger
    try:
        zone = ZoneInfo(trigger.time_zone)
        return next(CronSim(trigger.schedule or "", since.astimezone(zone))).astimezone(dt.UTC)
    except (CronSimError, StopIteration):
        raise ValueError(
            f"spec.trigger.schedule '{trigger.schedule}' is no cron expression; write five fields, such as '0 3 * * 1'"
        ) from None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"spec.trigger.timeZone '{trigger.time_zone}' is unknown; use an IANA name, such as 'Europe/Berlin'") from None
