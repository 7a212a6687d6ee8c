"""A kind that may come and go, and a queue that may not be there: neither is ever an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from flywheel.adapters.discovery import OptionalKind
from flywheel.adapters.kueue import KueueQueues
from flywheel.adapters.watch import Informer
from flywheel.plan.base import Manifest
from flywheel.ports import ClusterError

VERSION = "jobset.x-k8s.io/v1alpha2"
THERE = {"resources": [{"name": "jobsets"}, {"name": "jobsets/status"}]}
MISSING = ClusterError("404", status=404, retryable=False)
DOWN = ClusterError("503", status=503, retryable=True)


class Api:
    """Answers what the test says, and tells when it was asked."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def request(self, method: str, path: str, **_: Any) -> Any:
        self.asked.append(path)
        answer = self.answer(path)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Bin:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.held: dict[str, Manifest] = {}

    def put(self, body: Manifest) -> None:
        self.held[body["metadata"]["uid"]] = body

    def remove(self, body: Manifest) -> None:
        self.held.pop(body["metadata"]["uid"], None)

    def present(self) -> set[str]:
        return set(self.held)

    def keep(self, listed: set[str], before: set[str]) -> None:
        for uid in before - listed:
            self.held.pop(uid, None)


class Objects:
    """A source of one object whose watch never ends; `broken` makes it fail as no network does."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    async def pages(self) -> AsyncIterator[tuple[list[Manifest], str]]:
        if self.broken:
            raise RuntimeError("a bug")
        yield [{"metadata": {"uid": "u"}}], "1"

    def watch(self, version: str) -> AbstractAsyncContextManager[AsyncIterator[Manifest]]:
        @asynccontextmanager
        async def nothing() -> AsyncIterator[AsyncIterator[Manifest]]:
            async def events() -> AsyncIterator[Manifest]:
                await asyncio.Event().wait()
                yield {}

            yield events()

        return nothing()


def optional(api: Api, sink: Bin, source: Objects | None = None) -> OptionalKind:
    return OptionalKind(api, VERSION, "JobSet", [(lambda: Informer(source or Objects(), sink), sink)], every=0.001)  # type: ignore[arg-type]


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


async def test_a_kind_is_watched_from_the_moment_it_appears_and_forgotten_when_its_crd_goes() -> None:
    api, sink = Api(lambda path: MISSING), Bin()
    kind = optional(api, sink)
    task = asyncio.create_task(kind.run())
    await kind.known()
    assert (kind.available, sink.held) == (False, {})
    api.answer = lambda path: THERE
    await eventually(lambda: kind.available)
    assert set(sink.held) == {"u"}
    api.answer = lambda path: DOWN  # an API server that is away has not removed anything
    before = len(api.asked)
    await eventually(lambda: len(api.asked) > before + 3)
    assert kind.available
    api.answer = lambda path: {"resources": [{"name": "others"}]}
    await eventually(lambda: not kind.available)
    assert sink.held == {}
    task.cancel()


async def test_the_start_waits_for_the_objects_of_a_kind_that_is_there() -> None:
    kind = optional(Api(lambda path: THERE), Bin())
    task = asyncio.create_task(kind.run())
    await kind.known()
    assert kind.available
    task.cancel()


async def test_a_watch_that_dies_takes_the_operator_along_instead_of_leaving_it_blind() -> None:
    kind = optional(Api(lambda path: THERE), Bin(), Objects(broken=True))
    with pytest.raises(RuntimeError, match="a bug"):
        await asyncio.wait_for(kind.run(), 20)


def workload(**conditions: tuple[str, str, str]) -> Manifest:
    return {"status": {"conditions": [{"type": t, "status": s, "reason": r, "message": m} for t, (s, r, m) in conditions.items()]}}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], None),
        ([workload(QuotaReserved=("False", "Pending", "insufficient quota"))], "Pending: insufficient quota"),
        (
            [workload(Evicted=("True", "Preempted", "for a better one"), Admitted=("False", "NoReservation", "x"))],
            "Preempted: for a better one",
        ),
        ([workload(QuotaReserved=("True", "QuotaReserved", "ok"), Admitted=("True", "Admitted", "ok"))], None),
        ([{}], None),
    ],
)
async def test_kueues_word_is_that_of_the_condition_that_tells_the_most(items: list[Manifest], expected: str | None) -> None:
    assert await KueueQueues(Api(lambda path: {"items": items})).waits_for("demo", "uid-1") == expected  # type: ignore[arg-type]


async def test_an_older_kueue_is_asked_in_its_own_version_and_none_at_all_says_nothing() -> None:
    old = Api(lambda path: MISSING if "v1beta2" in path else {"items": [workload(QuotaReserved=("False", "Pending", "full"))]})
    assert await KueueQueues(old).waits_for("demo", "uid-1") == "Pending: full"  # type: ignore[arg-type]
    assert await KueueQueues(Api(lambda path: MISSING)).waits_for("demo", "uid-1") is None  # type: ignore[arg-type]
    forbidden = ClusterError("403", status=403, retryable=False)
    assert await KueueQueues(Api(lambda path: forbidden)).waits_for("demo", "uid-1") is None  # type: ignore[arg-type]
