"""New users arrive by chance, whatever the replies take (an open loop), so often that all users together make about `rate` turns a second.

How many turns a user makes depends on the replies, so the arrivals follow the mean so far. Bounded: users at a time, users in all, seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from dev.simulator.census import Census
from dev.simulator.client import SAMPLING, App, Failed, event
from dev.simulator.person import MAX_TURNS, Person

PRIOR_TURNS, PRIOR_USERS = 1.75, 30
DRAIN_SECONDS = 20
SETTLED_SECONDS = 12

Note = Callable[[dict[str, Any]], None]


def arrivals_per_second(rate: float, turns: int, users: int) -> float:
    mean = (PRIOR_TURNS * PRIOR_USERS + turns) / (PRIOR_USERS + users)
    return rate / min(max(mean, 1.0), float(MAX_TURNS))


class Crowd:
    def __init__(
        self, app: App, census: Census, note: Note, *, prefix: str, seed: int, rate: float, concurrency: int, max_users: int
    ) -> None:
        self._app, self._census, self._note = app, census, note
        self._prefix, self._seed, self._rate = prefix, seed, rate
        self._concurrency, self._max_users = concurrency, max_users
        self._lives: list[tuple[float, Person]] = []
        self._settled_users = self._settled_turns = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, duration: float, stop: asyncio.Event) -> None:
        rng = random.Random(f"{self._seed}:arrivals")
        end = time.monotonic() + duration
        due = time.monotonic()
        while not stop.is_set() and self._census.users < self._max_users:
            due += rng.expovariate(self._arrivals_per_second())
            due = max(due, time.monotonic() - 1)  # after a stall do not catch up in one burst
            if due >= end or await _pause(stop, due - time.monotonic()):
                break
            if len(self._tasks) >= self._concurrency:
                self._census.turned_away += 1  # not a failure: no request was made
                continue
            task = asyncio.create_task(self._live(self._census.users, stop))
            self._census.users += 1
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await self._leave(stop)

    def _arrivals_per_second(self) -> float:
        """By the users who came long enough ago to have left: of the recent ones only the bored have finished."""
        while self._settled_users < len(self._lives) and self._lives[self._settled_users][0] < time.monotonic() - SETTLED_SECONDS:
            self._settled_turns += self._lives[self._settled_users][1].turns
            self._settled_users += 1
        return arrivals_per_second(self._rate, self._settled_turns, self._settled_users)

    async def _leave(self, stop: asyncio.Event) -> None:
        """Everybody finishes their conversation, within reason."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 if stop.is_set() else DRAIN_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _live(self, number: int, stop: asyncio.Event) -> None:
        person = Person(f"{self._seed}:{number}")
        user, conversation = f"{self._prefix}-u{number}", f"{self._prefix}-c{number}"
        self._lives.append((time.monotonic(), person))
        self._census.active += 1
        try:
            await self._converse(person, user, conversation, stop)
        finally:
            self._census.active -= 1

    async def _converse(self, person: Person, user: str, conversation: str, stop: asyncio.Event) -> None:
        history: list[dict[str, str]] = []
        while not stop.is_set():
            message = f"{conversation}-m{person.turns + 1}"
            history.append({"role": "user", "content": person.says()})
            try:
                reply = await self._app.chat(user, conversation, message, history)
            except Failed as failure:
                self._census.failures[str(failure)] += 1
                self._note({"type": "failure", "kind": str(failure), "time": time.time()})
                return
            if self._census.answered(reply.generation, reply.sent, reply.received):
                self._note({"type": "first", "generation": reply.generation, "sent": reply.sent, "time": reply.received})
            reaction = person.hears(reply.text)
            self._census.good += reaction.good
            events = [event("turn", user, conversation, message, messages=list(history), response=reply.text, sampling=SAMPLING)]
            if reaction.thumbs:
                up = reaction.thumbs > 0
                self._census.thumbs_up += up
                self._census.thumbs_down += not up
                events.append(event("thumbs_up" if up else "thumbs_down", user, conversation, message))
            try:
                await self._app.post(*events)
            except Failed as failure:
                self._census.event_failures[str(failure)] += 1
            if not reaction.again:
                return
            history.append({"role": "assistant", "content": reply.text})
            await _pause(stop, reaction.think_seconds)


async def _pause(stop: asyncio.Event, seconds: float) -> bool:
    """-> whether it was time to stop."""
    if seconds > 0:
        try:
            await asyncio.wait_for(stop.wait(), seconds)
        except TimeoutError:
            return False
    return stop.is_set()
