"""A real Envoy on loopback, two small models behind it, and an app in front: what the router tests and the benchmark share."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from dev.envoy import ensure
from flywheel.specs.envoy import Arm, Endpoint, Routes, bootstrap, no_routes, render
from tests.processes import free_ports as free_ports  # for dev.bench too

STABLE = Arm("stable-arm", "initial", "stable-svc")
CANDIDATE = Arm("candidate-arm", "g1", "candidate-svc")
QUIET = Routes(revision=1, stable=STABLE)
ROLLOUT = Routes(revision=2, stable=STABLE, candidate=CANDIDATE, experiment="demo.g1.0", salt="first-salt", weight_percent=25)
PATH = "/v1/chat/completions"


def endpoints(models: tuple[Model, Model]) -> dict[str, list[Endpoint]]:
    return {STABLE.service: [models[0].endpoint], CANDIDATE.service: [models[1].endpoint]}


def at(weight: float, revision: int, **changes: Any) -> Routes:
    return replace(ROLLOUT, weight_percent=weight, revision=revision, **changes)


@dataclass
class Model:
    """One pod of an arm. It tells who it is, forges our response header, and streams when asked."""

    name: str
    port: int
    healthy: bool = True
    delay: float = 0
    seen: list[dict[str, str]] = field(default_factory=list)
    last_words: asyncio.Event = field(default_factory=asyncio.Event)  # of its streams; withheld while this is cleared
    _runner: web.AppRunner | None = None

    def __post_init__(self) -> None:
        self.last_words.set()

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/health", self._health)
        app.router.add_route("*", "/{path:.*}", self._reply)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)  # 0 would wait for every reply to end
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def kill(self) -> None:
        """Closes the port and every connection at once."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            assert runner.server is not None
            for connection in runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.port)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.seen.append({key.lower(): value for key, value in request.headers.items()})
        await asyncio.sleep(self.delay)
        forged = {"x-flywheel-generation": "forged", "x-flywheel-slice": "forged"}
        if request.query.get("stream") is None:
            return web.json_response({"model": self.name}, headers=forged)
        reply = web.StreamResponse(headers={"content-type": "text/event-stream", **forged})
        await reply.prepare(request)
        for index in range(int(request.query["stream"])):
            await reply.write(f"data: {self.name} {index}\n\n".encode())
            await asyncio.sleep(float(request.query.get("pause", "0.05")))
        await self.last_words.wait()
        await reply.write(b"data: [DONE]\n\n")
        return reply


@dataclass
class Tally:
    """What an app saw: replies by model, and everything that was not a 200."""

    models: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.models.values()) + len(self.failed)


