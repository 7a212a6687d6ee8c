"""Time as integers: milliseconds since 1970, from a clock that is passed in."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]


def system_clock() -> int:
    return time.time_ns() // 1_000_000


def parse_time(text: str) -> int:
    """RFC 3339 with an offset -> milliseconds. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset, such as Z")
    try:
        return round(moment.timestamp() * 1000)
    except OverflowError as error:
        raise ValueError("time out of range") from error


def as_datetime(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
