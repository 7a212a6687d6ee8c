"""What the operator registered: horizon, winsor cap, start and end of enrolment of each experiment."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from flywheel_collector.clock import parse_time
from flywheel_collector.logline import CANDIDATE, CONTROL, EXPERIMENT, SEGMENT
from flywheel_collector.outcome import KNOWN, MESSAGES, METRICS
from flywheel_collector.store import Store

LIMIT = 64
"""Experiments at a time, so that series stay few; the next one takes the place of the one that began first."""
MAX_HORIZON_SECONDS = 30 * 86400
CAP_QUANTILE = 0.999
CAP_WITHOUT_HISTORY = 100
MAX_SEGMENTS = 8


class Invalid(ValueError):
    """The definition is refused; the message says why."""


class Conflict(ValueError):
    """The experiment exists with another definition."""


class Definition(NamedTuple):
    horizon_ms: int
    asked_cap: int | None
    started_ms: int
    enrol_until_ms: int | None
    covariate_ms: int | None = None
    """Length of the period before a user's exposure in which his covariate is counted."""
    segments: tuple[str, ...] = ()
    early_ms: int | None = None
    """Users exposed less than this after the first of all are `early`, the others `late`."""
    burn_in_ms: int = 0
    """Users exposed less than this after the first of all never mature."""

    @property
    def reach_ms(self) -> int:
        """From the oldest fact of a user that counts to the newest."""
        return self.horizon_ms + (self.covariate_ms or 0)

    def enrols(self, exposed_ms: int) -> bool:
        return self.started_ms <= exposed_ms and (self.enrol_until_ms is None or exposed_ms < self.enrol_until_ms)


class Experiment(NamedTuple):
    id: int
    name: str
    definition: Definition
    cap: int
    first_ms: int | None = None
    """The first exposure of all, fixed when the first user matured."""

    def matures(self, exposed_ms: int) -> bool:
        if not self.definition.enrols(exposed_ms):
            return False
        burn_in_ms = self.definition.burn_in_ms
        return not burn_in_ms or self.first_ms is None or exposed_ms >= self.first_ms + burn_in_ms


def parse_definition(body: object) -> Definition:
    if not isinstance(body, Mapping):
        raise Invalid("the body must be an object")
    unknown = set(body) - {"horizonSeconds", "winsorCap", "startedAt", "enrolUntil", *_OPTIONAL}
    if unknown:
        raise Invalid(f"unknown field {sorted(map(str, unknown))[0]!r}")
    horizon, cap = body.get("horizonSeconds"), body.get("winsorCap")
    if isinstance(horizon, bool) or not isinstance(horizon, int | float) or not 0 < horizon <= MAX_HORIZON_SECONDS:
        raise Invalid(f"horizonSeconds must be a number above 0 and at most {MAX_HORIZON_SECONDS}")
    if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or not 1 <= cap <= 1_000_000):
        raise Invalid("winsorCap must be a whole number from 1 to 1000000, or null")
    enrol_until_ms = _time(body, "enrolUntil") if body.get("enrolUntil") else None
    return Definition(max(1, round(horizon * 1000)), cap, _time(body, "startedAt"), enrol_until_ms, *_optional(body))


_OPTIONAL = ("covariateSeconds", "segments", "earlySeconds", "burnInSeconds")


def _optional(body: Mapping[str, object]) -> tuple[int | None, tuple[str, ...], int | None, int]:
    covariate_ms, early_ms = _seconds(body, "covariateSeconds"), _seconds(body, "earlySeconds")
    burn_in_ms = _seconds(body, "burnInSeconds", zero=True) or 0
    names = body.get("segments", [])
    if not isinstance(names, list) or len(names) > MAX_SEGMENTS or ("segments" in body and not names):
        raise Invalid(f"segments must be a list of 1 to {MAX_SEGMENTS} names")
    for name in names:
        if not isinstance(name, str) or not SEGMENT.fullmatch(name):
            raise Invalid("segments: a name has 1 to 63 of the characters a-z 0-9 -, and begins and ends with one of a-z 0-9")
    if len(set(names)) != len(names):
        raise Invalid("segments: a name is there twice")
    if covariate_ms is None and {"known", "new"} & set(names):
        raise Invalid("segments known and new need covariateSeconds")
    if (early_ms is None) == bool({"early", "late"} & set(names)):
        raise Invalid("earlySeconds goes with segments early and late: neither is of use without the other")
    return covariate_ms, tuple(names), early_ms, burn_in_ms


def _seconds(body: Mapping[str, object], field: str, *, zero: bool = False) -> int | None:
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_HORIZON_SECONDS or not (value or zero):
        raise Invalid(f"{field} must be a number {'from 0' if zero else 'above 0'} and at most {MAX_HORIZON_SECONDS}")
    return round(value * 1000) if zero else max(1, round(value * 1000))


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
            rows = self._store.db.execute(
                "SELECT id, horizon_ms, asked_cap, started_ms, enrol_until_ms, extra, cap, first_ms FROM experiment"
            ).fetchall()
            self._cache = {
                row[0]: Experiment(row[0], self._store.names.text(row[0]), _definition(row[1:5], json.loads(row[5])), row[6], row[7])
                for row in rows
            }
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
                extra = {name: value for name, value in definition._asdict().items() if name not in Definition._fields[:4]}
                db.execute("INSERT INTO experiment VALUES(?, ?, ?, ?, ?, ?, ?, NULL)", (number, *definition[:4], cap, json.dumps(extra)))
                _begin(db, Experiment(number, name, definition, cap), self._store.number("floor"))
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


def _definition(columns: Sequence[Any], extra: Mapping[str, Any]) -> Definition:
    return Definition(*columns, **{**extra, "segments": tuple(extra.get("segments", ()))})


def _end(db: sqlite3.Connection, number: int) -> None:
    db.execute("DELETE FROM experiment WHERE id = ?", (number,))
    for table in ("moment", "stratum"):
        db.execute(f"DELETE FROM {table} WHERE experiment = ?", (number,))  # noqa: S608


def _begin(db: sqlite3.Connection, experiment: Experiment, floor_ms: int) -> None:
    """Everything that is published stands at zero, and users whom the log showed before the registration are queued."""
    number, definition = experiment.id, experiment.definition
    places = [(number, slice_, metric) for slice_ in (CONTROL, CANDIDATE) for metric in METRICS]
    db.executemany(
        "INSERT INTO moment VALUES(?, ?, ?, 0, 0, 0)", [*places, *((number, slice_, "assigned") for slice_ in (CONTROL, CANDIDATE))]
    )
    strata = [MESSAGES, *([KNOWN] if definition.covariate_ms else []), *definition.segments]
    db.executemany(
        "INSERT INTO stratum(experiment, slice, metric, name) VALUES(?, ?, ?, ?)", [(*place, name) for place in places for name in strata]
    )
    db.execute("DELETE FROM subject WHERE experiment = ? AND exposed_ms < ?", (number, floor_ms))  # their messages are gone
    clear = ", ".join(f"{column} = NULL" for column in (*METRICS, "messages", "covariate"))
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
