"""One pass of the collector: read the logs, merge, mature, publish, write what is idle, forget what is old. Time is an argument."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flywheel_collector.conversations import Conversations
from flywheel_collector.events import Refused, parse_body, parse_event
from flywheel_collector.experiments import Definition, Experiment, Experiments
from flywheel_collector.ingest import Ingest
from flywheel_collector.logline import Malformed, Request, parse
from flywheel_collector.mature import mature
from flywheel_collector.retention import floor_for, forget
from flywheel_collector.signals import Signals
from flywheel_collector.store import Store
from flywheel_collector.tail import Chunk, Place, Tail

log = logging.getLogger(__name__)

SKEW_MS = 300_000
"""A line of the log further in the future than this is malformed."""
FORGET_EVERY_MS = 10_000
RARE_EVERY_MS = 3_600_000


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
        self._offsets: dict[Place, int] = {
            Place(pod, head): offset for pod, head, offset in self.store.db.execute("SELECT pod, head, offset FROM log_file")
        }
        self._last_read_ms: dict[Place, int] = {}
        self._forgot_ms = self._rarely_ms = 0
        self.watermark_ms = 0
        """Everything the router logged up to here has been taken; 0 before the first pass."""
        self.lag_ms = 0

    def tick(self, now_ms: int) -> bool:
        """One pass; -> whether there is more to do at once."""
        try:
            more = self._read(now_ms)
            with self.store.transaction() as db:
                full = [mature(db, experiment, self.watermark_ms - self.options.grace_ms) for experiment in self.experiments.all().values()]
                self._forget(db, now_ms)
        except BaseException:
            self._forget_caches()
            raise
        self._conversations.flush(now_ms)
        return more or any(taken >= 5000 for taken in full)

    def _forget_caches(self) -> None:
        self.experiments.forget_cache()
        self._ingest.forget_cache()
        self._tail.reread()

    # the log

    def _read(self, now_ms: int) -> bool:
        chunks = self._tail.read(self._offsets)
        if chunks:
            with self.store.transaction() as db:
                self._take(db, chunks, now_ms)
            self._offsets.update((chunk.place, chunk.offset) for chunk in chunks)
        behind = [self._last_read_ms.get(chunk.place, 0) for chunk in chunks if chunk.behind]
        self.watermark_ms = min(now_ms, *behind) if behind else now_ms
        self.lag_ms = now_ms - self.watermark_ms
        return bool(behind)

    def _take(self, db: sqlite3.Connection, chunks: list[Chunk], now_ms: int) -> None:
        requests: list[Request] = []
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
                requests.append(request)
                self._last_read_ms[chunk.place] = request.ms
        self._ingest.requests(requests, self.floor_ms)
        newest = max((request.ms for request in requests), default=0)
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

    def _forget(self, db: sqlite3.Connection, now_ms: int) -> None:
        if 0 <= now_ms - self._forgot_ms < FORGET_EVERY_MS:
            return
        self._forgot_ms = now_ms
        rare = not 0 <= now_ms - self._rarely_ms < RARE_EVERY_MS
        self._rarely_ms = now_ms if rare else self._rarely_ms
        # By the log's own time as well as by the clock: a clock that jumps ahead must not empty the memory.
        seen_ms = min(self.watermark_ms, self.store.number("newest"))
        horizon_ms = max((e.definition.horizon_ms for e in self.experiments.all().values()), default=0)
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
            accepted = self._signals.take(good, now_ms, self.floor_ms)
            self.store.count("event_rejected", len(rejected))
        return Taken(accepted, len(good) - accepted, rejected)

    def put_experiment(self, name: str, definition: Definition) -> tuple[Experiment, bool]:
        return self.experiments.put(name, definition)

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
