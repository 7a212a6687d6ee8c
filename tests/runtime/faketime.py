"""An event loop whose time jumps to the next timer whenever nothing else is to be done: sleeps take no time."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")
START = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Not for sockets: waiting for one looks like having nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 0.0

    def time(self) -> float:
        return self._seconds

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            timers = [timer for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
            if not timers and not self._stopping:  # type: ignore[attr-defined]
                raise RuntimeError("deadlock: nothing is scheduled and nothing will ever happen")
            if timers:
                self._seconds = max(self._seconds, min(timer.when() for timer in timers))
        super()._run_once()  # type: ignore[misc]


class LoopClock:
    """The Clock port on the loop's time."""

    def now(self) -> dt.datetime:
        return START + dt.timedelta(seconds=asyncio.get_running_loop().time())


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run on fake time."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()
