"""Requests from the log become facts: merge each with what is known of its message and its user.

What is known of a batch is looked up at once, through a scratch table: a query for each line would cost more than all the rest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

from flywheel_collector.experiments import Experiments
from flywheel_collector.facts import Exposure, Message
from flywheel_collector.identity import NOBODY
from flywheel_collector.logline import GENERATION, Request
from flywheel_collector.moments import withdraw
from flywheel_collector.store import Store

DURATION_BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)
MAX_GENERATIONS = 100
"""Generations with series of their own; later ones are counted as "other"."""

_SEEN = "SELECT b.request FROM temp.batch b CROSS JOIN request_id r ON r.ms = b.ms AND r.id = b.request"
_MESSAGES = "SELECT m.* FROM temp.batch b CROSS JOIN message m ON m.user = b.user AND m.key = b.key"
_EXPOSURES = """SELECT s.user, s.experiment, s.exposed_ms, s.exposed_request, s.slice, s.segment FROM temp.batch b
    CROSS JOIN subject s ON s.user = b.user AND s.experiment = b.experiment"""
_TOUCH = """UPDATE subject SET pending = 1 FROM temp.batch b
    WHERE subject.user = b.user AND pending = 0 AND exposed_ms >= ? AND exposed_ms > b.ms - ? AND b.user != 0"""

Tallies = Counter[tuple[str, str, int]]


class Ingest:
    def __init__(self, store: Store, experiments: Experiments) -> None:
        self._store, self._experiments = store, experiments
        self._labels: set[str] | None = None

    def forget_cache(self) -> None:
        self._labels = None

    def requests(self, requests: Iterable[Request], floor_ms: int, deleted: Mapping[int, int]) -> None:
        """In the caller's transaction. Facts older than the floor are late; these are left out, and what deleted users did until then."""
        identity, names = self._store.identity, self._store.names
        messages: dict[tuple[int, int], Message] = {}
        exposures: dict[tuple[int, int], Exposure] = {}
        fresh: dict[int, Request] = {}
        batch: list[tuple[int, int, int, int, int]] = []
        late = 0
        for r in requests:
            request, ms = identity.request(r.request), r.ms
            fresh.setdefault(request, r)
            user = identity.user(r.user)
            if r.purpose is not None or ms < floor_ms or ms <= deleted.get(user, -1):
                late += r.purpose is None and ms < floor_ms
                batch.append((NOBODY, 0, ms, request, 0))
                continue
            experiment = names.id(r.experiment)
            if r.message is None:
                if user == NOBODY:
                    batch.append((NOBODY, 0, ms, request, 0))
                    continue
                key, conversation, answered_ms = request, 0, None
            else:
                key, conversation = identity.message(r.conversation, r.message), identity.conversation(r.user, r.conversation)
                answered_ms = ms if 200 <= r.status < 300 else None
            message = Message(
                user,
                key,
                conversation,
                ms,
                request,
                r.failed,
                r.fallback,
                answered_ms,
                experiment,
                r.slice,
                names.id(r.generation),
                r.revision,
            )
            batch.append((user, key, ms, request, experiment))
            known = messages.get((user, key))
            messages[user, key] = message if known is None else known.merge(message)
            if experiment and r.exposes:
                exposure = Exposure(ms, request, r.slice, r.segment)
                earlier = exposures.get((user, experiment))
                exposures[user, experiment] = exposure if earlier is None else earlier.merge(exposure)
        tallies: Tallies = Counter()
        tallies["late", "", 0] += late
        self._look_up(batch)
        self._count(fresh, tallies)
        self._merge_messages(messages, tallies)
        self._merge_exposures(exposures)
        self._touch(floor_ms)
        self._store.add(tallies)

    def _look_up(self, batch: Iterable[tuple[int, int, int, int, int]]) -> None:
        self._store.db.execute("DELETE FROM temp.batch")
        self._store.db.executemany("INSERT INTO temp.batch VALUES(?, ?, ?, ?, ?)", batch)

    def _count(self, fresh: dict[int, Request], tallies: Tallies) -> None:
        """Counters of requests: once for each request id, within the time that ids are remembered."""
        db = self._store.db
        for (number,) in db.execute(_SEEN):
            fresh.pop(number, None)
        db.executemany("INSERT INTO request_id VALUES(?, ?)", sorted((r.ms, number) for number, r in fresh.items()))
        requests: Counter[tuple[str, int]] = Counter()
        for r in fresh.values():
            requests[r.generation, r.status] += 1
            if r.duration_ms is not None:
                tallies["duration", r.generation, bisect_left(DURATION_BUCKETS_MS, r.duration_ms)] += 1
                tallies["duration_ms", r.generation, 0] += r.duration_ms
        for (generation, status), n in requests.items():
            tallies["requests", generation, status] += n
        self._label(tallies)

    def _label(self, tallies: Tallies) -> None:
        """Generations as they are shown."""
        for (name, generation, slot), n in list(tallies.items()):
            if name in ("requests", "duration", "duration_ms") and (label := self.label(generation)) != generation:
                del tallies[name, generation, slot]
                tallies[name, label, slot] += n

    def label(self, generation: str) -> str:
        if self._labels is None:
            self._labels = {row[0] for row in self._store.db.execute("SELECT DISTINCT generation FROM tally WHERE name = 'requests'")}
        if generation in self._labels:
            return generation
        if not GENERATION.fullmatch(generation):
            return "none"
        if len(self._labels) >= MAX_GENERATIONS:
            return "other"
        self._labels.add(generation)
        return generation

    def _merge_messages(self, messages: dict[tuple[int, int], Message], tallies: Tallies) -> None:
        db = self._store.db
        known = {(row[0], row[1]): Message._make(row) for row in db.execute(_MESSAGES)}
        changed = []
        turns = 0
        for place in sorted(messages):
            message, before = messages[place], known.get(place)
            merged = message if before is None else before.merge(message)
            if merged != before:
                changed.append(merged)
                turns += merged.answered_ms is not None and (before is None or before.answered_ms is None)
        tallies["turns", "", 0] += turns
        db.executemany("INSERT OR REPLACE INTO message VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", changed)

    def _merge_exposures(self, exposures: dict[tuple[int, int], Exposure]) -> None:
        db = self._store.db
        registered = self._experiments.all()
        found = {
            (user, experiment): Exposure(ms, request, slice_, segment or "")
            for user, experiment, ms, request, slice_, segment in db.execute(_EXPOSURES)
        }
        assigned: Counter[tuple[int, int]] = Counter()
        new: list[tuple[int, int, int, int, int, str | None]] = []
        earlier: list[tuple[int, int, Exposure]] = []
        for user, experiment in sorted(exposures):
            exposure, known = exposures[user, experiment], found.get((user, experiment))
            if known is None:
                new.append((user, experiment, exposure.slice, exposure.ms, exposure.request, exposure.segment or None))
            elif exposure < known:
                earlier.append((user, experiment, exposure))
            else:
                continue
            if experiment in registered:
                definition = registered[experiment].definition
                assigned[experiment, exposure.slice] += definition.enrols(exposure.ms)
                if known is not None:
                    assigned[experiment, known.slice] -= definition.enrols(known.ms)
        db.executemany(
            "INSERT INTO subject(user, experiment, slice, exposed_ms, exposed_request, segment, pending) VALUES(?, ?, ?, ?, ?, ?, 1)", new
        )
        for user, experiment, exposure in earlier:
            self._reassign(user, experiment, exposure)
        db.executemany(
            "UPDATE moment SET n = n + ? WHERE experiment = ? AND slice = ? AND metric = 'assigned'",
            [(n, *place) for place, n in assigned.items() if n],
        )

    def _reassign(self, user: int, experiment: int, exposure: Exposure) -> None:
        """An exposure turned out to be earlier: take the old contribution back, and queue the user again."""
        if experiment in (registered := self._experiments.all()):
            withdraw(self._store.db, user, registered[experiment])
        self._store.db.execute(
            "UPDATE subject SET slice = ?, exposed_ms = ?, exposed_request = ?, segment = ?, pending = 1 WHERE user = ? AND experiment = ?",
            (exposure.slice, exposure.ms, exposure.request, exposure.segment or None, user, experiment),
        )

    def touched(self, facts: Iterable[tuple[int, int]], floor_ms: int) -> None:
        """Users whose numbers were published already and who have a new fact in their window are queued again."""
        self._look_up((user, 0, ms, 0, 0) for user, ms in facts)
        self._touch(floor_ms)

    def _touch(self, floor_ms: int) -> None:
        horizon = max((e.definition.horizon_ms for e in self._experiments.all().values()), default=0)
        if horizon:
            self._store.db.execute(_TOUCH, (floor_ms, horizon))
