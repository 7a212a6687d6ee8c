"""What happened, second by second, for the live view and the report."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from dev.demo import kube

Body = dict[str, Any]


@dataclass
class Recorder:
    """Reads the five kinds every second or so and keeps what the plots need."""

    namespace: str
    started: float = field(default_factory=time.time)
    latest: dict[str, list[Body]] = field(default_factory=dict)
    weights: list[Body] = field(default_factory=list)
    estimates: list[Body] = field(default_factory=list)
    marks: list[Body] = field(default_factory=list)
    spans: list[Body] = field(default_factory=list)

    def look(self) -> dict[str, list[Body]]:
        """Read everything once."""
        self.latest = kube.story(self.namespace)
        at = round(time.time() - self.started, 2)
        for rollout in self.latest.get("Rollout", []):
            status = rollout.get("status") or {}
            name, weights = rollout["metadata"]["name"], status.get("weights") or {}
            candidate = rollout["spec"]["candidate"]["generation"]
            row = {"at": at, "rollout": name, "candidate": candidate, "phase": status.get("phase"), "weight": weights.get("intended", 0)}
            if not self.weights or {**self._last(self.weights, name), "at": at} != row:
                self.weights.append(row)
            estimates = {"at": at, "rollout": name, "candidate": candidate, "metrics": status.get("metrics") or []}
            if estimates["metrics"] and {**self._last(self.estimates, name), "at": at} != estimates:
                self.estimates.append(estimates)
        return self.latest

    def mark(self, text: str) -> None:
        """Remember that something happened now."""
        self.marks.append({"at": round(time.time() - self.started, 2), "text": text})

    def span(self, text: str, seconds: float) -> None:
        """Remember where time went."""
        self.spans.append({"text": text, "seconds": round(seconds, 1)})

    def find(self, kind: str, name: str) -> Body | None:
        """An object as it was at the last look."""
        return next((b for b in self.latest.get(kind, []) if b["metadata"]["name"] == name), None)

    @staticmethod
    def _last(rows: list[Body], name: str) -> Body:
        return next((row for row in reversed(rows) if row["rollout"] == name), {})
