"""A real Envoy's access log is rotated under load, and its counts are told: what is lost can be seen, and nothing is lost by rotating."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from flywheel.runtime.router_agent.access_log import MAX_EXPERIMENTS, AccessLog, Ledger, Limits
from flywheel.runtime.router_agent.envoy import Counts, Envoy
from flywheel.specs.envoy import Routes
from flywheel_collector.logline import SLICES
from flywheel_collector.reconcile import _routes
from tests.router.harness import QUIET, ROLLOUT, Model, Router, Tally, at, endpoints

Models = tuple[Model, Model]


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
async def envoy(router: Router) -> AsyncIterator[Envoy]:
    envoy = Envoy(router.admin)
    yield envoy
    await envoy.close()


Care = Callable[..., AccessLog]


@pytest.fixture
def care(router: Router, envoy: Envoy, now: list[float]) -> Care:
    def care(**limits: Any) -> AccessLog:
        return AccessLog(router.directory, envoy, Limits(**limits), clock=lambda: now[0])

    return care


def all_lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in directory.glob("access.jsonl*") for line in path.read_bytes().splitlines()]


def told(router: Router) -> dict[str, Any]:
    ledger: dict[str, Any] = json.loads((router.directory / "router.json").read_text())
    return ledger


async def test_a_log_rotated_under_load_loses_no_line_and_doubles_none(router: Router, models: Models, care: Care) -> None:
    await router.apply(ROLLOUT, endpoints(models))
    log, stop, tally = care(rotate_bytes=4000), asyncio.Event(), Tally()
    load = asyncio.create_task(router.load(stop, tally))
    while log.counts["rotated"] < 5:
        await log.step(ROLLOUT)
        await asyncio.sleep(0.05)
    stop.set()
    await load
    assert not tally.failed

    async def written() -> bool:
        return len(all_lines(router.directory)) >= tally.total

    await router.until("every line is written", written)
    ids = Counter(line["requestId"] for line in all_lines(router.directory))
    assert (len(ids), max(ids.values())) == (tally.total, 1)
    await log.step(ROLLOUT)
    slices = Counter(line["slice"] for line in all_lines(router.directory))
    assert told(router)["requests"][ROLLOUT.experiment] == slices, "Envoy has counted what stands in its log"
    assert told(router)["routes"]["2"] == {"experiment": ROLLOUT.experiment, "salt": ROLLOUT.salt, "weightPercent": 25}


async def test_an_agent_that_dies_between_the_two_steps_is_made_good_by_the_next(router: Router, models: Models, care: Care) -> None:
    await router.apply(QUIET, endpoints(models))
    await router.ask("ann")
    await router.logged(1)
    router.log_file.rename(router.log_file.with_name("access.jsonl.1"))
    await care().step(QUIET)
    await router.ask("bob")
    (line,) = await router.logged(1)
    assert line["user"] == "bob"


async def test_an_old_log_is_rotated_and_an_empty_one_is_not(router: Router, models: Models, now: list[float], care: Care) -> None:
    await router.apply(QUIET, endpoints(models))
    log = care(rotate_seconds=60)
    now[0] += 61
    await log.step(QUIET)
    assert not list(router.directory.glob("access.jsonl.*"))
    await router.ask("ann")
    await router.logged(1)
    await log.step(QUIET)
    assert len(list(router.directory.glob("access.jsonl.*"))) == 1
    assert log.counts["rotated"] == 1


async def test_unread_logs_past_the_limit_are_dropped_oldest_first_and_counted(router: Router, models: Models, care: Care) -> None:
    await router.apply(QUIET, endpoints(models))
    log = care(rotate_bytes=1, keep_bytes=1000)
    for user in ("a", "b", "c", "d"):
        await router.ask(user)
        await router.logged(1)
        await log.step(QUIET)
        await router.until("a new log", _exists(router))
    kept = [line["user"] for line in all_lines(router.directory)]
    assert sorted(kept) == ["c", "d"]
    assert log.counts["dropped"] == 2
    assert sum(told(router)["requests"][""].values()) == 4


def _exists(router: Router) -> Any:
    async def exists() -> bool:
        return router.log_file.exists()

    return exists


async def test_a_directory_that_is_away_does_not_end_the_agent(router: Router, now: list[float], envoy: Envoy) -> None:
    log = AccessLog(router.directory / "none", envoy, clock=lambda: now[0])
    await log.step(None)
    (router.directory / "none").mkdir()
    (router.directory / "none" / ".router.json.tmp").mkdir()  # cannot be written
    await log.step(QUIET)
    assert log.counts["failed"] == 1
    (router.directory / "none" / ".router.json.tmp").rmdir()
    await log.step(at(50, 9))
    assert (router.directory / "none" / "router.json").exists()


def test_a_new_life_of_envoy_counts_on_from_the_last() -> None:
    ledger = Ledger()
    ledger.count(Counts(10, {("x", "control"): 7}, 0), 1000)
    ledger.count(Counts(12, {("x", "control"): 9}, 0), 2000)
    ledger.count(Counts(1, {("x", "control"): 2, ("x", "rest"): 1}, 0), 3000)
    assert ledger.requests == {"x": {"control": 11, "rest": 1}}
    ledger.count(Counts(30, {("x", "control"): 1}, 0), 4000)  # it was up for longer than the last look was ago, but counts less
    assert ledger.requests == {"x": {"control": 12, "rest": 1}}
    ledger.count(Counts(31, {("x", "control"): 4}, 0), 5000)
    assert ledger.requests == {"x": {"control": 15, "rest": 1}}


def test_what_is_told_is_bounded() -> None:
    ledger = Ledger()
    for revision in range(1, 400):
        ledger.know(Routes(revision, ROLLOUT.stable, ROLLOUT.candidate, f"e{revision}", "salt", 10))
    assert (len(ledger.routes), min(map(int, ledger.routes))) == (256, 144)
    ledger.count(Counts(1, {(f"e{n}", "rest"): 1 for n in range(400)}, 0), 1)
    assert len(ledger.requests) == MAX_EXPERIMENTS
    assert set(ledger.requests) <= {f"e{n}" for n in range(144, 400)}


async def test_the_collector_computes_the_slices_that_envoy_chose(router: Router, models: Models, care: Care) -> None:
    """The one place where both are in hand: the slices of a real Envoy, and the collector's own hash of the routes its agent tells."""
    users = [f"user-{number}" for number in range(150)] + ["u" * length for length in (1, 7, 31, 32, 33, 100, 256)] + ['quote"brace}']
    for revision, weight in ((2, 25), (3, 50), (4, 0.5)):
        await router.apply(at(weight, revision), endpoints(models))
        for user in users:
            await router.ask(user)
    log = care()
    for revision, weight in ((2, 25), (3, 50), (4, 0.5)):
        await log.step(at(weight, revision))
    lines = await router.logged(3 * len(users))
    routes = _routes(told(router))
    assert {line["revision"] for line in lines} == set(routes) == {2, 3, 4}
    assert [SLICES[routes[line["revision"]].slice(line["user"])] for line in lines] == [line["slice"] for line in lines]
    assert {line["slice"] for line in lines} == {"control", "rest", "candidate"}


async def test_a_full_disk_fails_no_request_and_what_is_lost_can_be_seen(router: Router, models: Models, care: Care, envoy: Envoy) -> None:
    await router.apply(ROLLOUT, endpoints(models))
    log = care()
    router.log_file.unlink()
    router.log_file.symlink_to("/dev/full")
    assert await envoy.reopen_logs()
    for number in range(10):
        status, _, _ = await router.ask(f"user-{number}")
        assert status == 200

    async def failed() -> bool:
        await log.step(ROLLOUT)
        return log.failed_writes > 0

    await router.until("Envoy has noticed", failed)
    router.log_file.unlink()  # there is space again
    await log.step(ROLLOUT)
    for number in range(5):
        await router.ask(f"user-{number}")
    found = await router.logged(5)
    assert len(found) < 15, "some are lost for good"
    await log.step(ROLLOUT)
    assert sum(told(router)["requests"][ROLLOUT.experiment or ""].values()) == 15
