"""What was read, against what the routers say they logged, slice by slice: a loss in one arm is found by counting, not by statistics.

A router's agent writes `router.json` beside the log every second: Envoy's own counts of its lines, and the routes by revision. A count is
compared once everything that was logged before it must have been read. Lines that ended later are left out of the comparison by
their own time, so that traffic in between hides no loss. With the routes each line's slice is computed again from its user.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from flywheel_collector.logline import CANDIDATE, CONTROL, EXPERIMENT, REST, SLICES, Request
from flywheel_collector.slices import PARTS, Route
from flywheel_collector.store import Store

log = logging.getLogger(__name__)

FILE = "router.json"
MAX_BYTES = 1 << 20
SETTLE_MS = 3_000
"""A line is on the disk and read this long after it was counted: Envoy writes every 200 ms, the collector looks every 250."""
BUCKET_MS = 100
STUCK_MS = 15_000
"""A router that shows signs of life but has told nothing for so long cannot write: its log is incomplete."""
LIVING_MS = 60_000
MAX_ROUTES = 2_000

Place = tuple[int, int]
"""Experiment and slice."""


class Told(NamedTuple):
    """A router's word, and when it was first seen here."""

    time_ms: int
    seen_ms: int
    counts: dict[Place, int]


class _File(NamedTuple):
    inode: int
    mtime_ns: int


