"""One pass of the collector: read the logs, merge, mature, publish, write what is idle, forget what is old. Time is an argument."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flywheel_collector.conversations import Conversations
from flywheel_collector.deletion import Deletion
from flywheel_collector.disk import LEAN_BYTES, Reserve, is_full
from flywheel_collector.events import Refused, parse_body, parse_event
from flywheel_collector.experiments import Definition, Experiment, Experiments
from flywheel_collector.ingest import Ingest
from flywheel_collector.logline import Malformed, Request, parse
from flywheel_collector.mature import mature
from flywheel_collector.reconcile import Reconciliation
from flywheel_collector.retention import floor_for, forget
from flywheel_collector.signals import Signals
from flywheel_collector.store import Store
from flywheel_collector.tail import Chunk, Place, Tail

log = logging.getLogger(__name__)

SKEW_MS = 300_000
"""A line of the log further in the future than this is malformed."""
FORGET_EVERY_MS = 10_000
RARE_EVERY_MS = 3_600_000
REMOVE_EVERY_MS = 2_000


class Options(NamedTuple):
    flywheel: str
    logs: Path
    data: Path
    state: str
    idle_ms: int = 300_000
    grace_ms: int = 2_000
    """A user is counted this much later than the horizon: lines are logged when a request ends. Later ones correct the moments."""
    retention_ms: int = 172_800_000
    budget: int = 1 << 20
    """Bytes of log a pass reads."""
    durable: bool = True
    namespace: str = "default"
    reserve_bytes: int = 16 << 20
    """Given up when the disk is full, so that what was logged can still be taken."""


class Taken(NamedTuple):
    accepted: int
    duplicate: int
    rejected: list[dict[str, object]]


class Collector:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.store = Store(options.state, durable=options.durable)
        self.experiments = Experiments(self.store)
        self._ingest = Ingest(self.store, self.experiments)
        self._signals = Signals(self.store, self._ingest, options.idle_ms)
        self._conversations = Conversations(self.store, options.data, options.flywheel, options.idle_ms)
        self._tail = Tail(options.logs, options.budget)
        self.reconciliation = Reconciliation(self.store, options.logs)
        self.deletion = Deletion(self.store, self.experiments, options.data)
        self.reserve = Reserve(Path(options.state + ".reserve"), options.reserve_bytes)
        self.reserve.restore()
        self._offsets: dict[Place, int] = {
            Place(pod, head): offset for pod, head, offset in self.store.db.execute("SELECT pod, head, offset FROM log_file")
        }
        self._last_read_ms: dict[Place, int] = {}
        self._forgot_ms = self._rarely_ms = self._removed_ms = 0
        self.watermark_ms = 0
        """Everything the router logged up to here has been taken; 0 before the first pass."""
        self.lag_ms = 0
        self.file_problem: str | None = None
        """Why conversations cannot be written; the numbers go on."""

    def tick(self, now_ms: int) -> bool:
        """One pass; -> whether there is more to do at once."""
        try:
            self.reconciliation.look(now_ms)
            read_ms, more = self._read(now_ms)
            full = self._settle(now_ms, read_ms, caught_up=not more)
        except BaseException as error:
            if is_full(error):
                self.reserve.spend()
            self._forget_caches()
            raise
        self.watermark_ms, self.lag_ms = read_ms, now_ms - read_ms
        more_files = self._files(now_ms, read_ms)
        return more or full or more_files

    def _forget_caches(self) -> None:
        self.experiments.forget_cache()
        self._ingest.forget_cache()
        self.reconciliation.forget_cache()
        self._tail.reread()

    def _settle(self, now_ms: int, read_ms: int, *, caught_up: bool) -> bool:
        """-> whether more users wait to be counted."""
        with self.store.transaction() as db:
            experiments = list(self.experiments.all().values())
            taken = [mature(db, experiment, read_ms - self.options.grace_ms) for experiment in experiments]
            if caught_up:
                self.reconciliation.settle(db, now_ms)
            self._forget(db, now_ms, read_ms)
        if any(n and experiment.first_ms is None for n, experiment in zip(taken, experiments, strict=True)):
            self.experiments.forget_cache()
        return any(n >= 5000 for n in taken)

    def _files(self, now_ms: int, read_ms: int) -> bool:
        """What is done to files beside the numbers, and does not keep them: -> whether there is more."""
        try:
            self._conversations.flush(now_ms, read_ms)
            more = self.deletion.step()
            self._remove(now_ms)
        except OSError as error:
            if is_full(error):
                self.reserve.spend()
            if self.file_problem != repr(error):
                log.exception("conversations cannot be written; it is tried again")
            self.file_problem = repr(error)
            return False
        self.file_problem = None
        return more

    def _remove(self, now_ms: int) -> None:
        """Logs that are read. Their offsets go after them: a death in between leaves a row that no file answers to."""
        if 0 <= now_ms - self._removed_ms < REMOVE_EVERY_MS:
            return
        self._removed_ms = now_ms
        removed = self._tail.remove_read(self._offsets, now_ms)
        self.reserve.restore()
        if removed.places or removed.torn:
            with self.store.transaction() as db:
                db.executemany("DELETE FROM log_file WHERE pod = ? AND head = ?", removed.places)
                self.store.count("malformed", removed.torn)
            for place in removed.places:
                self._offsets.pop(place, None)
                self._last_read_ms.pop(place, None)

    # the log

    def _read(self, now_ms: int) -> tuple[int, bool]:
        """-> up to when everything was read, and whether there is more."""
        chunks = self._tail.read(self._offsets, LEAN_BYTES if self.reserve.spent else None)
        if chunks:
            with self.store.transaction() as db:
                self._take(db, chunks, now_ms)
            self._offsets.update((chunk.place, chunk.offset) for chunk in chunks)
        behind = [self._last_read_ms.get(chunk.place, 0) for chunk in chunks if chunk.behind]
        return (min(now_ms, *behind) if behind else now_ms), bool(behind)

    def _take(self, db: sqlite3.Connection, chunks: list[Chunk], now_ms: int) -> None:
        requests: list[tuple[str, Request]] = []
        malformed = 0
        for chunk in chunks:
            for line in chunk.lines:
                try:
                    request = parse(line)
                    if request.ms > now_ms + SKEW_MS:
                        raise Malformed("from the future")
                except Malformed:
                    malformed += 1
                    continue
                requests.append((chunk.place.pod, request))
                self._last_read_ms[chunk.place] = request.ms
        self._ingest.requests((request for _, request in requests), self.floor_ms, self.deletion.until)
        self.reconciliation.take(db, requests, now_ms)
        newest = max((request.ms for _, request in requests), default=0)
        self.store.set_number("newest", max(newest, self.store.number("newest")))
        self.store.add(Counter({("malformed", "", 0): malformed}))
        db.executemany(
            "INSERT INTO log_file VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET offset = excluded.offset",
            [(*chunk.place, chunk.offset) for chunk in chunks],
        )

    # the past

    @property
    def floor_ms(self) -> int:
        return self.store.number("floor")

    def _forget(self, db: sqlite3.Connection, now_ms: int, read_ms: int) -> None:
        if 0 <= now_ms - self._forgot_ms < FORGET_EVERY_MS:
            return
        self._forgot_ms = now_ms
        rare = not 0 <= now_ms - self._rarely_ms < RARE_EVERY_MS
        self._rarely_ms = now_ms if rare else self._rarely_ms
        # By the log's own time as well as by the clock: a clock that jumps ahead must not empty the memory.
        seen_ms = min(read_ms, self.store.number("newest"))
        horizon_ms = max((e.definition.reach_ms for e in self.experiments.all().values()), default=0)
        floor_ms = max(floor_for(seen_ms, self.options.retention_ms, horizon_ms), self.floor_ms)
        self.store.set_number("floor", floor_ms)
        forget(db, floor_ms, seen_ms, rare=rare)

    # the API

    def post_events(self, body: bytes, now_ms: int) -> Taken:
        """Raises Refused when the body as a whole is not usable."""
        values = parse_body(body)
        good, rejected = [], []
        oldest_ms = max(self.floor_ms, now_ms - self.options.retention_ms)
        for index, value in enumerate(values):
            try:
                good.append(parse_event(value, now_ms, oldest_ms))
            except Refused as error:
                rejected.append({"index": index, "error": str(error)})
        with self.store.transaction():
            accepted = self._signals.take(good, now_ms, self.floor_ms, self.deletion.until)
            self.store.count("event_rejected", len(rejected))
        return Taken(accepted, len(good) - accepted, rejected)

    def put_experiment(self, name: str, definition: Definition) -> tuple[Experiment, bool]:
        return self.experiments.put(name, definition)

    def delete_user(self, user: str, now_ms: int) -> None:
        self.deletion.delete(user, now_ms)

    def updated_ms(self) -> int:
        """Up to when the log is known to be complete; 0: not yet."""
        stuck_ms = self.reconciliation.stuck_since(self.watermark_ms + self.lag_ms)
        return self.watermark_ms if stuck_ms is None else min(self.watermark_ms, stuck_ms)

    def delete_experiment(self, name: str) -> bool:
        return self.experiments.delete(name)

    def tallies(self) -> Mapping[tuple[str, str, int], int]:
        return {(name, generation, slot): n for name, generation, slot, n in self.store.db.execute("SELECT * FROM tally")}

    def close(self, now_ms: int) -> None:
        """A last pass, so that what the router has logged is on the disk as numbers."""
        try:
            while self.tick(now_ms):
                pass
        finally:
            self.store.close()
