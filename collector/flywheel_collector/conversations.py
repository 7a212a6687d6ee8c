"""Idle conversations leave for Parquet: one row a turn, joined with what the log says of its message (ARCHITECTURE §4).

Three steps, so that a kill between any two writes nothing twice: *freeze* the rows and choose their file (a transaction), *write* the file
from the frozen rows (temporary name, fsync, rename; doing it again gives the same file), *release* the text (a transaction).
Text whose message never shows up in the log is dropped and counted: nobody can post conversations that did not happen.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_collector.clock import as_datetime
from flywheel_collector.facts import Message
from flywheel_collector.identity import user_hash
from flywheel_collector.logline import CANDIDATE, NONE, SLICES
from flywheel_collector.slices import PARTS
from flywheel_collector.store import Store

LOG_WAIT_MS = 120_000
"""How much longer than its idle time a turn waits for its line of the log."""
RETRY_MS = 2_000
MAX_CONVERSATIONS = 500
FLUSH_EVERY_MS = 5_000
"""Files are not smaller than they need to be."""

SCHEMA = pa.schema(
    [
        ("conversation_id", pa.string()),
        ("message_id", pa.string()),
        ("turn", pa.int32()),
        ("user_hash", pa.string()),
        ("time", pa.timestamp("ms", tz="UTC")),
        ("flywheel", pa.string()),
        ("generation", pa.string()),
        ("experiment", pa.string()),
        ("slice", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("response", pa.string()),
        ("continued", pa.bool_()),
        ("thumbs", pa.int8()),
        ("regenerated", pa.bool_()),
        ("sampling", pa.string()),
        ("propensity", pa.float64()),  # of meeting the assigned arm, under the weights of the time; null: not known
        ("revision", pa.int64()),  # of the routes
    ]
)


class Conversations:
    def __init__(self, store: Store, root: Path, flywheel: str, idle_ms: int) -> None:
        self._store, self._root, self._flywheel, self._idle_ms = store, root, flywheel, idle_ms
        self._every_ms, self._flushed_ms = min(FLUSH_EVERY_MS, idle_ms), 0

    def flush(self, now_ms: int, read_ms: int) -> int:
        """-> turns written. First what a killed predecessor left frozen, then what is due.

        A conversation is idle when the log has been read up to then: a collector that is behind closes none too early.
        """
        if 0 <= now_ms - self._flushed_ms < self._every_ms:
            return 0
        self._flushed_ms = now_ms
        written = sum(self._finish(file) for file in self._frozen())
        if self._store.db.execute("SELECT 1 FROM conversation WHERE due_ms <= ? LIMIT 1", (read_ms,)).fetchone():
            with self._store.transaction() as db:
                self._freeze(db, now_ms, read_ms)
            written += sum(self._finish(file) for file in self._frozen())
        return written

    def _frozen(self) -> list[str]:
        return [row[0] for row in self._store.db.execute("SELECT DISTINCT file FROM utterance WHERE body IS NOT NULL AND file IS NOT NULL")]

    # freeze

    def _freeze(self, db: sqlite3.Connection, now_ms: int, read_ms: int) -> None:
        part = f"part-{now_ms}-{secrets.token_hex(4)}.parquet"
        due = db.execute("SELECT id FROM conversation WHERE due_ms <= ? ORDER BY due_ms LIMIT ?", (read_ms, MAX_CONVERSATIONS)).fetchall()
        for (conversation,) in due:
            waiting = False
            for key, user, ms, responses, body in db.execute(
                "SELECT key, user, ms, responses, body FROM utterance WHERE conversation = ? AND file IS NULL AND body IS NOT NULL",
                (conversation,),
            ).fetchall():
                row = self._row(db, conversation, key, user, responses, json.loads(body))
                place = (conversation, key)
                if row is not None:
                    file = f"date={as_datetime(row['time']):%Y-%m-%d}/generation={row['generation']}/{part}"
                    final = json.dumps(row, ensure_ascii=False)
                    db.execute("UPDATE utterance SET file = ?, body = ? WHERE conversation = ? AND key = ?", (file, final, *place))
                elif read_ms < ms + self._idle_ms + LOG_WAIT_MS:
                    waiting = True
                else:
                    db.execute("UPDATE utterance SET body = NULL, file = '' WHERE conversation = ? AND key = ?", place)
                    self._store.count("unmatched")
            db.execute("UPDATE conversation SET due_ms = ? WHERE id = ?", (read_ms + RETRY_MS if waiting else None, conversation))

    def _row(
        self, db: sqlite3.Connection, conversation: int, key: int, user: int, responses: int, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        log = list(map(Message._make, db.execute("SELECT * FROM message WHERE user = ? AND conversation = ?", (user, conversation))))
        this = next((message for message in log if message.key == key and message.answered_ms is not None), None)
        names = self._store.names
        if this is None or not names.text(this.generation):
            return None
        signals = dict(db.execute("SELECT kind, last_ms FROM signal WHERE user = ? AND key = ?", (user, key)))
        up, down = signals.get("thumbs_up", -1), signals.get("thumbs_down", -1)
        return {
            "conversation_id": body["conversation_id"],
            "message_id": body["message_id"],
            "turn": sum(message.answered_ms is not None and message.first_ms <= this.first_ms for message in log),
            "user_hash": user_hash(user),
            "time": this.first_ms,
            "flywheel": self._flywheel,
            "generation": names.text(this.generation),
            "experiment": names.text(this.experiment) or None,
            "slice": SLICES[this.slice],
            "messages": body["messages"],
            "response": body["response"],
            "continued": any(message.first_ms > this.first_ms for message in log),
            "thumbs": (up > down) - (down > up),
            "regenerated": responses > 1 or "regenerate" in signals,
            "sampling": body["sampling"],
            "propensity": self._propensity(db, this),
            "revision": this.revision or None,
        }

    def _propensity(self, db: sqlite3.Connection, message: Message) -> float | None:
        if not message.experiment or message.slice == NONE:
            return 1.0
        row = db.execute("SELECT parts FROM route WHERE revision = ?", (message.revision,)).fetchone()
        if row is None:
            return None
        return float(row[0] / PARTS if message.slice == CANDIDATE else 1 - row[0] / PARTS)

    # write, release

    def _finish(self, file: str) -> int:
        db = self._store.db
        frozen = db.execute(
            "SELECT conversation, body FROM utterance WHERE file = ? AND body IS NOT NULL ORDER BY rowid", (file,)
        ).fetchall()
        write_parquet(self._root / file, [json.loads(body) for _, body in frozen])
        with self._store.transaction():
            conversations = {conversation for conversation, _ in frozen}
            new = sum(db.execute("UPDATE conversation SET written = 1 WHERE id = ? AND written = 0", (c,)).rowcount for c in conversations)
            self._store.count("conversations", new)
            db.execute("UPDATE utterance SET body = NULL WHERE file = ?", (file,))
        return len(frozen)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """Readers see the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        for name in SCHEMA.names:
            columns[name].append(row.get(name))  # a row that an older collector froze lacks the newest columns
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        pq.write_table(pa.table(dict(columns), schema=SCHEMA), file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
