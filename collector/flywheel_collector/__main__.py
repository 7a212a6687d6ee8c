"""`python -m flywheel_collector`: every option is also an environment variable, FLYWHEEL_COLLECTOR_<OPTION>."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from flywheel_collector.access_token import Token
from flywheel_collector.api import make_app
from flywheel_collector.clock import system_clock
from flywheel_collector.loop import Loop
from flywheel_collector.service import Collector, Options

log = logging.getLogger("flywheel_collector")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flywheel_collector", description="The engagement collector of one Flywheel.")

    def option(name: str, default: str | None, help: str) -> None:
        value = os.environ.get("FLYWHEEL_COLLECTOR_" + name.upper().replace("-", "_"), default)
        parser.add_argument(
            "--" + name, default=value, required=value is None, help=help if default is None else f"{help} (default {default})"
        )

    option("flywheel", None, "name of the Flywheel")
    option("namespace", "default", "namespace of the Flywheel")
    option("logs", None, "directory with one directory of access logs a router pod")
    option("data", None, "directory for the conversations of this Flywheel")
    option("state", None, "the SQLite file")
    option("host", "0.0.0.0", "address to listen on")  # noqa: S104
    option("port", "8080", "port to listen on")
    option("conversation-idle", "300", "seconds after the last turn until a conversation is written")
    option("grace", "2", "seconds after its horizon until a user is counted")
    option("retention", "172800", "seconds that messages are remembered; never less than the longest horizon")
    option("token-file", "", "file with the bearer token of the app's side; nobody has to show one while it is absent or empty")
    return parser


def options(argv: Sequence[str] | None = None) -> tuple[Options, str, int, Token]:
    arguments = parser().parse_args(argv)
    return (
        Options(
            flywheel=arguments.flywheel,
            namespace=arguments.namespace,
            logs=Path(arguments.logs),
            data=Path(arguments.data),
            state=arguments.state,
            idle_ms=round(float(arguments.conversation_idle) * 1000),
            grace_ms=round(float(arguments.grace) * 1000),
            retention_ms=round(float(arguments.retention) * 1000),
        ),
        arguments.host,
        int(arguments.port),
        Token(Path(arguments.token_file) if arguments.token_file else None),
    )


async def serve(settings: Options, host: str, port: int, token: Token) -> None:
    for directory in (settings.logs, settings.data, Path(settings.state).parent):
        directory.mkdir(parents=True, exist_ok=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    collector = Collector(settings)
    loop = Loop(collector, system_clock)
    runner = web.AppRunner(make_app(collector, loop, system_clock, token), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    log.info("collecting for %s on port %d", settings.flywheel, port)
    await loop.run(stop)
    await runner.cleanup()
    collector.close(system_clock())


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(*options()))


if __name__ == "__main__":
    main()
