from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flywheel.adapters.watch import Informer, take_list
from flywheel.ports import ClusterError
from tests.runtime.faketime import now, run

Event = dict[str, Any]
GONE = ClusterError("too old", status=410, retryable=True)
DOWN = ClusterError("connection reset", status=0, retryable=True)


def thing(name: str, version: int) -> Event:
    return {"kind": "Job", "metadata": {"name": name, "uid": name, "resourceVersion": str(version)}}


def event(kind: str, name: str, version: int) -> Event:
    return {"type": kind, "object": thing(name, version)}


class ListSink:
    """Keeps the log of what reached it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.held: set[str] = set()

    def put(self, body: Event) -> None:
        self.log.append("put " + body["metadata"]["name"])
        self.held.add(body["metadata"]["uid"])

    def remove(self, body: Event) -> None:
        self.log.append("remove " + body["metadata"]["name"])
        self.held.discard(body["metadata"]["uid"])

    def present(self) -> set[str]:
        return set(self.held)

    def keep(self, listed: set[str], before: set[str]) -> None:
        self.log.append("keep " + ",".join(sorted(listed)))
        self.held -= before - listed


class Script:
    """A server that gives the answers it was told to: lists, and for each watch a list of events, errors and silences."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self._lists, self._watches = lists, watches
        self.watched_from: list[str] = []
        self.listed_at: list[float] = []

    def __str__(self) -> str:
        return "script"

    async def pages(self) -> AsyncIterator[tuple[list[Event], str]]:
        self.listed_at.append(now())
        answer = self._lists.pop(0) if len(self._lists) > 1 else self._lists[0]
        if isinstance(answer, Exception):
            raise answer
        items, version = answer
        for item in items:
            yield [item], version
        if not items:
            yield [], version

    @asynccontextmanager
    async def watch(self, version: str) -> AsyncIterator[AsyncIterator[Event]]:
        self.watched_from.append(version)
        steps = self._watches.pop(0) if self._watches else [3600.0]
        if steps and isinstance(steps[0], Exception):
            raise steps[0]
        yield self._play(steps)

    async def _play(self, steps: list[Any]) -> AsyncIterator[Event]:
        for step in steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, Exception):
                raise step
            else:
                yield step


def play(script: Script, *, seconds: float = 60.0, inactivity: float = 90.0) -> ListSink:
    async def main() -> ListSink:
        sink = ListSink()
        informer = Informer(script, sink, inactivity=inactivity, jitter=lambda: 0.5)
        task = asyncio.create_task(informer.run())
        await asyncio.sleep(seconds)
        assert not task.done(), "an informer never ends by itself"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return sink

    return run(main())


def test_the_list_comes_first_and_the_events_follow_in_order() -> None:
    script = Script([([thing("a", 1)], "1")], [[event("ADDED", "b", 2), event("MODIFIED", "a", 3), event("DELETED", "b", 4), 3600.0]])
    assert play(script).log == ["put a", "keep a", "put b", "put a", "remove b"]


def test_a_watch_that_ends_goes_on_from_the_last_version_without_a_new_list() -> None:
    script = Script([([], "1")], [[event("ADDED", "a", 7)], [event("ADDED", "b", 9), 3600.0]])
    assert play(script).log == ["keep ", "put a", "put b"]
    assert script.watched_from == ["1", "7"]


def test_a_bookmark_moves_the_version_and_tells_nobody() -> None:
    bookmark = {"type": "BOOKMARK", "object": {"kind": "Job", "metadata": {"resourceVersion": "50"}}}
    script = Script([([], "1")], [[bookmark], [3600.0]])
    assert play(script).log == ["keep "]
    assert script.watched_from == ["1", "50"]


