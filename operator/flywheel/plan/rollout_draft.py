"""A pass over a Rollout in the making. Every step changes the status through it, so that what is persisted, told and
planned to happen is one thing and can be written before it is done.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from flywheel.api.reasons import Reason
from flywheel.api.rollout import Decision, HistoryEntry, RolloutStatus
from flywheel.plan.base import Action, Emit, earliest
from flywheel.plan.rollout_observed import RolloutObserved

SOON = dt.timedelta(milliseconds=250)  # while router replicas have yet to confirm
TICK = dt.timedelta(seconds=5)  # while only the outside world can change something
MAX_HISTORY = 50


@dataclass
class Draft:
    """A pass in the making: the status as it will be persisted and what follows from it."""

    observed: RolloutObserved
    now: dt.datetime
    status: RolloutStatus
    actions: list[Action] = field(default_factory=list)
    wake: dt.datetime | None = None
    waiting: tuple[Reason, str] | None = None  # what the Rollout waits for, for the Progressing condition
    unmeasured: tuple[Reason, str] | None = None  # what is wrong with the metrics, for the MetricsAvailable condition

    def set(self, **changes: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=changes)

    def tell(self, event: str, message: str, *, warn: bool = False) -> None:
        """Put something into the bounded history and emit it as an event."""
        entry = HistoryEntry(time=self.now, event=event, message=message[:1024])
        self.set(history=(*self.status.history, entry)[-MAX_HISTORY:])
        self.actions.append(Emit("Warning" if warn else "Normal", event, message[:1024]))

    def wake_at(self, *times: dt.datetime | None) -> None:
        """Look again at the earliest of these at the latest."""
        self.wake = earliest((self.wake, *times))

    def decided(self, decision: Decision) -> None:
        """Make the decision part of the status; everything that acts on it comes after."""
        self.set(decision=decision)
        self.tell(decision.verdict, f"{decision.reason}: {decision.message}", warn=decision.verdict != "Promote")
