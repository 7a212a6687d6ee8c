"""HTTP: experiments from the operator, events from the app, metrics for Prometheus."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable

from aiohttp import web

from flywheel_collector.access_token import Token
from flywheel_collector.clock import Clock
from flywheel_collector.events import MAX_BODY_BYTES, MAX_ID, Refused
from flywheel_collector.experiments import Conflict, Experiment, Invalid, parse_definition
from flywheel_collector.exposition import expose
from flywheel_collector.loop import Loop
from flywheel_collector.openapi import document
from flywheel_collector.service import Collector

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


MAX_POSTS = 16
"""Bodies of events in memory at a time; more are told to come later."""
RETRY_SECONDS = 5
READ_SECONDS = 10


def _error(status: int, message: str, **headers: str) -> web.Response:
    return web.json_response({"error": message}, status=status, headers=headers)


def _later(message: str) -> web.Response:
    return web.json_response({"error": message}, status=429, headers={"Retry-After": str(RETRY_SECONDS)})


@web.middleware
async def _storage_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except sqlite3.Error as error:
        return _error(503, f"the state cannot be written now: {error}")


def _describe(experiment: Experiment) -> dict[str, object]:
    return {"experiment": experiment.name, "horizonSeconds": experiment.definition.horizon_ms / 1000, "winsorCap": experiment.cap}


def make_app(collector: Collector, loop: Loop, clock: Clock, token: Token | None = None) -> web.Application:
    routes = web.RouteTableDef()
    _operators(routes, collector)
    _apps(routes, collector, loop, clock, token or Token(None))
    _watchers(routes, collector, loop, clock)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_storage_errors])
    app.add_routes(routes)
    return app


def _operators(routes: web.RouteTableDef, collector: Collector) -> None:

    @routes.put("/v1/experiments/{experiment}")
    async def put_experiment(request: web.Request) -> web.Response:
        try:
            definition = parse_definition(json.loads(await request.read()))
            experiment, new = collector.put_experiment(request.match_info["experiment"], definition)
        except Conflict as error:
            return _error(409, str(error))
        except Invalid as error:
            return _error(400, str(error))
        except (ValueError, RecursionError) as error:
            return _error(400, f"the body is not JSON: {error}")
        return web.json_response(_describe(experiment), status=201 if new else 200)

    @routes.delete("/v1/experiments/{experiment}")
    async def delete_experiment(request: web.Request) -> web.Response:
        collector.delete_experiment(request.match_info["experiment"])
        return web.Response(status=204)


def _apps(routes: web.RouteTableDef, collector: Collector, loop: Loop, clock: Clock, token: Token) -> None:
    posts = 0

    def refusal(request: web.Request) -> web.Response | None:
        if token.admits(request.headers.get("Authorization")):
            return None
        return _error(401, "a bearer token is needed: Authorization: Bearer ...", **{"WWW-Authenticate": "Bearer"})

    @routes.post("/v1/events")
    async def post_events(request: web.Request) -> web.Response:
        nonlocal posts
        if refused := refusal(request):
            return refused
        if posts >= MAX_POSTS:
            return _later(f"{posts} requests are being read")
        if reason := loop.overload(clock()):
            return _later(reason)
        posts += 1
        try:
            async with asyncio.timeout(READ_SECONDS):
                body = await request.read()
            taken = collector.post_events(body, clock())
        except Refused as error:
            return _error(400, str(error))
        except TimeoutError:
            return _error(408, f"the body did not come within {READ_SECONDS} s")
        finally:
            posts -= 1
        return web.json_response(taken._asdict())

    @routes.delete("/v1/users/{user}")
    async def delete_user(request: web.Request) -> web.Response:
        user = request.match_info["user"]
        if refused := refusal(request):
            return refused
        if not token.configured():
            return _error(403, "nobody may delete while no token is configured (Secret <service>-collector-token, key token)")
        if len(user) > MAX_ID or not user.isprintable() or user == "-":
            return _error(400, f"a user id has 1 to {MAX_ID} printable characters, and is not '-'")
        collector.delete_user(user, clock())
        return web.json_response({"pending": collector.deletion.pending}, status=202)

    @routes.get("/openapi.json")
    async def openapi(_: web.Request) -> web.Response:
        return web.json_response(document())


def _watchers(routes: web.RouteTableDef, collector: Collector, loop: Loop, clock: Clock) -> None:

    @routes.get("/metrics")
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=expose(collector), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    @routes.get("/healthz")
    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    @routes.get("/readyz")
    async def readyz(_: web.Request) -> web.Response:
        problem = loop.problem(clock())
        return web.Response(text="ok") if problem is None else web.Response(text=problem, status=503)
