"""A user's metrics, from facts alone. Pure; docs/concepts.md has the definitions in words.

In the window [exposure, exposure + H), a *turn* is a message first tried and answered 2xx there; *depth* is the number of turns after
the first, so breadth = depth > 0. *Errors* and *fallbacks* are of first tries.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

METRICS = ("breadth", "depth", "errors", "fallbacks", "thumbs_up", "thumbs_down")
MESSAGES, KNOWN = "#messages", "#known"
"""Strata beside the segments: see moments."""


class Outcome(NamedTuple):
    breadth: int
    depth: int
    errors: int
    fallbacks: int
    thumbs_up: int
    thumbs_down: int


class Tried(NamedTuple):
    """The part of a message that metrics need."""

    first_ms: int
    answered_ms: int | None
    failed: int
    fallback: int
    is_message: int = 1
    """Not a request without a message id."""


def outcome(exposed_ms: int, horizon_ms: int, cap: int, tried: Iterable[Tried], ups: Iterable[int], downs: Iterable[int]) -> Outcome:
    end = exposed_ms + horizon_ms
    turns = errors = fallbacks = 0
    for message in tried:
        if exposed_ms <= message.first_ms < end:
            errors += message.failed
            fallbacks += message.fallback
            turns += message.answered_ms is not None and message.answered_ms < end
    depth = min(max(turns - 1, 0), cap)
    return Outcome(
        breadth=int(turns > 1),
        depth=depth,
        errors=errors,
        fallbacks=fallbacks,
        thumbs_up=sum(exposed_ms <= ms < end for ms in ups),
        thumbs_down=sum(exposed_ms <= ms < end for ms in downs),
    )
