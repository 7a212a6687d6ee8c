"""The agent between a (fake) API server and a real Envoy."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flywheel.runtime.router_agent.agent import Agent
from flywheel.runtime.router_agent.envoy import Envoy
from flywheel.runtime.router_agent.kube import KubeApi
from flywheel.runtime.router_agent.server import exposition
from flywheel.runtime.router_agent.settings import Settings
from flywheel.runtime.router_agent.store import Store
from flywheel.specs.envoy import format_routes
from tests.processes import free_ports
from tests.router.fake_api import CONFIG_MAPS, FakeApi
from tests.router.harness import CANDIDATE, PATH, QUIET, ROLLOUT, STABLE, Model, Router, Tally, at

Models = tuple[Model, Model]


@pytest.fixture
async def api(models: Models) -> AsyncIterator[FakeApi]:
    api = FakeApi(free_ports(1)[0])
    await api.start()
    await api.set_endpoints(STABLE.service, [models[0].endpoint])
    await api.set_endpoints(CANDIDATE.service, [models[1].endpoint])
    yield api
    await api.stop()


@dataclass
class Running:
    agent: Agent
    router: Router

    async def serves(self, revision: int) -> bool:
        status = await self.agent.status()
        return status.revision == revision and status.accepted

    async def until_served(self, revision: int) -> None:
        await self.router.until(f"revision {revision} is served", lambda: self.serves(revision))


@asynccontextmanager
async def running(router: Router, api: FakeApi, **changes: Any) -> AsyncIterator[Running]:
    settings = Settings("demo", "demo", "demo-router-0", api.url, run=router.directory, seed=router.directory / "seed.json")
    settings = replace(settings, admin=router.admin, linger_seconds=0.5, health_interval=0.3, **changes)
    kube, envoy = KubeApi(settings.api, router.directory), Envoy(settings.admin)
    agent = Agent(settings, kube, envoy, Store(settings.run))
    task = asyncio.create_task(agent.run())
    try:
        yield Running(agent, router)
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kube.close()
        await envoy.close()


async def test_routes_are_followed_and_acknowledged(router: Router, api: FakeApi) -> None:
    async with running(router, api) as it:
        status = await it.agent.status()
        assert (status.revision, status.accepted) == (0, False)
        assert not await it.agent.ready()
        await api.set_routes(QUIET)
        await it.until_served(1)
        assert await it.agent.ready()
        assert (await it.agent.status()).body() == {"revision": 1, "accepted": True, "error": None}
        await api.set_routes(ROLLOUT)
        await it.until_served(2)
        slices = await router.slices([f"user-{number}" for number in range(40)])
        assert set(slices.values()) == {"control", "rest", "candidate"}


async def test_a_weight_is_swapped_within_milliseconds(router: Router, api: FakeApi) -> None:
    await api.set_routes(ROLLOUT)
    async with running(router, api) as it:
        await it.until_served(2)
        reactions = []
        for revision in range(3, 43):
            await api.set_routes(at(revision, revision))
            await it.until_served(revision)
            reactions.append(it.agent.reaction_seconds)
    assert sorted(reactions)[10] < 0.05  # the lower quartile: the machine has other things to do too


async def test_an_older_revision_is_ignored_and_named(router: Router, api: FakeApi) -> None:
    await api.set_routes(at(50, 7))
    async with running(router, api) as it:
        await it.until_served(7)
        await api.set_routes(at(5, 6))
        await router.until("the refusal", lambda: refused(it, "revision 6 is older than 7"))
        await api.set_routes(at(5, 7))
        await router.until("the refusal", lambda: refused(it, "revision 7 was seen before with other content"))
        assert await it.serves(7)
        await api.set_routes(at(5, 8))
        await it.until_served(8)
        assert (await it.agent.status()).error is None


async def says(it: Running, body: dict[str, Any]) -> bool:
    return (await it.agent.status()).body() == body


async def refused(it: Running, text: str) -> bool:
    return text in ((await it.agent.status()).error or "")


async def test_the_newest_revision_survives_the_agent(router: Router, api: FakeApi) -> None:
    await api.set_routes(at(50, 7))
    async with running(router, api) as it:
        await it.until_served(7)
    await api.set_routes(at(5, 6))
    async with running(router, api) as it:
        await router.until("the refusal", lambda: refused(it, "revision 6 is older than 7"))
        assert await it.serves(7)


async def test_bad_routes_change_nothing_and_are_named(router: Router, api: FakeApi) -> None:
    await api.set_routes(QUIET)
    async with running(router, api) as it:
        await it.until_served(1)
        await api.set_routes(format_routes(at(25, 2)).replace("25", "60"))
        await router.until("the refusal", lambda: refused(it, "weightPercent must be between 0 and 50"))
        await api.delete_routes()
        await router.until("the refusal", lambda: refused(it, "ConfigMap demo-routes"))
        assert await it.serves(1)
        assert (await router.ask("ann"))[0] == 200


async def test_broken_watches_and_expired_versions_lose_nothing(router: Router, api: FakeApi) -> None:
    await api.set_routes(QUIET)
    async with running(router, api) as it:
        await it.until_served(1)
        await api.cut_watches()
        await api.set_routes(at(5, 2))
        await it.until_served(2)
        await api.forget_history()
        await api.set_routes(at(25, 3))
        await it.until_served(3)
        assert it.agent.counts["reconnects"] > 0
        assert api.expired > 0


async def test_traffic_flows_while_the_api_server_is_away_and_its_return_is_noticed(router: Router, api: FakeApi) -> None:
    await api.set_routes(at(25, 2))
    async with running(router, api) as it:
        await it.until_served(2)
        await api.stop()
        await asyncio.sleep(0.5)
        assert (await router.ask("ann"))[0] == 200
        await api.start()
        await api.set_routes(QUIET.__class__(revision=3, stable=CANDIDATE))
        await it.until_served(3)
        assert (await router.ask("ann"))[1]["x-flywheel-generation"] == "g1"


async def test_without_the_api_server_the_mounted_routes_and_remembered_endpoints_serve(router: Router, api: FakeApi) -> None:
    await api.set_routes(at(25, 2))
    async with running(router, api) as it:
        await it.until_served(2)
    await api.stop()
    (router.directory / "seed.json").write_text(format_routes(at(50, 3)))
    async with running(router, api) as it:
        await it.until_served(3)
        assert (await router.ask("ann"))[0] == 200


async def test_endpoints_follow_their_slices(router: Router, api: FakeApi, models: Models) -> None:
    second = Model("second", free_ports(1)[0])
    await second.start()
    await api.set_routes(QUIET)
    async with running(router, api) as it:
        await it.until_served(1)
        await api.set_endpoints(STABLE.service, [second.endpoint])
        await router.until("the new pod answers", lambda: answers(router, "second"))
        await api.set_endpoints(STABLE.service, [replace(second.endpoint, ready=False)])
        await router.until("it is counted", lambda: counted(it, 'endpoints{service="stable-svc",ready="false"} 1'))
        await api.set_endpoints(STABLE.service, [models[0].endpoint])
        await router.until("the first answers", lambda: answers(router, "stable"))
    await second.kill()


async def answers(router: Router, model: str) -> bool:
    status, _, text = await router.ask("ann")
    return status == 200 and json.loads(text)["model"] == model


async def counted(it: Running, text: str) -> bool:
    return text in exposition(it.agent)


async def test_no_request_fails_through_ramp_promotion_and_rollback(router: Router, api: FakeApi) -> None:
    await api.set_routes(QUIET)
    async with running(router, api) as it:
        await it.until_served(1)
        tally, stop = Tally(), asyncio.Event()
        load = asyncio.create_task(router.load(stop, tally))
        promoted, back = replace(QUIET, stable=CANDIDATE, revision=5), replace(QUIET, revision=6)
        for routes in (at(5, 2), at(25, 3), at(50, 4), promoted, back, at(50, 7), replace(QUIET, revision=8)):
            await api.set_routes(routes)
            await it.until_served(routes.revision)
            await router.more(tally, 150)
        await router.until("the candidate's clusters are let go", lambda: gone(router))
        await router.until("its file is removed", lambda: only_stable_files(router))
        stop.set()
        await load
    assert tally.failed == []
    assert min(tally.models["stable"], tally.models["candidate"]) > 30


async def only_stable_files(router: Router) -> bool:
    return sorted(path.name for path in router.xds.iterdir()) == ["cds.json", f"eds-{STABLE.service}.json", "rds.json"]


async def gone(router: Router) -> bool:
    return CANDIDATE.service not in await router.get(f"{router.admin}/clusters")


async def test_routes_that_envoy_refuses_are_not_acknowledged(router: Router, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.set_routes(QUIET)
    async with running(router, api) as it:
        await it.until_served(1)
        monkeypatch.setattr("flywheel.specs.envoy.USER_ID", "(unclosed")
        await api.set_routes(at(5, 2))
        await router.until("the refusal", lambda: refused(it, "Envoy rejected revision 2 and goes on with 1"))
        assert not await it.serves(2)
        assert (await router.ask("ann"))[0] == 200
        monkeypatch.undo()
        await api.set_routes(at(5, 3))
        await it.until_served(3)


async def test_it_says_so_when_envoy_is_gone_and_it_waits_for_it(router: Router, api: FakeApi) -> None:
    await api.set_routes(QUIET)
    async with running(router, api) as it:
        await it.until_served(1)
        assert router.process is not None
        router.process.kill()
        await router.process.wait()
        await router.session.close()
        await api.set_routes(at(25, 2))
        await router.until("the agent says so", lambda: says(it, {"revision": 2, "accepted": False, "error": "Envoy does not answer"}))
        await router.start()
        await it.until_served(2)


async def test_only_its_own_objects_are_asked_for(router: Router, api: FakeApi) -> None:
    await api.set_routes(ROLLOUT)
    async with running(router, api) as it:
        await it.until_served(2)
    for request in api.requests:
        selector = "fieldSelector=metadata.name%3Ddemo-routes" if CONFIG_MAPS in request else "labelSelector=kubernetes.io/service-name%3D"
        assert selector.replace("%3D", "=") in request.replace("%3D", "=")


async def test_the_process_prepares_serves_and_drains(tmp_path: Path, api: FakeApi, models: Models) -> None:
    """As in the pod: prepare, Envoy, agent; SIGTERM lets a stream end before the agent does."""
    await api.set_routes(QUIET)
    router = Router(tmp_path)
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "flywheel.runtime.router_agent"]
    options = ["--service", "demo", "--namespace", "demo", "--pod", "p0", "--api", api.url, "--run", str(tmp_path), "--seed", "/nowhere"]
    options += ["--logs", str(tmp_path / "logs"), "--credentials", "/nowhere", "--admin", router.admin, "--port", str(port)]
    options += ["--drain-delay", "0.1"]
    prepared = await asyncio.create_subprocess_exec(*command, "prepare", *options)
    assert await prepared.wait() == 0
    assert (tmp_path / "logs" / "demo" / "p0").is_dir()
    assert json.loads((tmp_path / "bootstrap.json").read_text())["node"] == {"id": "p0", "cluster": "demo"}
    await router.start()
    process = await asyncio.create_subprocess_exec(*command, "run", *options)
    try:
        base = f"http://127.0.0.1:{port}"
        await router.until("the agent is ready", lambda: is_ok(router, f"{base}/readyz"))
        assert json.loads(await router.get(f"{base}/status")) == {"revision": 1, "accepted": True, "error": None}
        assert "flywheel_router_revision 1\n" in await router.get(f"{base}/metrics")
        assert resident_bytes(process.pid) < 64 * 1024 * 1024
        models[0].last_words.clear()
        async with router.session.post(f"{router.url}{PATH}?stream=15&pause=0.1", headers={"x-user-id": "ann"}) as reply:
            text = await reply.content.readuntil(b"\n\n")
            process.terminate()
            await router.until("the agent says that it drains", lambda: is_draining(router, f"{base}/readyz"))
            for _ in range(14):
                text += await reply.content.readuntil(b"\n\n")
            ended = process.returncode  # while the stream still lacks its last words
            models[0].last_words.set()
            text += await reply.content.read()
        assert text.count(b"data: stable") == 15
        assert ended is None
        assert (reply.status, text[-8:]) == (200, b"[DONE]\n\n")
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await router.stop()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def is_draining(router: Router, url: str) -> bool:
    async with router.session.get(url) as reply:
        return reply.status == 503 and await reply.text() == "draining\n"


async def is_ok(router: Router, url: str) -> bool:
    try:
        async with router.session.get(url) as reply:
            return reply.status == 200
    except OSError:
        return False
