"""Accepted events become facts: thumbs and the like, and the text of turns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from flywheel_collector.events import Event, Turn
from flywheel_collector.ingest import Ingest
from flywheel_collector.scrub import scrub, scrub_strings
from flywheel_collector.store import Store


class Signals:
    def __init__(self, store: Store, ingest: Ingest, idle_ms: int) -> None:
        self._store, self._ingest, self._idle_ms = store, ingest, idle_ms

    def take(self, events: Sequence[Event], now_ms: int, floor_ms: int, deleted: Mapping[int, int]) -> int:
        """In the caller's transaction; -> how many were new."""
        db, identity = self._store.db, self._store.identity
        new: Counter[tuple[str, str, int]] = Counter()
        touched = []
        for event in events:
            number = identity.event(event.id)
            if not db.execute("INSERT OR IGNORE INTO seen_event VALUES(?, ?)", (number, event.ms)).rowcount:
                continue
            new[f"event:{event.type}", "", 0] += 1
            user, key = identity.user(event.user), identity.message(event.conversation, event.message)
            if event.ms <= deleted.get(user, -1):
                continue  # known, and forgotten
            if event.turn is None:
                db.execute(
                    "INSERT INTO signal VALUES(?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                    " first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms)",
                    (user, key, event.type, event.ms, event.ms),
                )
                touched.append((user, event.ms))
            else:
                self._keep_text(event, event.turn, user, key, number, now_ms)
        self._ingest.touched(touched, floor_ms)
        self._store.add(new)
        return new.total()

    def _keep_text(self, event: Event, turn: Turn, user: int, key: int, number: int, now_ms: int) -> None:
        """The latest response to a message wins; text that is on its way to Parquet is left as it is."""
        db = self._store.db
        conversation = self._store.identity.conversation(event.user, event.conversation)
        body = {
            "conversation_id": event.conversation,
            "message_id": event.message,
            "messages": [{"role": said.role, "content": scrub(said.content)} for said in turn.messages],
            "response": scrub(turn.response),
            "sampling": json.dumps(scrub_strings(json.loads(turn.sampling)), separators=(",", ":")),
        }
        db.execute(
            "INSERT INTO utterance(conversation, key, user, ms, event, responses, body) VALUES(?, ?, ?, ?, ?, 1, ?)"
            " ON CONFLICT DO UPDATE SET responses = responses + 1,"
            " body = CASE WHEN (excluded.ms, excluded.event) > (ms, event) THEN excluded.body ELSE body END, ms = max(ms, excluded.ms),"
            " event = CASE WHEN (excluded.ms, excluded.event) > (ms, event) THEN excluded.event ELSE event END WHERE file IS NULL",
            (conversation, key, user, event.ms, number, json.dumps(body, ensure_ascii=False)),
        )
        db.execute(
            "INSERT INTO conversation VALUES(?, ?, 0) ON CONFLICT DO UPDATE SET due_ms = max(coalesce(due_ms, 0), excluded.due_ms)",
            (conversation, now_ms + self._idle_ms),
        )
