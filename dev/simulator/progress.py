"""One line every few seconds; in place on a terminal, when rich is there."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dev.simulator.census import Census


class Progress:
    def __init__(self, census: Census, duration: float, quiet: bool) -> None:
        self._census, self._duration, self._started = census, duration, time.monotonic()
        self._quiet, self._status = quiet, _status() if not quiet and sys.stderr.isatty() else None
        self._last = (self._started, 0)

    def context(self) -> AbstractContextManager[Any]:
        return self._status if self._status is not None else nullcontext()

    def show(self) -> None:
        now, census = time.monotonic(), self._census
        rate = (census.turns - self._last[1]) / max(now - self._last[0], 1e-3)
        self._last = (now, census.turns)
        good = census.good / census.turns if census.turns else 0.0
        who = " ".join(f"{name}={answers.replies}" for name, answers in census.generations.items())
        line = (
            f"simulator {now - self._started:4.0f}/{self._duration:.0f} s  {census.users} users ({census.active} chatting)"
            f"  {census.turns} turns  {rate:.1f}/s  good {good:.0%}  failed {census.failures.total()}  {who}"
        )
        if self._status is not None:
            self._status.update(line)
        elif not self._quiet:
            print(line, file=sys.stderr, flush=True)


def _status() -> Any:
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(stderr=True).status("simulator")
