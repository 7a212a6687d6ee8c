"""The level loop: one queue of object keys, never two passes over one object at once.

A pass is repeated when its object is woken (by a change of anything it looked at), when its own `requeue_at` comes, after
an error with backoff, and at the latest after `resync`: a lost event costs time, never correctness.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import logging
import math
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from flywheel.ports import Clock, ClusterError, Conflict, NameConflict
from flywheel.runtime.keys import Key

_log = logging.getLogger(__name__)
CONCURRENCY = 64
RESYNC = 600.0
PASS_TIMEOUT = 120.0
MAX_BACKOFF = 300.0
OUTAGE_BACKOFF = 15.0  # when the API server is away: everything goes on soon after it is back
EVENT_FLOOR = 1.0  # while an object is backing off, changes around it may bring the next try forward to this, not nearer
MIN_DELAY = 0.05  # of a timer; changes wake at once
HEARTBEAT = 5.0
# Looks that a timer asks for and that find nothing to do, a second and for all objects of a kind together. Rollouts, where users
# are, have room for five hundred every five seconds, a thousand every ten; of the others, the more there are the less often each is
# looked at in vain.
IDLE_LOOKS = {"Rollout": 100.0}
IDLE_LOOKS_OF_OTHERS = 30.0
IDLE = 4.0  # a shorter delay is no routine look: something is under way
ROUTINE_YIELDS = 15.0  # seconds that a routine look lets changes go first when there is a queue; after that it is as old as any


@dataclass(frozen=True)
class Outcome:
    """How a pass ended, when it did not raise."""

    requeue_at: dt.datetime | None = None
    gone: bool = False
    idle: bool = False  # nothing was written and nothing done


@dataclass
class _Item:
    queued: bool = False
    routine: bool = False  # queued, or to be queued, for a look that nothing but time asks for
    running: bool = False
    dirty: bool = False  # woken while running
    failures: int = 0
    conflicts: int = 0
    failed_at: float | None = None
    timer: asyncio.TimerHandle | None = None
    seen: bool = False  # had a pass that ended, well or not


class Watcher(Protocol):
    """Whoever counts and shows what the loop does."""

    def passed(self, key: Key, seconds: float, error: Exception | None) -> None:
        """A pass ended."""


class Loop:
    """Runs `reconcile` over keys."""

    def __init__(
        self,
        reconcile: Callable[[Key], Awaitable[Outcome]],
        *,
        clock: Clock,
        watcher: Watcher,
        on_error: Callable[[Key, Exception, int], Awaitable[None]],
        concurrency: int = CONCURRENCY,
        resync: float = RESYNC,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._reconcile, self._clock, self._watcher, self._on_error = reconcile, clock, watcher, on_error
        self._concurrency, self._resync, self._jitter = concurrency, resync, jitter
        self._items: dict[Key, _Item] = {}
        self._ticking: dict[str, set[Key]] = defaultdict(set)  # by kind: those whose plan asks for another look
        # By when each wants its pass, and then as they came; None is the heartbeat, or the end.
        self._queue: asyncio.PriorityQueue[tuple[float, int, Key | None]] = asyncio.PriorityQueue()
        self._put = itertools.count()
        self._open = asyncio.Event()
        self.stopping = False  # set by `stop`
        self.last_tick: float = 0.0  # loop time at which a worker last took something from the queue

    @property
    def depth(self) -> int:
        """So many objects wait."""
        return sum(item.queued for item in self._items.values())

    @property
    def unseen(self) -> int:
        """So many objects have had no pass yet since this process began."""
        return sum(not item.seen for item in self._items.values())

    def wake(self, key: Key) -> None:
        """Something about this object changed."""
        item = self._items.setdefault(key, _Item())
        if item.running:
            item.dirty = True
        elif item.failed_at is not None and (left := item.failed_at + EVENT_FLOOR - self._now()) > 0:
            if item.timer is None or item.timer.when() > self._now() + left:
                self._arm(key, item, left)
        else:
            self._enqueue(key, item, routine=False)

    def open(self) -> None:
        """The caches are complete, and this replica leads: passes may begin."""
        self.last_tick = self._now()
        self._open.set()

    async def run(self) -> None:
        """Until cancelled, or until `stop` and the last pass."""
        async with asyncio.TaskGroup() as tasks:
            heart = tasks.create_task(self._beat())
            workers = [tasks.create_task(self._work(), name=f"pass {n}") for n in range(self._concurrency)]
            await asyncio.gather(*workers)
            heart.cancel()

    def stop(self) -> None:
        """Begin no further pass; those that run go to their end. Twice is as good as once."""
        self.stopping = True
        self._open.set()
        for item in self._items.values():
            if item.timer is not None:
                item.timer.cancel()
        for _ in range(self._concurrency):
            self._queue.put_nowait((-math.inf, next(self._put), None))

    async def _beat(self) -> None:
        await self._open.wait()  # a standby's queue is not emptied
        # Through the queue: if every worker hangs, the ticks stop, and the liveness probe says so.
        while True:
            self._queue.put_nowait((self._now(), next(self._put), None))
            await asyncio.sleep(HEARTBEAT)

    async def _work(self) -> None:
        await self._open.wait()
        while not self.stopping:
            _, _, key = await self._queue.get()
            self.last_tick = self._now()
            if key is None or self.stopping:
                continue
            item = self._items.get(key)
            if item is not None and item.queued:  # or else it has had its pass, from an earlier place in the queue
                await self._pass(key, item)

    async def _pass(self, key: Key, item: _Item) -> None:
        item.queued, item.running, item.dirty = False, True, False
        if item.timer is not None:
            item.timer.cancel()
            item.timer = None
        started, error, outcome = self._now(), None, Outcome()
        try:
            async with asyncio.timeout(PASS_TIMEOUT):
                outcome = await self._reconcile(key)
        except Exception as caught:  # whatever a pass dies of, the others go on
            error = caught
        self._watcher.passed(key, self._now() - started, error)
        delay = self._after_success(key, item, outcome) if error is None else await self._after_error(key, item, error)
        item.running, item.seen = False, True
        if outcome.gone and not item.dirty:
            del self._items[key]
        elif item.dirty and error is None:
            self._enqueue(key, item, routine=False)
        else:
            self._arm(key, item, min(delay, EVENT_FLOOR) if item.dirty else delay)

    def _after_success(self, key: Key, item: _Item, outcome: Outcome) -> float:
        item.failures, item.conflicts, item.failed_at = 0, 0, None
        ticking = self._ticking[key.kind]
        (ticking.discard if outcome.requeue_at is None else ticking.add)(key)
        resync = self._resync * (0.8 + 0.4 * self._jitter())
        if outcome.requeue_at is None:
            return resync
        # Never later than the resync, so that a stepped or suspended wall clock can't oversleep a window's end.
        delay = max(MIN_DELAY, (outcome.requeue_at - self._clock.now()).total_seconds())
        if outcome.idle and delay >= IDLE:
            delay = max(delay, len(ticking) / IDLE_LOOKS.get(key.kind, IDLE_LOOKS_OF_OTHERS))
        return min(resync, delay)

    async def _after_error(self, key: Key, item: _Item, error: Exception) -> float:
        if isinstance(error, Conflict) and not isinstance(error, NameConflict) and item.conflicts < 8:
            item.conflicts += 1  # not an error: somebody wrote in between, and the cache will have it in a moment
            return min(2.0, 0.02 * 2.0**item.conflicts)
        item.failures += 1
        item.failed_at = self._now()
        try:
            await self._on_error(key, error, item.failures)
        except Exception:
            _log.exception("showing an error failed", extra={"key": str(key)})
        return self._backoff(error, item.failures)

    def _backoff(self, error: Exception, failures: int) -> float:
        outage = isinstance(error, ClusterError) and (error.status in (0, 429) or error.status >= 500)
        terminal = isinstance(error, ClusterError) and not error.retryable
        delay = min(OUTAGE_BACKOFF if outage else MAX_BACKOFF, (5.0 if terminal else 0.5) * 2.0 ** min(failures - 1, 12))
        least = error.retry_after or 0.0 if isinstance(error, ClusterError) else 0.0
        return max(least, delay * (0.5 + self._jitter() / 2))

    def _enqueue(self, key: Key, item: _Item, *, routine: bool) -> None:
        if self.stopping or (item.queued and (routine or not item.routine)):
            return
        if item.timer is not None:
            item.timer.cancel()
            item.timer = None
        item.queued, item.routine = True, routine
        self._queue.put_nowait((self._now() + (ROUTINE_YIELDS if routine else 0.0), next(self._put), key))

    def _arm(self, key: Key, item: _Item, delay: float) -> None:
        if self.stopping:
            return
        if item.timer is not None:
            item.timer.cancel()
        item.timer = asyncio.get_running_loop().call_later(delay, self._fire, key, item, delay >= IDLE)

    def _fire(self, key: Key, item: _Item, routine: bool) -> None:
        item.timer = None
        if not item.running:
            self._enqueue(key, item, routine=routine)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
