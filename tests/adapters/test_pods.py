"""What our own pods answer: router agents, trainers and the collector."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from flywheel.adapters.collector import CollectorExperiments
from flywheel.adapters.router import AgentRouter
from flywheel.adapters.trainer import TrainerPoll
from flywheel.plan.rollout_observed import Acknowledgement
from flywheel.ports import ClusterError


def serving(path: str, answer: Any, *, status: int = 200, delay: float = 0.0) -> TestServer:
    async def handle(_request: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        return web.json_response(answer, status=status)

    app = web.Application()
    app.router.add_route("*", path, handle)
    return TestServer(app, host="127.0.0.1")


async def asked(answer: Any, **how: Any) -> Acknowledgement:
    async with serving("/status", answer, **how) as http, aiohttp.ClientSession() as session:
        assert http.port is not None
        (found,) = await AgentRouter(session, http.port).acknowledgements({"router-0": "127.0.0.1"})
        return found


async def test_a_router_that_has_taken_a_revision_acknowledges_it() -> None:
    assert await asked({"revision": 7, "accepted": True, "error": None}) == Acknowledgement("router-0", 7, True)


async def test_a_router_that_envoy_refused_says_why() -> None:
    assert await asked({"revision": 7, "accepted": False, "error": "no such cluster"}) == Acknowledgement(
        "router-0", 7, False, "no such cluster"
    )


@pytest.mark.parametrize("revision", ["7", None, -1, True, 7.5])
async def test_a_revision_that_can_not_be_is_not_an_acknowledgement(revision: object) -> None:
    assert not (await asked({"revision": revision, "accepted": True})).accepted


@pytest.mark.parametrize("answer", [[], "yes", None])
async def test_an_answer_of_another_form_is_not_an_acknowledgement(answer: object) -> None:
    assert not (await asked(answer)).accepted


async def test_a_silent_router_is_an_unaccepted_one_after_a_second() -> None:
    answer = {"revision": 7, "accepted": True}
    async with serving("/status", answer, delay=30.0) as http, aiohttp.ClientSession() as session:
        assert http.port is not None
        async with asyncio.timeout(3):
            (found,) = await AgentRouter(session, http.port).acknowledgements({"router-0": "127.0.0.1"})
    assert not found.accepted


async def test_routers_are_asked_at_once_and_all_are_answered_for() -> None:
    async with serving("/status", {"revision": 3, "accepted": True}) as http, aiohttp.ClientSession() as session:
        assert http.port is not None
        found = await AgentRouter(session, http.port).acknowledgements({"a": "127.0.0.1", "b": "", "c": "127.0.0.1"})
    assert [(a.pod, a.accepted) for a in found] == [("a", True), ("b", False), ("c", True)]


async def test_a_trainer_tells_its_progress_and_a_broken_one_is_nothing() -> None:
    async with serving("/progress", {"step": 3}) as http, aiohttp.ClientSession() as session:
        assert http.port is not None
        assert await TrainerPoll(session, http.port).progress("127.0.0.1") == {"step": 3}
    async with serving("/progress", {}, status=500) as http, aiohttp.ClientSession() as session:
        assert http.port is not None
        assert await TrainerPoll(session, http.port).progress("127.0.0.1") is None


async def test_an_answer_without_end_does_not_fill_our_memory() -> None:
    async with serving("/progress", {"x": "y" * 1_000_000}) as http, aiohttp.ClientSession() as session:
        assert http.port is not None
        assert await TrainerPoll(session, http.port).progress("127.0.0.1") is None


@pytest.mark.parametrize(("status", "retryable"), [(409, False), (400, False), (503, True), (404, True)])
async def test_a_collector_that_refuses_says_whether_a_retry_can_help(status: int, retryable: bool) -> None:
    async with serving("/v1/experiments/{name}", {"error": "no"}, status=status) as http, aiohttp.ClientSession() as session:
        with pytest.raises(ClusterError) as caught:
            await CollectorExperiments(session).put(str(http.make_url("")), "demo.x.1", {})
    assert caught.value.retryable is retryable


async def test_a_collector_that_is_away_is_retryable() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ClusterError) as caught:
            await CollectorExperiments(session).put("http://127.0.0.1:9", "demo.x.1", {})
    assert caught.value.retryable
