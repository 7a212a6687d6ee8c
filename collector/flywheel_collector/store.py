"""The state file: one SQLite database, one writer, one transaction for each thing that happens.

A log offset is stored in the same transaction as the effects of the lines before it, so a kill at any moment loses nothing and doubles
nothing. `synchronous=FULL`: what was accepted is on the disk.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from flywheel_collector.identity import Identity

SCHEMA_VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS name(id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS tally(
    name TEXT, generation TEXT, slot INTEGER, n INTEGER NOT NULL, PRIMARY KEY(name, generation, slot)) WITHOUT ROWID;

-- where the tail stands: a log file is known by its pod and its first bytes, whatever it is called now
CREATE TABLE IF NOT EXISTS log_file(pod TEXT, head BLOB, offset INTEGER NOT NULL, PRIMARY KEY(pod, head)) WITHOUT ROWID;
-- ids by time: a new one goes to the end, old ones leave from the front
CREATE TABLE IF NOT EXISTS request_id(ms INTEGER, id INTEGER, PRIMARY KEY(ms, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen_event(id INTEGER PRIMARY KEY, ms INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS seen_event_age ON seen_event(ms);

-- facts
CREATE TABLE IF NOT EXISTS message(
    user INTEGER, key INTEGER, conversation INTEGER NOT NULL, first_ms INTEGER NOT NULL, first_request INTEGER NOT NULL,
    failed INTEGER NOT NULL, fallback INTEGER NOT NULL, answered_ms INTEGER, experiment INTEGER NOT NULL, slice INTEGER NOT NULL,
    generation INTEGER NOT NULL, revision INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(user, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS message_age ON message(first_ms);
CREATE TABLE IF NOT EXISTS signal(
    user INTEGER, key INTEGER, kind TEXT, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, PRIMARY KEY(user, key, kind)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS signal_age ON signal(last_ms);

-- experiments; a subject is a user in one, with the numbers it contributes to the moments (null: none yet)
CREATE TABLE IF NOT EXISTS experiment(
    id INTEGER PRIMARY KEY, horizon_ms INTEGER NOT NULL, asked_cap INTEGER, started_ms INTEGER NOT NULL, enrol_until_ms INTEGER,
    cap INTEGER NOT NULL, extra TEXT NOT NULL DEFAULT '{}', first_ms INTEGER);
CREATE TABLE IF NOT EXISTS subject(
    user INTEGER, experiment INTEGER, slice INTEGER NOT NULL, exposed_ms INTEGER NOT NULL, exposed_request INTEGER NOT NULL,
    pending INTEGER NOT NULL, breadth INTEGER, depth INTEGER, errors INTEGER, fallbacks INTEGER, thumbs_up INTEGER, thumbs_down INTEGER,
    messages INTEGER, segment TEXT, covariate TEXT, PRIMARY KEY(user, experiment)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS subject_queue ON subject(experiment, exposed_ms) WHERE pending = 1;
CREATE TABLE IF NOT EXISTS moment(
    experiment INTEGER, slice INTEGER, metric TEXT, n INTEGER NOT NULL, total INTEGER NOT NULL, squares INTEGER NOT NULL,
    PRIMARY KEY(experiment, slice, metric)) WITHOUT ROWID;
-- the same of some of the users, with a second number x of each: see moments
CREATE TABLE IF NOT EXISTS stratum(
    experiment INTEGER, name TEXT, slice INTEGER, metric TEXT, n INTEGER NOT NULL DEFAULT 0, y INTEGER NOT NULL DEFAULT 0,
    yy INTEGER NOT NULL DEFAULT 0, x INTEGER NOT NULL DEFAULT 0, xx INTEGER NOT NULL DEFAULT 0, xy INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY(experiment, name, slice, metric)) WITHOUT ROWID;

-- what the routers say: their routes, and how many lines they logged; and how many were read
CREATE TABLE IF NOT EXISTS route(revision INTEGER PRIMARY KEY, experiment TEXT NOT NULL, salt TEXT NOT NULL, parts INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS line_count(
    pod TEXT, experiment INTEGER, slice INTEGER, n INTEGER NOT NULL, PRIMARY KEY(pod, experiment, slice)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reconciled(
    pod TEXT, experiment INTEGER, slice INTEGER, counted INTEGER NOT NULL, lost INTEGER NOT NULL,
    PRIMARY KEY(pod, experiment, slice)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS misassigned(
    experiment INTEGER, slice INTEGER, checked INTEGER NOT NULL, wrong INTEGER NOT NULL, PRIMARY KEY(experiment, slice)) WITHOUT ROWID;

-- users whose data was asked to be deleted; `done` when no file holds any
CREATE TABLE IF NOT EXISTS tombstone(user INTEGER PRIMARY KEY, ms INTEGER NOT NULL, done INTEGER NOT NULL);

-- text waiting for its conversation to go idle; `file` is set (and `body` is final) before the Parquet is written, `body` is dropped after
CREATE TABLE IF NOT EXISTS utterance(
    conversation INTEGER, key INTEGER, user INTEGER NOT NULL, ms INTEGER NOT NULL, event INTEGER NOT NULL, responses INTEGER NOT NULL,
    body TEXT, file TEXT, UNIQUE(conversation, key));
CREATE INDEX IF NOT EXISTS utterance_file ON utterance(file) WHERE body IS NOT NULL AND file IS NOT NULL;
CREATE INDEX IF NOT EXISTS utterance_age ON utterance(ms);
CREATE TABLE IF NOT EXISTS conversation(id INTEGER PRIMARY KEY, due_ms INTEGER, written INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS conversation_due ON conversation(due_ms) WHERE due_ms IS NOT NULL;
"""


