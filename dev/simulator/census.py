"""Counts for the report: replies and failures, and when each generation answered. Users never read it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Answers:
    """Of one generation; seconds since 1970."""

    replies: int = 0
    first_sent: float = 0.0
    first_reply: float = 0.0
    last_sent: float = 0.0
    last_reply: float = 0.0


@dataclass
class Census:
    users: int = 0
    active: int = 0
    turned_away: int = 0
    """Users who did not start since too many were there already."""
    turns: int = 0
    good: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """Chat requests that got no reply, by kind."""
    event_failures: Counter[str] = field(default_factory=Counter)
    generations: dict[str, Answers] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    def answered(self, generation: str, sent: float, replied: float) -> bool:
        """-> whether this is the generation's first reply."""
        self.turns += 1
        self.latencies.append(replied - sent)
        new = generation not in self.generations
        if new and len(self.generations) >= 100:
            generation, new = "other", False
        answers = self.generations.setdefault(generation, Answers(first_sent=sent, first_reply=replied))
        answers.replies += 1
        answers.first_sent = min(answers.first_sent, sent)
        answers.last_sent = max(answers.last_sent, sent)
        answers.last_reply = max(answers.last_reply, replied)
        return new

    def summary(self) -> dict[str, object]:
        return {
            "users": self.users,
            "turnedAway": self.turned_away,
            "turns": self.turns,
            "goodShare": round(self.good / self.turns, 4) if self.turns else None,
            "thumbsUp": self.thumbs_up,
            "thumbsDown": self.thumbs_down,
            "failed": self.failures.total(),
            "failures": dict(self.failures),
            "eventFailures": dict(self.event_failures),
            "latencyP50": self._latency(0.5),
            "latencyP99": self._latency(0.99),
        }

    def _latency(self, quantile: float) -> float | None:
        ordered = sorted(self.latencies)
        return round(ordered[min(int(quantile * len(ordered)), len(ordered) - 1)], 3) if ordered else None
