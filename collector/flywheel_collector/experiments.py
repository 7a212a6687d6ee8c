"""What the operator registered: horizon, winsor cap, start and end of enrolment of each experiment."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import NamedTuple

from flywheel_collector.clock import parse_time
from flywheel_collector.logline import CANDIDATE, CONTROL, EXPERIMENT
from flywheel_collector.outcome import METRICS
from flywheel_collector.store import Store

LIMIT = 64
"""Experiments at a time, so that series stay few; the next one takes the place of the one that began first."""
MAX_HORIZON_SECONDS = 30 * 86400
CAP_QUANTILE = 0.999
CAP_WITHOUT_HISTORY = 100


class Invalid(ValueError):
    """The definition is refused; the message says why."""


class Conflict(ValueError):
    """The experiment exists with another definition."""


class Definition(NamedTuple):
    horizon_ms: int
    asked_cap: int | None
    started_ms: int
    enrol_until_ms: int | None

    def enrols(self, exposed_ms: int) -> bool:
        return self.started_ms <= exposed_ms and (self.enrol_until_ms is None or exposed_ms < self.enrol_until_ms)


class Experiment(NamedTuple):
    id: int
    name: str
    definition: Definition
    cap: int


def parse_definition(body: object) -> Definition:
    if not isinstance(body, Mapping):
        raise Invalid("the body must be an object")
    unknown = set(body) - {"horizonSeconds", "winsorCap", "startedAt", "enrolUntil"}
    if unknown:
        raise Invalid(f"unknown field {sorted(map(str, unknown))[0]!r}")
    horizon, cap = body.get("horizonSeconds"), body.get("winsorCap")
    if isinstance(horizon, bool) or not isinstance(horizon, int | float) or not 0 < horizon <= MAX_HORIZON_SECONDS:
        raise Invalid(f"horizonSeconds must be a number above 0 and at most {MAX_HORIZON_SECONDS}")
    if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or not 1 <= cap <= 1_000_000):
        raise Invalid("winsorCap must be a whole number from 1 to 1000000, or null")
    return Definition(
        max(1, round(horizon * 1000)), cap, _time(body, "startedAt"), _time(body, "enrolUntil") if body.get("enrolUntil") else None
    )


def _time(body: Mapping[str, object], field: str) -> int:
    try:
        return parse_time(str(body.get(field)))
    except ValueError as error:
        raise Invalid(f"{field} must be an RFC 3339 time such as 2026-01-31T12:00:00Z") from error


class Experiments:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: dict[int, Experiment] | None = None

    def forget_cache(self) -> None:
        self._cache = None

    def all(self) -> dict[int, Experiment]:
        if self._cache is None:
            rows = self._store.db.execute("SELECT id, horizon_ms, asked_cap, started_ms, enrol_until_ms, cap FROM experiment").fetchall()
            self._cache = {row[0]: Experiment(row[0], self._store.names.text(row[0]), Definition(*row[1:5]), row[5]) for row in rows}
        return self._cache

    def put(self, name: str, definition: Definition) -> tuple[Experiment, bool]:
        """-> the experiment, and whether it is new."""
        if not EXPERIMENT.fullmatch(name):
            raise Invalid("an experiment's name has 1 to 128 of the characters A-Z a-z 0-9 . _ : -")
        existing = next((e for e in self.all().values() if e.name == name), None)
        if existing is not None:
            if existing.definition != definition:
                raise Conflict(f"experiment {name!r} exists with another definition; DELETE it first, or use another name")
            return existing, False
        crowded_out = sorted(self.all().values(), key=lambda e: (e.definition.started_ms, e.id))[: max(0, len(self.all()) - LIMIT + 1)]
        try:
            with self._store.transaction() as db:
                for oldest in crowded_out:
                    _end(db, oldest.id)
                number = self._store.names.id(name)
                if not number:
                    raise Invalid("too many experiment names")
                cap = definition.asked_cap or pre_period_cap(db, definition)
                db.execute("INSERT INTO experiment VALUES(?, ?, ?, ?, ?, ?)", (number, *definition, cap))
                _begin(db, number, definition, self._store.number("floor"))
        finally:
            self.forget_cache()
        return self.all()[number], True

    def delete(self, name: str) -> bool:
        """Its series end. The facts stay until they age out, so that the same name can be registered again."""
        existing = next((e for e in self.all().values() if e.name == name), None)
        if existing is None:
            return False
        try:
            with self._store.transaction() as db:
                _end(db, existing.id)
        finally:
            self.forget_cache()
        return True


def _end(db: sqlite3.Connection, number: int) -> None:
    db.execute("DELETE FROM experiment WHERE id = ?", (number,))
    db.execute("DELETE FROM moment WHERE experiment = ?", (number,))


def _begin(db: sqlite3.Connection, number: int, definition: Definition, floor_ms: int) -> None:
    """Moments start at zero, and users whom the log showed before the registration are queued."""
    db.executemany(
        "INSERT INTO moment VALUES(?, ?, ?, 0, 0, 0)",
        [(number, slice_, metric) for slice_ in (CONTROL, CANDIDATE) for metric in ("assigned", *METRICS)],
    )
    db.execute("DELETE FROM subject WHERE experiment = ? AND exposed_ms < ?", (number, floor_ms))  # their messages are gone
    clear = ", ".join(f"{metric} = NULL" for metric in METRICS)
    db.execute(f"UPDATE subject SET pending = 1, {clear} WHERE experiment = ?", (number,))  # noqa: S608
    db.execute(
        "UPDATE moment SET n = (SELECT count(*) FROM subject s WHERE s.experiment = moment.experiment AND s.slice = moment.slice"
        " AND s.exposed_ms >= ? AND s.exposed_ms < ?) WHERE experiment = ? AND metric = 'assigned'",
        (definition.started_ms, definition.enrol_until_ms or 1 << 62, number),
    )


def pre_period_cap(db: sqlite3.Connection, definition: Definition) -> int:
    """99.9th percentile of the depths, within one horizon of a user's first message, of users before the experiment."""
    rows = db.execute(
        "SELECT user, first_ms, answered_ms FROM message WHERE first_ms < ? AND user != 0 ORDER BY user", (definition.started_ms,)
    )
    depths = []
    for _, group in groupby(rows, key=lambda row: row[0]):
        tries = [(first, answered) for _, first, answered in group]
        end = min(first for first, _ in tries) + definition.horizon_ms
        if end <= definition.started_ms:
            depths.append(max(sum(answered is not None and answered < end for _, answered in tries) - 1, 0))
    return max(quantile(depths, CAP_QUANTILE), 1) if depths else CAP_WITHOUT_HISTORY


def quantile(values: Iterable[int], q: float) -> int:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[max(math.ceil(q * len(ordered)) - 1, 0)]
