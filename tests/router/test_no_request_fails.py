"""Ramp, promotion, rollback, and arms that die: under load, with streams under way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from tests.processes import free_ports
from tests.router.harness import CANDIDATE, PATH, QUIET, ROLLOUT, STABLE, Model, Router, Tally, at, endpoints

Models = tuple[Model, Model]


def candidate_users(slices: dict[str, str]) -> list[str]:
    return [user for user, slice_ in slices.items() if slice_ == "candidate"]


@asynccontextmanager
async def load(router: Router, *, query: str = "", workers: int = 8) -> AsyncIterator[Tally]:
    tally, stop = Tally(), asyncio.Event()
    task = asyncio.create_task(router.load(stop, tally, workers, query))
    try:
        yield tally
    finally:
        stop.set()
        await task


async def test_ramp_promotion_and_rollback_fail_nothing(router: Router, models: Models) -> None:
    await router.apply(QUIET, endpoints(models))
    promoted = replace(QUIET, stable=CANDIDATE)
    async with load(router) as tally, load(router, query="?stream=4&pause=0.02", workers=4) as streams:
        steps = [at(1, 2), at(5, 3), at(25, 4), at(50, 5), replace(promoted, revision=6)]  # ramp, promotion
        steps += [replace(QUIET, revision=7), at(50, 8), replace(QUIET, revision=9)]  # back, another ramp, rollback
        held = QUIET
        for routes in steps:
            await router.apply(routes, endpoints(models), keep=[held])
            held = routes
            await router.more(tally, 100)
            await router.more(streams, 8)  # about two for each of their users
        before = len(models[1].seen)
        await router.more(tally, 100)
        await router.more(streams, 8)
        assert len(models[1].seen) == before  # after the rollback the candidate gets nothing new
    assert tally.failed == []
    assert streams.failed == []
    assert tally.total > 500
    assert min(tally.models["stable"], tally.models["candidate"]) > 50


async def test_a_killed_candidate_is_answered_for_by_stable(router: Router, models: Models) -> None:
    await router.apply(at(50, 2), endpoints(models))
    users = candidate_users(await router.slices([f"user-{number}" for number in range(40)]))
    async with load(router) as tally:
        await router.more(tally, 100)
        await models[1].kill()
        await router.more(tally, 100)
        await router.unhealthy(models[1])
        await router.more(tally, 100)
        _, got, _ = await router.ask(users[0])
        await models[1].start()
        await router.until("the candidate answers again", lambda: answered_by(router, users[0], "g1"))
    assert tally.failed == []
    assert got["x-flywheel-generation"] == "initial"
    await router.until("the fallback is in the access log", lambda: fell_back(router))
    assert {(line["assignedArm"], line["assignedGeneration"], line["answeredGeneration"]) for line in fallbacks(router)} == {
        (CANDIDATE.arm, "g1", "initial")
    }


def fallbacks(router: Router) -> list[dict[str, Any]]:
    return [line for line in router.lines() if line["slice"] == "candidate" and line["answeredArm"] == STABLE.arm]


async def fell_back(router: Router) -> bool:
    return bool(fallbacks(router))


async def answered_by(router: Router, user: str, generation: str) -> bool:
    return (await router.ask(user))[1]["x-flywheel-generation"] == generation


async def test_a_candidate_that_says_it_is_unhealthy_is_left(router: Router, models: Models) -> None:
    await router.apply(at(50, 2), endpoints(models))
    user = candidate_users(await router.slices([f"user-{number}" for number in range(20)]))[0]
    models[1].healthy = False
    await router.until("stable answers for the candidate", lambda: answered_by(router, user, "initial"), seconds=5)


async def test_when_no_pod_says_it_is_healthy_they_are_tried_all_the_same(router: Router, models: Models) -> None:
    """A wrong health check must not be the end of the service."""
    await router.apply(at(50, 2), endpoints(models))
    for model in models:
        model.healthy = False
    await router.unhealthy(*models)
    async with load(router) as tally:
        await router.more(tally, 100)
    assert tally.failed == []
    assert tally.total > 20


async def test_a_candidate_without_pods_is_answered_for_by_stable(router: Router, models: Models) -> None:
    await router.apply(at(50, 2), {STABLE.service: [models[0].endpoint]})
    async with load(router) as tally:
        await router.more(tally, 100)
    assert tally.failed == []
    assert set(tally.models) == {"stable"}


async def test_a_pod_that_is_not_ready_gets_nothing_new(router: Router, models: Models) -> None:
    waiting = replace(models[1].endpoint, ready=False)
    await router.apply(at(50, 2), {STABLE.service: [models[0].endpoint], CANDIDATE.service: [waiting]})
    async with load(router) as tally:
        await router.more(tally, 100)
    assert tally.failed == []
    assert set(tally.models) == {"stable"}


async def test_one_healthy_pod_keeps_the_candidates_whole_slice(router: Router, models: Models) -> None:
    second = Model("candidate", free_ports(1)[0], healthy=False)
    await second.start()
    try:
        arms = {STABLE.service: [models[0].endpoint], CANDIDATE.service: [models[1].endpoint, second.endpoint]}
        await router.apply(at(50, 2), arms)
        users = candidate_users(await router.slices([f"user-{number}" for number in range(40)]))
        generations = {(await router.ask(user))[1]["x-flywheel-generation"] for user in users for _ in range(3)}
    finally:
        await second.kill()
    assert generations == {"g1"}
    assert not second.seen


async def test_a_long_reply_that_has_not_begun_is_asked_again_of_stable(router: Router, models: Models) -> None:
    await router.apply(at(50, 2), endpoints(models))
    user = candidate_users(await router.slices([f"user-{number}" for number in range(20)]))[0]
    models[1].delay = 60
    models[1].seen.clear()
    waiting = asyncio.create_task(router.ask(user))
    await router.until("the candidate has the request", lambda: seen(models[1], 1))
    await models[1].kill()
    status, got, _ = await waiting
    assert (status, got["x-flywheel-generation"]) == (200, "initial")


async def seen(model: Model, count: int) -> bool:
    return len(model.seen) >= count


async def test_a_stream_that_has_begun_is_never_repeated(router: Router, models: Models) -> None:
    await router.apply(at(50, 2), endpoints(models))
    user = candidate_users(await router.slices([f"user-{number}" for number in range(20)]))[0]
    for model in models:
        model.seen.clear()
    received = b""
    async with router.session.post(f"{router.url}{PATH}?stream=50", headers={"x-user-id": user}) as reply:
        received += await reply.content.readuntil(b"\n\n")
        await models[1].kill()
        try:
            received += await reply.content.read()
        except Exception as error:  # a broken stream is what the app must see
            assert "payload" in str(error).lower()  # noqa: PT017
        else:
            raise AssertionError("the broken stream looked complete")
    assert received.count(b"data: candidate 0\n") == 1
    assert b"stable" not in received
    assert (len(models[1].seen), len(models[0].seen)) == (1, 0)


async def test_chunks_pass_one_by_one(router: Router, models: Models) -> None:
    await router.apply(QUIET, endpoints(models))
    loop, arrivals = asyncio.get_running_loop(), []
    async with router.session.post(f"{router.url}{PATH}?stream=5&pause=0.1", headers={"x-user-id": "ann"}) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.headers["x-flywheel-generation"] == "initial"
        async for chunk in reply.content.iter_any():
            arrivals.append((loop.time(), chunk))
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(arrivals)]
    assert len(arrivals) >= 5
    assert sum(gap > 0.05 for gap in gaps) >= 4


async def test_streams_outlive_their_pods_place_in_the_routes(router: Router, models: Models) -> None:
    """Routes change, the pod leaves the list, then the whole cluster goes: what is under way runs to its end."""
    await router.apply(at(50, 2), endpoints(models))
    users = candidate_users(await router.slices([f"user-{number}" for number in range(40)]))[:5]
    models[1].seen.clear()
    models[1].last_words.clear()
    streams = [asyncio.create_task(router.ask(user, query="?stream=30&pause=0.1")) for user in users]
    await router.until("the candidate has the requests", lambda: seen(models[1], len(users)))
    back = replace(QUIET, revision=3)
    await router.apply(back, endpoints(models), keep=[ROLLOUT])
    await asyncio.sleep(0.4)
    await router.apply(back, {STABLE.service: [models[0].endpoint]}, keep=[ROLLOUT])
    await asyncio.sleep(0.4)
    await router.apply(back, {STABLE.service: [models[0].endpoint]})
    await router.until("the cluster is gone", lambda: cluster_gone(router))
    assert not any(task.done() for task in streams)
    models[1].last_words.set()
    for task in streams:
        status, got, text = await task
        assert (status, got["x-flywheel-generation"]) == (200, "g1")
        assert text.count("data: candidate") == 30
        assert text.endswith("[DONE]\n\n")


async def cluster_gone(router: Router) -> bool:
    return CANDIDATE.service not in await router.get(f"{router.admin}/clusters")


async def test_a_large_request_is_repeated_too(router: Router, models: Models) -> None:
    await router.apply(at(50, 2), endpoints(models))
    user = candidate_users(await router.slices([f"user-{number}" for number in range(20)]))[0]
    await models[1].kill()
    async with router.session.post(f"{router.url}{PATH}", data=b"x" * 3_000_000, headers={"x-user-id": user}) as reply:
        assert reply.status == 200
        assert await reply.json() == {"model": "stable"}
