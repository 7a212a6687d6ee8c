"""What is remembered of a message and of an exposure, and how two memories of the same thing become one.

`merge` is commutative, associative and idempotent: the order in which lines arrive, and how often, does not matter.
"""

from __future__ import annotations

from typing import NamedTuple


class Message(NamedTuple):
    """All tries of one message of one user."""

    user: int
    key: int
    conversation: int
    first_ms: int
    first_request: int
    failed: int
    """The first try failed (5xx, or no status at all)."""
    fallback: int
    """The first try was answered by another arm than the assigned one."""
    answered_ms: int | None
    """The first 2xx: from then on the message is a turn. Null for a request without a message id."""
    experiment: int
    slice: int
    generation: int
    """Who gave that first answer."""
    revision: int = 0
    """Of the routes at the first try; 0: not known."""

    def merge(self, other: Message) -> Message:
        first, second = sorted((self, other), key=lambda message: (message.first_ms, message.first_request))
        answers = sorted((m.answered_ms, m.generation) for m in (self, other) if m.answered_ms is not None)
        answered_ms, generation = answers[0] if answers else (None, min(first.generation, second.generation))
        return first._replace(answered_ms=answered_ms, generation=generation)


class Exposure(NamedTuple):
    """A user's first request in an analysed slice of an experiment, counted even if it failed."""

    ms: int
    request: int
    slice: int
    segment: str = ""

    def merge(self, other: Exposure) -> Exposure:
        return min(self, other)
