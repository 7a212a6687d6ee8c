"""The operator's parts together, on an API that answers from a table and in fake time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from flywheel.api.base import API_VERSION
from flywheel.plan.base import Defaults
from flywheel.runtime.assembly import MAX_SILENCE, RELIST, Operator
from flywheel.runtime.keys import Key
from flywheel.runtime.metrics import Metrics
from flywheel.runtime.observe import World
from tests.runtime.faketime import LoopClock, run

FLYWHEEL = Key("Flywheel", "demo", "f")


def flywheel(name: str = "f", version: int = 1) -> dict[str, Any]:
    meta = {
        "name": name,
        "namespace": "demo",
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"apiVersion": API_VERSION, "kind": "Flywheel", "metadata": meta, "spec": {}}


class Table:
    """Lists what it is given; its watches are accepted and tell nothing."""

    def __init__(self) -> None:
        self.flywheels: list[dict[str, Any]] = []
        self.lists = 0

    async def request(self, method: str, path: str, **_: Any) -> dict[str, Any]:
        assert method == "GET", f"{method} {path}"
        self.lists += 1
        items = self.flywheels if path.endswith("/flywheels") else []
        return {"metadata": {"resourceVersion": "9"}, "items": list(items)}

    @contextlib.asynccontextmanager
    async def stream(self, path: str, **_: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        async def silent() -> AsyncIterator[dict[str, Any]]:
            await asyncio.sleep(3600)
            yield {}

        yield silent()


@contextlib.asynccontextmanager
async def operating(table: Table) -> AsyncIterator[tuple[Operator, Metrics]]:
    metrics = Metrics()
    world = World(Defaults(), lambda address: None, None, None)  # type: ignore[arg-type, return-value]  # nobody asks them here
    operator = Operator(table, world=world, experiments=None, clock=LoopClock(), metrics=metrics)  # type: ignore[arg-type]
    work = [operator.loop.run(), operator.relist(), operator.sync(), *(informer.run() for informer in operator.informers)]
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield operator, metrics
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def objects(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("flywheel_objects", {"kind": "Flywheel", "phase": "Pending"})


def test_what_kopf_never_told_is_seen_at_the_next_list() -> None:
    async def main() -> None:
        table = Table()
        async with operating(table) as (operator, _):
            await operator.lead()
            assert operator.cache.get(FLYWHEEL) is None
            table.flywheels = [flywheel()]
            await asyncio.sleep(RELIST + 1)
            assert operator.cache.get(FLYWHEEL) is not None
            table.flywheels = []
            await asyncio.sleep(RELIST + 1)
            assert operator.cache.get(FLYWHEEL) is None, "a deletion that was never told is seen too"

    run(main())


def test_a_standby_keeps_its_caches_warm_looks_at_nothing_and_says_nothing_of_objects() -> None:
    async def main() -> None:
        table = Table()
        table.flywheels = [flywheel()]
        async with operating(table) as (operator, metrics):
            await asyncio.sleep(3600)
            assert operator.synced.is_set()
            assert operator.cache.get(FLYWHEEL) is not None
            assert operator.alive() is None
            seconds = {"kind": "Flywheel"}
            assert metrics.registry.get_sample_value("flywheel_operator_reconcile_seconds_count", seconds) is None
            assert metrics.registry.get_sample_value("flywheel_operator_queue_depth") == 0
            assert metrics.registry.get_sample_value("flywheel_operator_last_tick_timestamp_seconds") == 0
            assert operator.loop.depth < 10, "a queue that nobody empties must not grow"

    run(main())


def test_whoever_takes_over_reads_the_five_kinds_once_more_and_then_looks_at_everything() -> None:
    async def main() -> None:
        table = Table()
        table.flywheels = [flywheel()]
        async with operating(table) as (operator, metrics):
            await asyncio.sleep(RELIST / 2)
            table.flywheels = [flywheel(version=5), flywheel("late", 6)]  # while the watch was silent
            before = table.lists
            await operator.lead()
            assert table.lists - before == 5
            await asyncio.sleep(1)
            assert metrics.registry.get_sample_value("flywheel_operator_reconcile_seconds_count", {"kind": "Flywheel"}) == 2
            assert metrics.registry.get_sample_value("flywheel_operator_awaiting_first_pass") == 0

    run(main())


def test_a_loop_whose_workers_all_hang_is_told_to_the_liveness_probe_and_one_that_stands_by_is_not() -> None:
    async def main() -> None:
        async with operating(Table()) as (operator, _):
            await operator.lead()

            over = False

            async def hangs(key: Key) -> None:
                while not over:
                    with contextlib.suppress(asyncio.CancelledError):  # not even the time limit of a pass ends it
                        await asyncio.sleep(1e6)

            operator.loop._reconcile = hangs  # type: ignore[assignment]
            for number in range(64):
                operator.loop.wake(Key("Rollout", "demo", f"r{number}"))
            await asyncio.sleep(MAX_SILENCE - 10)
            assert operator.alive() is None
            await asyncio.sleep(20)
            assert "the loop has not ticked for" in str(operator.alive())
            over = True

    run(main())
