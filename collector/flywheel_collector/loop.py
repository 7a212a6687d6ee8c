"""The heartbeat: pass after pass, at once while there is more to read. An error is logged, shown by `/readyz`, and tried again."""

from __future__ import annotations

import asyncio
import logging

from flywheel_collector.clock import Clock
from flywheel_collector.service import Collector

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.25
STALE_MS = 15_000
OVERLOAD_MS = 30_000
"""So far behind the log, events are refused for a while."""
STARTING = "starting"


class Loop:
    def __init__(self, collector: Collector, clock: Clock) -> None:
        self._collector, self._clock = collector, clock
        self._good_ms = 0
        self._error: str | None = STARTING

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            more = self.step()
            try:
                await asyncio.wait_for(stop.wait(), 0 if more else INTERVAL_SECONDS)
            except TimeoutError:
                continue

    def step(self) -> bool:
        try:
            more = self._collector.tick(self._clock())
        except Exception as error:  # the disk may be full, the claim away: keep trying, and say so
            if self._error != repr(error):
                log.exception("a pass failed; it is tried again")
            self._error = repr(error)
            return False
        self._good_ms, self._error = self._clock(), None
        return more

    def overload(self, now_ms: int) -> str | None:
        """Why events should come later: they would be written before older lines of the log are."""
        if self._error is not None and self._error != STARTING:
            return f"the state cannot be written now: {self._error}"
        lag_ms = self._collector.lag_ms
        return f"the log is read {lag_ms / 1000:.0f} s late" if lag_ms > OVERLOAD_MS else None

    def problem(self, now_ms: int) -> str | None:
        if self._error is not None:
            return self._error
        if self._collector.file_problem is not None:
            return self._collector.file_problem
        return "no pass has ended lately" if now_ms - self._good_ms > STALE_MS else None
