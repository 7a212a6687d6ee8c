"""Forgetting, a little at a time. Nothing an experiment still needs is forgotten."""

from __future__ import annotations

import sqlite3

REQUEST_IDS_MS = 900_000
"""How long a request id is remembered for the request counters."""
MARGIN_MS = 3_600_000

_OLD = """
DELETE FROM message WHERE (user, key) IN (SELECT user, key FROM message WHERE first_ms < :floor LIMIT :limit);
DELETE FROM signal WHERE (user, key, kind) IN (SELECT user, key, kind FROM signal WHERE last_ms < :floor LIMIT :limit);
DELETE FROM seen_event WHERE id IN (SELECT id FROM seen_event WHERE ms < :floor LIMIT :limit);
DELETE FROM utterance WHERE rowid IN (SELECT rowid FROM utterance WHERE ms < :floor AND (body IS NULL OR file IS NULL) LIMIT :limit);
DELETE FROM request_id WHERE (ms, id) IN (SELECT ms, id FROM request_id WHERE ms < :requests LIMIT 4 * :limit)
"""
_RARE = """
DELETE FROM subject WHERE exposed_ms < :floor AND experiment NOT IN (SELECT id FROM experiment);
DELETE FROM conversation WHERE id NOT IN (SELECT conversation FROM utterance)
"""


def floor_for(watermark_ms: int, retention_ms: int, longest_horizon_ms: int) -> int:
    """Facts before this are forgotten, and no longer taken."""
    return watermark_ms - max(retention_ms, longest_horizon_ms + MARGIN_MS)


def forget(db: sqlite3.Connection, floor_ms: int, watermark_ms: int, *, rare: bool, limit: int = 5000) -> None:
    """In the caller's transaction."""
    parameters = {"floor": floor_ms, "requests": watermark_ms - REQUEST_IDS_MS, "limit": limit}
    for statement in (_OLD + (";" + _RARE if rare else "")).split(";"):
        used = {name: value for name, value in parameters.items() if ":" + name in statement}
        db.execute(statement, used)