def test_a_list_is_taken_over_page_by_page() -> None:
    seen: list[list[str]] = []
    sink = ListSink()

    class Pages(Script):
        async def pages(self) -> AsyncIterator[tuple[list[Event], str]]:
            for name in ("a", "b"):
                seen.append(list(sink.log))  # what is taken over when the next page is asked for
                yield [thing(name, 1)], "5"

    version = asyncio.run(take_list(Pages([], []), sink))
    assert seen == [[], ["put a"]]
    assert sink.log == ["put a", "put b", "keep a,b"]
    assert version == "5"


def test_a_list_that_breaks_off_removes_nothing() -> None:
    sink = ListSink()
    sink.put(thing("old", 1))

    class Broken(Script):
        async def pages(self) -> AsyncIterator[tuple[list[Event], str]]:
            yield [thing("a", 2)], "5"
            raise GONE

    with pytest.raises(ClusterError):
        asyncio.run(take_list(Broken([], []), sink))
    assert sink.held == {"old", "a"}


def test_an_expired_version_lists_again() -> None:
    script = Script([([], "1"), ([thing("b", 90)], "99")], [[GONE], [3600.0]])
    assert play(script).log == ["keep ", "put b", "keep b"]
    assert script.watched_from == ["1", "99"]


def test_an_error_event_410_in_the_middle_of_a_stream_lists_again() -> None:
    expired = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}
    script = Script([([], "1"), ([thing("b", 90)], "99")], [[event("ADDED", "a", 2), expired], [3600.0]])
    assert play(script).log == ["keep ", "put a", "put b", "keep b"]


def test_another_error_event_goes_on_from_where_it_was() -> None:
    broken = {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcdserver: leader changed"}}
    script = Script([([], "1")], [[event("ADDED", "a", 2), broken], [event("ADDED", "b", 3), 3600.0]])
    assert play(script).log == ["keep ", "put a", "put b"]
    assert script.watched_from == ["1", "2"]


def test_a_broken_connection_is_made_again() -> None:
    script = Script([([], "1")], [[event("ADDED", "a", 2), DOWN], [event("ADDED", "b", 3), 3600.0]])
    assert play(script).log == ["keep ", "put a", "put b"]


def test_a_silent_connection_is_given_up() -> None:
    script = Script([([], "1")], [[event("ADDED", "a", 2), 1e6], [event("ADDED", "b", 3), 3600.0]])
    assert play(script, seconds=200, inactivity=90).log == ["keep ", "put a", "put b"]


def test_an_event_after_hours_of_silence_is_seen_at_once() -> None:
    script = Script([([], "1")], [*([1e6] for _ in range(40)), [1.0, event("ADDED", "a", 2), 1e6]])
    assert play(script, seconds=40 * 90 + 3, inactivity=90).log == ["keep ", "put a"]


def test_a_server_that_is_away_is_asked_ever_more_slowly_but_at_least_every_half_minute() -> None:
    script = Script([DOWN], [])
    play(script, seconds=600)
    gaps = [b - a for a, b in zip(script.listed_at, script.listed_at[1:], strict=False)]
    assert gaps[0] < 0.5
    assert max(gaps) <= 30.0
    assert len(script.listed_at) < 60


def test_a_server_that_hangs_up_at_once_is_not_asked_in_a_storm() -> None:
    script = Script([([], "1")], [[] for _ in range(1000)])
    play(script, seconds=60)
    assert len(script.watched_from) < 20


def test_the_time_the_server_asks_for_is_kept() -> None:
    busy = ClusterError("busy", status=429, retryable=True, retry_after=20.0)
    script = Script([busy, ([], "1")], [[3600.0]])
    play(script, seconds=60)
    assert script.listed_at[1] >= 20.0


def test_nobody_is_told_that_it_is_in_step_before_the_first_list() -> None:
    async def main() -> None:
        informer = Informer(Script([DOWN, DOWN, ([], "1")], [[3600.0]]), ListSink(), jitter=lambda: 0.5)
        task = asyncio.create_task(informer.run())
        await asyncio.sleep(0.01)
        assert not informer.synced.is_set()
        await asyncio.wait_for(informer.synced.wait(), 5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())
