"""Users whose horizon has passed enter the moments, from a queue ordered by exposure; a user with a late fact enters it again."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Sequence

from flywheel_collector.experiments import Experiment
from flywheel_collector.moments import COLUMNS, Subject, Sums
from flywheel_collector.outcome import METRICS, Outcome, Tried, outcome

_QUEUE = f"""SELECT user, {COLUMNS} FROM subject
    WHERE experiment = ? AND pending = 1 AND exposed_ms <= ? ORDER BY exposed_ms LIMIT ?"""  # noqa: S608
_TRIED = """SELECT w.user, m.first_ms, m.answered_ms, m.failed, m.fallback, m.conversation != 0 FROM temp.window w
    CROSS JOIN message m ON m.user = w.user AND m.first_ms >= w.low AND m.first_ms < w.high"""
_THUMBS = """SELECT w.user, s.kind, s.first_ms FROM temp.window w
    CROSS JOIN signal s ON s.user = w.user AND s.kind IN ('thumbs_up', 'thumbs_down')"""
_STORE = f"""UPDATE subject SET pending = 0, {", ".join(f"{m} = ?" for m in METRICS)}, messages = ?, covariate = ?
    WHERE user = ? AND experiment = ?"""  # noqa: S608
_NOTHING = (None,) * (len(METRICS) + 2)
NEW = ""
"""Stands for the covariate of a matured user who has none."""


def mature(db: sqlite3.Connection, experiment: Experiment, watermark_ms: int, limit: int = 5000) -> int:
    """In the caller's transaction; -> how many users were taken from the queue. May fix the experiment's first exposure in the state."""
    horizon_ms = experiment.definition.horizon_ms
    queue = db.execute(_QUEUE, (experiment.id, watermark_ms - horizon_ms, limit)).fetchall()
    if not queue:
        return 0
    experiment = _with_first_exposure(db, experiment, queue)
    facts = _Facts(db, experiment, queue)
    sums = Sums(experiment)
    rows: list[tuple[object, ...]] = []
    for user, *columns in queue:
        before = Subject.of(tuple(columns))
        sums.add(before, -1)
        if not experiment.matures(before.exposed_ms):
            rows.append((*_NOTHING, user, experiment.id))
            continue
        matured_before = columns[-1] is not None
        after = facts.recount(user, before, keep_covariate=matured_before)
        sums.add(after, 1)
        covariate = NEW if after.covariate is None else json.dumps(after.covariate, separators=(",", ":"))
        rows.append((*(after.outcome or ()), after.messages, covariate, user, experiment.id))
    sums.write(db)
    db.executemany(_STORE, rows)
    return len(queue)


def _with_first_exposure(db: sqlite3.Connection, experiment: Experiment, queue: Sequence[tuple[int, ...]]) -> Experiment:
    """Until somebody has matured, everybody waits in the queue: its first that counts is the first exposure of all."""
    if experiment.first_ms is not None:
        return experiment
    first_ms = next((row[2] for row in queue if experiment.definition.enrols(row[2])), None)
    if first_ms is not None:
        db.execute("UPDATE experiment SET first_ms = ? WHERE id = ?", (first_ms, experiment.id))
    return experiment._replace(first_ms=first_ms)


class _Facts:
    """What is known of the users of a queue, read at once."""

    def __init__(self, db: sqlite3.Connection, experiment: Experiment, queue: Sequence[tuple[int, ...]]) -> None:
        self._experiment = experiment
        self._tried: defaultdict[int, list[Tried]] = defaultdict(list)
        self._thumbs: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        before_ms, horizon_ms = experiment.definition.covariate_ms or 0, experiment.definition.horizon_ms
        db.execute("DELETE FROM temp.window")
        db.executemany("INSERT INTO temp.window VALUES(?, ?, ?)", [(row[0], row[2] - before_ms, row[2] + horizon_ms) for row in queue])
        for user, *tried in db.execute(_TRIED):
            self._tried[user].append(Tried._make(tried))
        for user, kind, ms in db.execute(_THUMBS):
            self._thumbs[user, kind].append(ms)

    def recount(self, user: int, subject: Subject, *, keep_covariate: bool) -> Subject:
        definition = self._experiment.definition
        exposed_ms, horizon_ms = subject.exposed_ms, definition.horizon_ms
        tried = self._tried.get(user, [])
        thumbs = self._thumbs.get((user, "thumbs_up"), ()), self._thumbs.get((user, "thumbs_down"), ())
        messages = sum(one.is_message and exposed_ms <= one.first_ms < exposed_ms + horizon_ms for one in tried)
        covariate = subject.covariate
        if definition.covariate_ms and not keep_covariate:
            start_ms = exposed_ms - definition.covariate_ms
            known = any(start_ms <= one.first_ms < exposed_ms for one in tried)
            covariate = outcome(start_ms, definition.covariate_ms, self._experiment.cap, tried, *thumbs) if known else None
        found: Outcome = outcome(exposed_ms, horizon_ms, self._experiment.cap, tried, *thumbs)
        return subject._replace(outcome=found, messages=messages, covariate=covariate)