MIGRATION = """
ALTER TABLE message ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE experiment ADD COLUMN extra TEXT NOT NULL DEFAULT '{}';
ALTER TABLE experiment ADD COLUMN first_ms INTEGER;
ALTER TABLE subject ADD COLUMN messages INTEGER;
ALTER TABLE subject ADD COLUMN segment TEXT;
ALTER TABLE subject ADD COLUMN covariate TEXT;
CREATE TABLE request_id(ms INTEGER, id INTEGER, PRIMARY KEY(ms, id)) WITHOUT ROWID;
INSERT INTO request_id SELECT ms, id FROM seen_request;
DROP TABLE seen_request;
UPDATE subject SET pending = 1 WHERE breadth IS NOT NULL AND exposed_ms >= coalesce((SELECT value FROM meta WHERE key = 'floor'), 0);
PRAGMA user_version=2
"""
"""From version 1. Users who are counted are counted again, for the numbers that were not kept then."""
# What one pass looks up; of this connection, in memory.
SCRATCH = """
CREATE TEMP TABLE batch(user INTEGER, key INTEGER, ms INTEGER, request INTEGER, experiment INTEGER);
CREATE TEMP TABLE window(user INTEGER PRIMARY KEY, low INTEGER, high INTEGER) WITHOUT ROWID
"""


class Names:
    """Experiment and generation names as small integers; "" is 0. At most `limit` of them."""

    def __init__(self, db: sqlite3.Connection, limit: int = 10_000) -> None:
        self._db, self._limit = db, limit
        self._ids: dict[str, int] = {}
        self._texts: dict[int, str] = {}

    def forget_cache(self) -> None:
        self._ids.clear()
        self._texts.clear()

    def _load(self) -> None:
        if not self._ids:
            self._ids = {"": 0, **{text: number for number, text in self._db.execute("SELECT id, text FROM name")}}
            self._texts = {number: text for text, number in self._ids.items()}

    def id(self, text: str) -> int:
        number = self._ids.get(text)
        if number is None:
            self._load()
            number = self._ids.get(text)
        if number is None:
            if len(self._ids) > self._limit:
                return 0
            number = int(self._db.execute("INSERT INTO name(text) VALUES(?) RETURNING id", (text,)).fetchone()[0])
            self._ids[text], self._texts[number] = number, text
        return number

    def known(self, text: str) -> int | None:
        """Its number if it has one; never makes one."""
        self._load()
        return self._ids.get(text)

    def text(self, number: int) -> str:
        self._load()
        return self._texts.get(number, "")


class Store:
    def __init__(self, path: str, *, durable: bool = True) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, timeout=10)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        self.db.execute("PRAGMA cache_size=-65536")
        self.db.execute("PRAGMA temp_store=MEMORY")
        self.names = Names(self.db)
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version not in range(SCHEMA_VERSION + 1):
            raise RuntimeError(f"{path} was written by another version of the collector (schema {version}, this is {SCHEMA_VERSION})")
        if version == 1:
            with self.transaction() as db:
                for statement in MIGRATION.split(";"):
                    db.execute(statement)
        self.db.executescript(SCHEMA)
        self.db.executescript(SCRATCH)
        self.db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self.db.execute("INSERT OR IGNORE INTO meta VALUES('salt', ?)", (secrets.token_bytes(16),))
        self.identity = Identity(self.db.execute("SELECT value FROM meta WHERE key = 'salt'").fetchone()[0])

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
            self.db.execute("COMMIT")
        except BaseException:
            self.names.forget_cache()
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            raise

    def add(self, tallies: Counter[tuple[str, str, int]]) -> None:
        """Counters that survive a restart: (name, generation, slot) -> n."""
        self.db.executemany(
            "INSERT INTO tally VALUES(?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", [(*key, n) for key, n in tallies.items()]
        )

    def count(self, name: str, n: int = 1) -> None:
        self.add(Counter({(name, "", 0): n}))

    def tally(self, name: str) -> int:
        row = self.db.execute("SELECT n FROM tally WHERE name = ? AND generation = '' AND slot = 0", (name,)).fetchone()
        return int(row[0]) if row else 0

    def number(self, key: str, default: int = 0) -> int:
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else default

    def set_number(self, key: str, value: int) -> None:
        self.db.execute("INSERT INTO meta VALUES(?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, value))