class Router:
    """Envoy and its files; `apply` does in one step what the agent does in two."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.xds = directory, directory / "xds"
        self.log_file = directory / "access.jsonl"
        self.port, self.admin_port, self.stats_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.process: asyncio.subprocess.Process | None = None
        self.session: aiohttp.ClientSession

    async def start(self) -> None:
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self.xds.mkdir(parents=True, exist_ok=True)
        if not (self.xds / "rds.json").exists():
            self.write(no_routes())
        config = bootstrap(
            flywheel="demo",
            pod="demo-router-0",
            log=str(self.log_file),
            directory=str(self.xds),
            address="127.0.0.1",
            listener_port=self.port,
            admin_port=self.admin_port,
            stats_port=self.stats_port,
        )
        (self.directory / "bootstrap.json").write_text(json.dumps(config))
        arguments = ["-c", str(self.directory / "bootstrap.json"), "--file-flush-interval-msec", "50", "--concurrency", "2"]
        with (self.directory / "envoy.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(ensure()), *arguments, "--disable-hot-restart", "--log-level", "warning", stdout=log, stderr=log
            )
        await self.until("envoy is ready", self._ready)

    async def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            await self.process.wait()
        await self.session.close()

    def write(self, files: dict[str, dict[str, Any]]) -> None:
        """EDS first, then clusters, then routes; each by an atomic rename."""
        for name in sorted(files, key=lambda name: (name == "rds.json", name == "cds.json")):
            temporary = self.xds / f".{name}.tmp"
            temporary.write_text(json.dumps(files[name]))
            os.replace(temporary, self.xds / name)

    async def apply(self, routes: Routes, models: dict[str, list[Endpoint]], keep: Iterable[Routes] = ()) -> None:
        files = render(routes, models, keep=tuple(keep), directory=str(self.xds), health_interval=0.3)
        rds = files.pop("rds.json")
        self.write(files)
        await self.until("envoy holds the clusters", lambda: self.holds("cluster_manager.cds", files["cds.json"]["version_info"]))
        for service in (arm.service for arm in routes.arms):
            await self.until(f"{service} is warm", lambda name=service: self._warm(name))
        self.write({"rds.json": rds})
        await self.until("envoy holds the routes", lambda: self.holds("http.users.rds.routes", rds["version_info"]))

    async def holds(self, prefix: str, version: str) -> bool:
        return f'{prefix}.version_text: "{version}"' in await self.get(f"{self.admin}/stats?filter=version_text")

    async def _warm(self, name: str) -> bool:
        return f"{name}::default_priority" in await self.get(f"{self.admin}/clusters")

    async def get(self, url: str) -> str:
        async with self.session.get(url) as reply:
            return await reply.text()

    async def _ready(self) -> bool:
        try:
            return (await self.get(f"{self.admin}/ready")).strip() == "LIVE"
        except aiohttp.ClientError:
            return False

    async def until(self, what: str, condition: Any, seconds: float = 15) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not await condition():
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}\n{(self.directory / 'envoy.log').read_text()[-3000:]}")
            await asyncio.sleep(0.005)

    async def ask(self, user: str | None, headers: dict[str, str] | None = None, query: str = "") -> tuple[int, dict[str, str], str]:
        sent = {**({} if user is None else {"x-user-id": user}), **(headers or {})}
        async with self.session.post(f"{self.url}{PATH}{query}", json={"messages": []}, headers=sent) as reply:
            return reply.status, {key.lower(): value for key, value in reply.headers.items()}, await reply.text()

    async def slices(self, users: Iterable[str], width: int = 32) -> dict[str, str]:
        """The slice of every user, taken from the access log."""
        before, asked = len(self.lines()), list(users)
        gate = asyncio.Semaphore(width)

        async def one(user: str) -> None:
            async with gate:
                status, _, text = await self.ask(user)
                assert status == 200, text

        await asyncio.gather(*(one(user) for user in asked))
        lines = await self.logged(before + len(asked))
        return {line["user"]: line["slice"] for line in lines[before:]}

    def lines(self) -> list[dict[str, Any]]:
        """Of the access log; the last one counts once it has been written to its end."""
        if not self.log_file.exists():
            return []
        whole, _, _ = self.log_file.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    async def logged(self, count: int) -> list[dict[str, Any]]:
        async def enough() -> bool:
            return len(self.lines()) >= count

        await self.until(f"{count} lines in the access log", enough)
        return self.lines()

    async def more(self, tally: Tally, count: int) -> None:
        """Wait until so many more requests of a load have been answered."""
        wanted = tally.total + count

        async def enough() -> bool:
            return tally.total >= wanted

        await self.until(f"{count} more replies", enough, seconds=60)

    async def unhealthy(self, *models: Model) -> None:
        """Wait until Envoy has noticed that these models don't pass their health check."""

        async def noticed() -> bool:
            flags = [line for line in (await self.get(f"{self.admin}/clusters")).splitlines() if "/failed_active_hc" in line]
            return all(any(f"127.0.0.1:{model.port}::health_flags" in line for line in flags) for model in models)

        await self.until("Envoy has noticed who is unhealthy", noticed)

    async def load(self, stop: asyncio.Event, tally: Tally, workers: int = 8, query: str = "", pause: float = 0.002) -> None:
        """Steady traffic until `stop`; every reply is counted."""

        async def worker(number: int) -> None:
            turn = 0
            while not stop.is_set():
                turn += 1
                try:
                    status, _, text = await self.ask(f"user-{number}-{turn % 50}", query=query)
                    if status == 200 and (not query or text.endswith("[DONE]\n\n")):
                        tally.models["stream" if query else json.loads(text)["model"]] += 1
                    else:
                        tally.failed.append(f"{status} {text[:200]}")
                except aiohttp.ClientError as error:
                    tally.failed.append(repr(error))
                await asyncio.sleep(pause)

        await asyncio.gather(*(worker(number) for number in range(workers)))
