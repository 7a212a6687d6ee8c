"""HTTP: experiments from the operator, events from the app, metrics for Prometheus."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable

from aiohttp import web

from flywheel_collector.clock import Clock
from flywheel_collector.events import MAX_BODY_BYTES, Refused
from flywheel_collector.experiments import Conflict, Experiment, Invalid, parse_definition
from flywheel_collector.exposition import expose
from flywheel_collector.loop import Loop
from flywheel_collector.service import Collector

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


@web.middleware
async def _storage_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except sqlite3.Error as error:
        return _error(503, f"the state cannot be written now: {error}")


def _describe(experiment: Experiment) -> dict[str, object]:
    return {"experiment": experiment.name, "horizonSeconds": experiment.definition.horizon_ms / 1000, "winsorCap": experiment.cap}


def make_app(collector: Collector, loop: Loop, clock: Clock) -> web.Application:
    routes = web.RouteTableDef()

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

    @routes.post("/v1/events")
    async def post_events(request: web.Request) -> web.Response:
        try:
            taken = collector.post_events(await request.read(), clock())
        except Refused as error:
            return _error(400, str(error))
        return web.json_response(taken._asdict())

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

    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_storage_errors])
    app.add_routes(routes)
    return app