class Reconciliation:
    def __init__(self, store: Store, root: Path) -> None:
        self._store, self._root = store, root
        self._files: dict[str, _File] = {}
        self._newest: dict[str, Told] = {}
        self._waiting: dict[str, Told] = {}
        self._recent: defaultdict[str, dict[int, Counter[Place]]] = defaultdict(dict)
        self._routes: dict[int, Route] | None = None

    def forget_cache(self) -> None:
        """After a failed transaction."""
        self._files.clear()
        self._recent.clear()
        self._routes = None

    # what routers say

    def look(self, now_ms: int) -> None:
        """In a transaction of its own, if there is something new."""
        present = dict(self._changed())
        routes: dict[int, Route] = {}
        for pod, path in present.items():
            body = _load(path)
            if body is None:
                continue
            routes |= _routes(body)
            self._newest[pod] = told = Told(_whole(body.get("time_ms")), now_ms, self._numbers(_counts(body)))
            self._waiting.setdefault(pod, told)
        new = {revision: route for revision, route in routes.items() if self.routes().get(revision) != route}
        if new:
            with self._store.transaction() as db:
                db.executemany("INSERT OR REPLACE INTO route VALUES(?, ?, ?, ?)", [(revision, *route) for revision, route in new.items()])
                db.execute(
                    "DELETE FROM route WHERE revision NOT IN (SELECT revision FROM route ORDER BY revision DESC LIMIT ?)", (MAX_ROUTES,)
                )
            self._routes = None

    def _changed(self) -> Iterator[tuple[str, str]]:
        alive = set()
        for pod in os.scandir(self._root):
            path = os.path.join(pod.path, FILE)
            try:
                stat = os.stat(path, follow_symlinks=False)
            except OSError:
                continue
            alive.add(pod.name)
            seen = _File(stat.st_ino, stat.st_mtime_ns)
            if self._files.get(pod.name) != seen:
                self._files[pod.name] = seen
                yield pod.name, path
        for gone in self._files.keys() - alive:
            del self._files[gone]
            self._newest.pop(gone, None)
            self._waiting.pop(gone, None)
            self._recent.pop(gone, None)

    def _numbers(self, counts: dict[tuple[str, int], int]) -> dict[Place, int]:
        if any(self._store.names.known(experiment) is None for experiment, _ in counts):
            with self._store.transaction():
                return {(self._store.names.id(experiment), slice_): n for (experiment, slice_), n in counts.items()}
        return {(self._store.names.id(experiment), slice_): n for (experiment, slice_), n in counts.items()}

    def routes(self) -> dict[int, Route]:
        if self._routes is None:
            self._routes = {row[0]: Route(*row[1:]) for row in self._store.db.execute("SELECT * FROM route")}
        return self._routes

    def stuck_since(self, now_ms: int) -> int | None:
        """When a router that lives could last say what it logged; None if all can."""
        stuck = [
            told.time_ms
            for pod, told in self._newest.items()
            if now_ms - self._files[pod].mtime_ns // 1_000_000 < LIVING_MS
            and self._files[pod].mtime_ns // 1_000_000 - told.time_ms > STUCK_MS
        ]
        return min(stuck, default=None)

    # what was read

    def take(self, db: sqlite3.Connection, requests: Iterable[tuple[str, Request]], now_ms: int) -> None:
        """Lines as they were read, with their pods, duplicates included; in the transaction that moves the offset."""
        counts: Counter[tuple[str, str, int]] = Counter()
        checked: Counter[tuple[str, int]] = Counter()
        wrong: Counter[tuple[str, int]] = Counter()
        routes, since_ms = self.routes(), now_ms - 60_000
        number = self._store.names.id
        for pod, r in requests:
            counts[pod, r.experiment, r.slice] += 1
            end_ms = r.ms + (r.duration_ms or 0)
            if end_ms > since_ms:
                bucket = self._recent[pod].setdefault(end_ms // BUCKET_MS, Counter())
                bucket[number(r.experiment), r.slice] += 1
            if r.user is not None and r.purpose is None and r.slice in (CONTROL, CANDIDATE, REST):
                route = routes.get(r.revision)
                if route is not None and route.experiment == r.experiment:
                    place = r.experiment, r.slice
                    checked[place] += 1
                    wrong[place] += route.slice(r.user) != r.slice
        db.executemany(
            "INSERT INTO line_count VALUES(?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(pod, number(experiment), slice_, n) for (pod, experiment, slice_), n in counts.items()],
        )
        db.executemany(
            "INSERT INTO misassigned VALUES(?, ?, ?, ?) ON CONFLICT DO UPDATE SET checked = checked + excluded.checked,"
            " wrong = wrong + excluded.wrong",
            [(number(experiment), slice_, n, wrong[experiment, slice_]) for (experiment, slice_), n in checked.items()],
        )

    def settle(self, db: sqlite3.Connection, now_ms: int) -> None:
        """Compare what can be compared: the caller has read everything there was to read."""
        for pod, told in list(self._waiting.items()):
            if told.seen_ms > now_ms:  # the clock was set back
                self._waiting[pod] = told._replace(seen_ms=now_ms)
            if now_ms - told.seen_ms < SETTLE_MS:
                continue
            recent = self._recent[pod]
            after: Counter[Place] = Counter()
            for bucket, counts in recent.items():
                if bucket > told.time_ms // BUCKET_MS:
                    after.update(counts)
            read = {
                (experiment, slice_): n
                for experiment, slice_, n in db.execute("SELECT experiment, slice, n FROM line_count WHERE pod = ?", (pod,))
            }
            db.executemany(
                "INSERT OR REPLACE INTO reconciled VALUES(?, ?, ?, ?, ?)",
                [(pod, *place, counted, max(0, counted - read.get(place, 0) + after[place])) for place, counted in told.counts.items()],
            )
            newest = self._newest.get(pod, told)
            self._recent[pod] = {bucket: counts for bucket, counts in recent.items() if bucket > told.time_ms // BUCKET_MS}
            if newest is told:
                del self._waiting[pod]
            else:
                self._waiting[pod] = newest


def _load(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            body = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s can't be read: %s", path, error)
        return None
    return body if isinstance(body, dict) else None


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 53 else 0


def _counts(body: dict[str, Any]) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    requests = body.get("requests")
    for experiment, slices in requests.items() if isinstance(requests, dict) else ():
        if isinstance(slices, dict) and (experiment == "" or EXPERIMENT.fullmatch(experiment)):
            for slice_, n in slices.items():
                number = SLICES.index(slice_) if slice_ in SLICES else 0
                found[experiment, number] = found.get((experiment, number), 0) + _whole(n)
    return found


def _routes(body: dict[str, Any]) -> dict[int, Route]:
    found: dict[int, Route] = {}
    routes = body.get("routes")
    for revision, route in routes.items() if isinstance(routes, dict) else ():
        if not isinstance(route, dict) or not revision.isdecimal():
            continue
        experiment, salt, weight = route.get("experiment"), route.get("salt"), route.get("weightPercent")
        if not experiment:
            found[int(revision)] = Route("", "", 0)
        elif isinstance(experiment, str) and isinstance(salt, str) and isinstance(weight, int | float) and 0 <= weight <= 50:
            found[int(revision)] = Route(experiment, salt, round(weight * PARTS / 100))
    return found
