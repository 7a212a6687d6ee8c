"""GET /status, /metrics and /readyz on port 9903."""

from __future__ import annotations

from aiohttp import web

from flywheel.runtime.router_agent.access_log import AccessLog
from flywheel.runtime.router_agent.agent import Agent

RESULTS = ("applied", "ignored", "invalid", "rejected")
LOG_RESULTS = ("rotated", "dropped", "failed")


class Server:
    def __init__(self, agent: Agent, port: int, access_log: AccessLog | None = None) -> None:
        self._agent, self._port, self._access_log = agent, port, access_log
        self.draining = False
        app = web.Application()
        app.router.add_get("/status", self._status)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, port=self._port).start()

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response((await self._agent.status()).body())

    async def _readyz(self, _: web.Request) -> web.Response:
        if self.draining:
            return web.Response(status=503, text="draining\n")
        ready = await self._agent.ready()
        return web.Response(status=200 if ready else 503, text="ok\n" if ready else "Envoy holds no routes yet\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        text = exposition(self._agent, self._access_log)
        return web.Response(text=text, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})


def exposition(agent: Agent, access_log: AccessLog | None = None) -> str:
    """Prometheus' text format; the client library isn't worth its memory here."""
    lines = [
        "# HELP flywheel_router_revision Newest revision of the routes that was seen.",
        "# TYPE flywheel_router_revision gauge",
        f"flywheel_router_revision {agent.routes.revision if agent.routes else 0}",
        "# HELP flywheel_router_routes_total Routes by what became of them.",
        "# TYPE flywheel_router_routes_total counter",
        *(f'flywheel_router_routes_total{{result="{name}"}} {agent.counts[name]}' for name in RESULTS),
        "# HELP flywheel_router_watch_reconnects_total Watches of the API server that broke.",
        "# TYPE flywheel_router_watch_reconnects_total counter",
        f"flywheel_router_watch_reconnects_total {agent.counts['reconnects']}",
        "# HELP flywheel_router_reaction_seconds From the last change of the routes to the swap of Envoy's file.",
        "# TYPE flywheel_router_reaction_seconds gauge",
        f"flywheel_router_reaction_seconds {agent.reaction_seconds:.6f}",
        "# HELP flywheel_router_endpoints Pods of an arm by readiness.",
        "# TYPE flywheel_router_endpoints gauge",
    ]
    for service, found in sorted(agent.services.endpoints().items()):
        for ready in (True, False):
            count = sum(one.ready is ready for one in found)
            lines.append(f'flywheel_router_endpoints{{service="{service}",ready="{str(ready).lower()}"}} {count}')
    if access_log is not None:
        lines += [
            "# HELP flywheel_router_access_log_total Access logs rotated, and dropped unread; looks at them that failed.",
            "# TYPE flywheel_router_access_log_total counter",
            *(f'flywheel_router_access_log_total{{result="{name}"}} {access_log.counts[name]}' for name in LOG_RESULTS),
            "# HELP flywheel_router_access_log_failed_writes Writes of the access log that failed since Envoy began.",
            "# TYPE flywheel_router_access_log_failed_writes gauge",
            f"flywheel_router_access_log_failed_writes {access_log.failed_writes}",
        ]
    return "\n".join(lines) + "\n"
