"""Laps that end badly, one after the other, delay the next: they cost GPUs, and users' patience, and something is likely to be wrong.

They are counted in the status as they end, so that a history limit takes none of the count away.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from flywheel.api.base import parse_duration
from flywheel.api.flywheel import CountedLaps, Flywheel, FlywheelStatus
from flywheel.api.generation import TERMINAL_GENERATION_PHASES, Generation
from flywheel.api.names import retry_token
from flywheel.plan.base import stable_hash

BAD = ("Rejected", "RolledBack", "Held", "Failed")
GOOD = ("Promoted", "Completed")  # an Inconclusive lap is neither


def count_failures(flywheel: Flywheel, status: FlywheelStatus, generations: Sequence[Generation]) -> FlywheelStatus:
    """The status with every lap counted that has ended since the last pass, and with the time until which no other may start."""
    ended = sorted((g for g in generations if _end(g) is not None), key=lambda g: (_end(g), g.metadata.name))
    before, failures = status.counted, status.consecutive_failures
    counted = CountedLaps(
        until=before.until if before else None,
        last_failure=before.last_failure if before else None,
        template=_template(flywheel),
        retry=retry_token(flywheel.metadata),
    )
    if before is None or (before.template, before.retry) != (counted.template, counted.retry):
        newest = _end(ended[-1]) if ended else counted.until  # what ended before counts no more
        failures, counted, ended = 0, counted.model_copy(update={"until": newest, "last_failure": None}), []
    for lap in ended:
        end = _end(lap)
        if end is None or (counted.until is not None and end <= counted.until):
            continue
        bad, good = lap.status.phase in BAD, lap.status.phase in GOOD
        failures = failures + 1 if bad else 0 if good else failures
        counted = counted.model_copy(update={"until": end, "last_failure": end if bad else counted.last_failure})
    until = delayed_until(flywheel, failures, counted.last_failure)
    return status.model_copy(update={"consecutive_failures": failures, "counted": counted, "backoff_until": until})


def delayed_until(flywheel: Flywheel, failures: int, last: dt.datetime | None) -> dt.datetime | None:
    """Before when no lap starts by itself: the delay doubles with each further failure, up to its maximum."""
    backoff = flywheel.spec.backoff
    if failures < backoff.after or last is None:
        return None
    delay, longest = parse_duration(backoff.base), parse_duration(backoff.max)
    for _ in range(failures - backoff.after):
        if delay >= longest:
            break
        delay *= 2
    return last + min(delay, longest)


def _end(generation: Generation) -> dt.datetime | None:
    return generation.status.completion_time if generation.status.phase in TERMINAL_GENERATION_PHASES else None


def _template(flywheel: Flywheel) -> str:
    """Identifies what each lap does; a default that changes is no edit."""
    return stable_hash(flywheel.spec.generation_template.model_dump(mode="json", by_alias=True, exclude_defaults=True), length=16)
