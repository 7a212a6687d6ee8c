"""One line a slow step with its time, and a closing line that says where the time went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """Prints `[ 3/12] kubelet v1.34.4 … 74 s` as steps begin and end."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done: list[tuple[str, float]] = []
        self._began = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Time what happens inside; what is passed to the yielded function is added to the line."""
        label = f"[{len(self._done) + 1:2}/{self._total}] {title}"
        print(f"{label} …", end=" ", flush=True)
        began = time.monotonic()
        notes: list[str] = []
        try:
            yield notes.append
        except BaseException:
            print("failed", flush=True)
            raise
        took = time.monotonic() - began
        self._done.append((title, took))
        notes.append(f"{took:.0f} s" if took >= 1 or notes else "ok")
        print(", ".join(notes), flush=True)

    def close(self) -> None:
        """The sum, and the steps that took most of it."""
        slow = sorted((s for s in self._done if s[1] >= 1), key=lambda s: -s[1])[:4]
        where = ", ".join(f"{title} {took:.0f} s" for title, took in slow) or "nothing took a second"
        print(f"done in {time.monotonic() - self._began:.0f} s: {where}", flush=True)
