"""Requests from the log become facts: merge each with what is known of its message and its user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from flywheel_collector.experiments import Experiments
from flywheel_collector.facts import Exposure, Message
from flywheel_collector.identity import NOBODY
from flywheel_collector.logline import GENERATION, Request
from flywheel_collector.moments import withdraw
from flywheel_collector.store import Store

DURATION_BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)
MAX_GENERATIONS = 100
"""Generations with series of their own; later ones are counted as "other"."""


class Ingest:
    def __init__(self, store: Store, experiments: Experiments) -> None:
        self._store, self._experiments = store, experiments
        self._labels: set[str] | None = None

    def forget_cache(self) -> None:
        self._labels = None

    def requests(self, requests: Iterable[Request], floor_ms: int) -> None:
        """In the caller's transaction. Facts older than the floor are counted as late and left out."""
        identity, names = self._store.identity, self._store.names
        messages: dict[tuple[int, int], Message] = {}
        exposures: dict[tuple[int, int], Exposure] = {}
        fresh: dict[int, Request] = {}
        late = 0
        for r in requests:
            request = identity.request(r.request)
            fresh.setdefault(request, r)
            if r.purpose is not None:
                continue
            if r.ms < floor_ms:
                late += 1
                continue
            user = identity.user(r.user)
            experiment = names.id(r.experiment)
            if r.message is None:
                if user == NOBODY:
                    continue
                key, conversation, answered_ms = request, 0, None
            else:
                key, conversation = identity.message(r.conversation, r.message), identity.conversation(r.user, r.conversation)
                answered_ms = r.ms if r.answered else None
            message = Message(
                user, key, conversation, r.ms, request, r.failed, r.fallback, answered_ms, experiment, r.slice, names.id(r.generation)
            )
            known = messages.get((user, key))
            messages[user, key] = message if known is None else known.merge(message)
            if r.exposes and experiment:
                exposure = Exposure(r.ms, request, r.slice)
                earlier = exposures.get((user, experiment))
                exposures[user, experiment] = exposure if earlier is None else earlier.merge(exposure)
        tallies: Counter[tuple[str, str, int]] = Counter()
        tallies["late", "", 0] += late
        self._count(fresh, tallies)
        self._merge_messages(messages, tallies)
        self._merge_exposures(exposures)
        self.touched(((message.user, message.first_ms) for message in messages.values()), floor_ms)
        self._store.add(tallies)

    def _count(self, fresh: dict[int, Request], tallies: Counter[tuple[str, str, int]]) -> None:
        """Counters of requests: once for each request id, within the time that ids are remembered."""
        db = self._store.db
        for number, r in fresh.items():
            if not db.execute("INSERT OR IGNORE INTO seen_request VALUES(?, ?)", (number, r.ms)).rowcount:
                continue
            label = self.label(r.generation)
            tallies["requests", label, r.status] += 1
            if r.duration_ms is not None:
                slot = next((i for i, limit in enumerate(DURATION_BUCKETS_MS) if r.duration_ms <= limit), len(DURATION_BUCKETS_MS))
                tallies["duration", label, slot] += 1
                tallies["duration_ms", label, 0] += r.duration_ms

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

    def _merge_messages(self, messages: dict[tuple[int, int], Message], tallies: Counter[tuple[str, str, int]]) -> None:
        db = self._store.db
        changed = []
        for place, message in messages.items():
            row = db.execute("SELECT * FROM message WHERE user = ? AND key = ?", place).fetchone()
            known = Message._make(row) if row else None
            merged = message if known is None else known.merge(message)
            if merged != known:
                changed.append(merged)
                tallies["turns", "", 0] += merged.answered_ms is not None and (known is None or known.answered_ms is None)
        db.executemany("INSERT OR REPLACE INTO message VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", changed)

    def _merge_exposures(self, exposures: dict[tuple[int, int], Exposure]) -> None:
        db = self._store.db
        registered = self._experiments.all()
        assigned: Counter[tuple[int, int]] = Counter()
        new: list[tuple[int, int, int, int, int]] = []
        earlier: list[tuple[int, int, int, int, int]] = []
        for (user, experiment), exposure in exposures.items():
            row = db.execute(
                "SELECT exposed_ms, exposed_request, slice FROM subject WHERE user = ? AND experiment = ?", (user, experiment)
            ).fetchone()
            known = Exposure._make(row) if row else None
            if known is None:
                new.append((user, experiment, exposure.slice, exposure.ms, exposure.request))
            elif exposure < known:
                earlier.append((user, experiment, exposure.slice, exposure.ms, exposure.request))
            else:
                continue
            if experiment in registered:
                definition = registered[experiment].definition
                assigned[experiment, exposure.slice] += definition.enrols(exposure.ms)
                if known is not None:
                    assigned[experiment, known.slice] -= definition.enrols(known.ms)
        db.executemany("INSERT INTO subject(user, experiment, slice, exposed_ms, exposed_request, pending) VALUES(?, ?, ?, ?, ?, 1)", new)
        for user, experiment, slice_, ms, request in earlier:
            self._reassign(user, experiment, slice_, ms, request)
        db.executemany(
            "UPDATE moment SET n = n + ? WHERE experiment = ? AND slice = ? AND metric = 'assigned'",
            [(n, *place) for place, n in assigned.items() if n],
        )

    def _reassign(self, user: int, experiment: int, slice_: int, ms: int, request: int) -> None:
        """An exposure turned out to be earlier: take the old contribution back, and queue the user again."""
        if experiment in self._experiments.all():
            withdraw(self._store.db, user, experiment)
        self._store.db.execute(
            "UPDATE subject SET slice = ?, exposed_ms = ?, exposed_request = ?, pending = 1 WHERE user = ? AND experiment = ?",
            (slice_, ms, request, user, experiment),
        )

    def touched(self, facts: Iterable[tuple[int, int]], floor_ms: int) -> None:
        """Users whose numbers were published already and who have a new fact in their window are queued again."""
        horizon = max((e.definition.horizon_ms for e in self._experiments.all().values()), default=0)
        if not horizon:
            return
        self._store.db.executemany(
            "UPDATE subject SET pending = 1 WHERE user = ? AND pending = 0 AND exposed_ms >= ? AND exposed_ms > ? - ?",
            [(user, floor_ms, ms, horizon) for user, ms in facts if user != NOBODY],
        )
