"""Sums per (experiment, slice, metric), kept by difference so that publishing costs the same for ten users and for ten million.

`moment` holds n, Σy, Σy² of all matured users. `stratum` holds the same of some of them, and Σx, Σx², Σxy with a second number x of each:
of `#messages` (everybody) x is how many messages the user tried, of `#known` (users with a pre-period) the metric in that period; of a
segment there is none.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from flywheel_collector.experiments import Experiment
from flywheel_collector.outcome import KNOWN, MESSAGES, METRICS, Outcome

ALL = ""
_MOMENT = "UPDATE moment SET n = n + ?, total = total + ?, squares = squares + ? WHERE experiment = ? AND slice = ? AND metric = ?"
_STRATUM = """INSERT INTO stratum VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    n = n + excluded.n, y = y + excluded.y, yy = yy + excluded.yy, x = x + excluded.x, xx = xx + excluded.xx, xy = xy + excluded.xy"""
COLUMNS = f"slice, exposed_ms, {', '.join(METRICS)}, messages, segment, covariate"


class Subject(NamedTuple):
    """A user in an experiment, with what he contributes; nothing before he has matured."""

    slice: int
    exposed_ms: int
    outcome: Outcome | None
    messages: int | None
    segment: str | None
    covariate: Outcome | None
    """Null also for a user without a pre-period."""

    @classmethod
    def of(cls, row: Sequence[Any]) -> Subject:
        """From a row with these `COLUMNS`."""
        slice_, exposed_ms, *values = row[: 2 + len(METRICS)]
        messages, segment, covariate = row[2 + len(METRICS) :]
        found = None if values[0] is None else Outcome._make(values)
        return cls(slice_, exposed_ms, found, messages, segment, Outcome._make(json.loads(covariate)) if covariate else None)


class Sums:
    """Differences of one experiment, gathered and written at once."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._n: defaultdict[tuple[int, str], int] = defaultdict(int)
        self._sums: defaultdict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])

    def add(self, subject: Subject, sign: int) -> None:
        if subject.outcome is None:
            return
        slice_, values = subject.slice, subject.outcome
        self._count(slice_, ALL, values, None, sign)
        if subject.messages is not None:
            self._count(slice_, MESSAGES, values, (subject.messages,) * len(METRICS), sign)
        if subject.covariate is not None:
            self._count(slice_, KNOWN, values, subject.covariate, sign)
        for name in segments(self._experiment, subject):
            self._count(slice_, name, values, None, sign)

    def _count(self, slice_: int, stratum: str, values: Iterable[int], others: Iterable[int] | None, sign: int) -> None:
        self._n[slice_, stratum] += sign
        for metric, y, x in zip(METRICS, values, others or (0,) * len(METRICS), strict=True):
            if x or y:
                entry = self._sums[slice_, stratum, metric]
                entry[0] += sign * y
                entry[1] += sign * y * y
                if x:
                    entry[2] += sign * x
                    entry[3] += sign * x * x
                    entry[4] += sign * x * y

    def write(self, db: sqlite3.Connection) -> None:
        number = self._experiment.id
        for (slice_, stratum), n in self._n.items():
            for metric in METRICS:
                y, yy, x, xx, xy = self._sums.get((slice_, stratum, metric), (0, 0, 0, 0, 0))
                if not (n or y or yy or x or xx or xy):
                    continue
                if stratum == ALL:
                    db.execute(
                        _MOMENT,
                        (n, y, yy, number, slice_, metric),
                    )
                    continue
                db.execute(
                    _STRATUM,
                    (number, stratum, slice_, metric, n, y, yy, x, xx, xy),
                )


def segments(experiment: Experiment, subject: Subject) -> list[str]:
    """Those of the experiment's list that the user is in."""
    definition = experiment.definition
    if not definition.segments:
        return []
    new = "new" if subject.covariate is None else "known"
    early = ""
    if definition.early_ms is not None and experiment.first_ms is not None:
        early = "early" if subject.exposed_ms < experiment.first_ms + definition.early_ms else "late"
    own = subject.segment if subject.segment not in BUILT_IN else None
    return [name for name in definition.segments if name in (new, early, own)]


BUILT_IN = ("known", "new", "early", "late")


def withdraw(db: sqlite3.Connection, user: int, experiment: Experiment) -> None:
    """Take a subject's numbers out of the moments again."""
    where = "WHERE user = ? AND experiment = ?"
    row = db.execute(f"SELECT {COLUMNS} FROM subject {where}", (user, experiment.id)).fetchone()  # noqa: S608
    sums = Sums(experiment)
    sums.add(Subject.of(row), -1)
    sums.write(db)
    clear = ", ".join(f"{metric} = NULL" for metric in METRICS)
    db.execute(f"UPDATE subject SET {clear}, messages = NULL, covariate = NULL {where}", (user, experiment.id))  # noqa: S608
