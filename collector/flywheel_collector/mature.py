"""Users whose horizon has passed enter the moments, from a queue ordered by exposure; a user with a late fact enters it again."""

from __future__ import annotations

import sqlite3

from flywheel_collector.experiments import Experiment
from flywheel_collector.moments import Change, contribution, settle
from flywheel_collector.outcome import METRICS, Outcome, Tried, outcome

_VALUES = ", ".join(METRICS)
_QUEUE = f"""SELECT user, slice, exposed_ms, {_VALUES} FROM subject
    WHERE experiment = ? AND pending = 1 AND exposed_ms <= ? ORDER BY exposed_ms LIMIT ?"""  # noqa: S608
_TRIED = "SELECT first_ms, answered_ms, failed, fallback FROM message WHERE user = ? AND first_ms >= ? AND first_ms < ?"
_STORE = f"UPDATE subject SET pending = 0, {', '.join(f'{m} = ?' for m in METRICS)} WHERE user = ? AND experiment = ?"  # noqa: S608


def mature(db: sqlite3.Connection, experiment: Experiment, watermark_ms: int, limit: int = 5000) -> int:
    """In the caller's transaction; -> how many users were taken from the queue."""
    horizon_ms = experiment.definition.horizon_ms
    queue = db.execute(_QUEUE, (experiment.id, watermark_ms - horizon_ms, limit)).fetchall()
    changes: list[Change] = []
    rows: list[tuple[int | None, ...]] = []
    for user, slice_, exposed_ms, *old in queue:
        changes += contribution(experiment.id, slice_, old, -1)
        new: tuple[int | None, ...] = (None,) * len(METRICS)
        if experiment.definition.enrols(exposed_ms):
            new = _recount(db, user, exposed_ms, horizon_ms, experiment.cap)
            changes += contribution(experiment.id, slice_, new, 1)
        rows.append((*new, user, experiment.id))
    settle(db, changes)
    db.executemany(_STORE, rows)
    return len(queue)


def _recount(db: sqlite3.Connection, user: int, exposed_ms: int, horizon_ms: int, cap: int) -> Outcome:
    tried = map(Tried._make, db.execute(_TRIED, (user, exposed_ms, exposed_ms + horizon_ms)))
    thumbs: dict[str, list[int]] = {"thumbs_up": [], "thumbs_down": []}
    for kind, ms in db.execute("SELECT kind, first_ms FROM signal WHERE user = ? AND kind IN ('thumbs_up', 'thumbs_down')", (user,)):
        thumbs[kind].append(ms)
    return outcome(exposed_ms, horizon_ms, cap, tried, thumbs["thumbs_up"], thumbs["thumbs_down"])
