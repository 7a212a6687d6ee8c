"""python -m dev.simulator --router http://HOST:PORT --events http://HOST:PORT --model NAME [--rate 10] [--duration 165] [--seed 1]

Ends by itself after the duration (and a short drain), or on SIGINT or SIGTERM, with a summary. `--json-out` gets JSON lines: `start`,
`first` (a generation's first reply), `failure`, `tick`, and at the end one `generation` each (first and last reply) and `summary`.
Exit code 0; 1 when not one reply came; 2 when a target is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dev.simulator.census import Census
from dev.simulator.client import App
from dev.simulator.crowd import Crowd
from dev.simulator.progress import Progress
from dev.simulator.targets import Refused

TICK_SECONDS = 3
MAX_DURATION, MAX_RATE = 86_400.0, 200.0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.simulator", description="Users who chat through the router of the local cluster.")
    parser.add_argument("--router", required=True, help="http://HOST:PORT of Envoy")
    parser.add_argument("--events", required=True, help="http://HOST:PORT of the collector")
    parser.add_argument("--model", required=True, help="the model name that the app asks for")
    parser.add_argument("--rate", type=float, default=10.0, help="turns a second, all users together (default 10)")
    parser.add_argument("--duration", type=float, default=165.0, help="seconds in which users arrive (default 165)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prefix", help="start of user ids (default: new ones each run)")
    parser.add_argument("--concurrency", type=int, default=64, help="users at a time (default 64)")
    parser.add_argument("--max-users", type=int, default=100_000)
    parser.add_argument("--json-out", type=Path)
    parser.add_argument("--quiet", action="store_true")
    arguments = parser.parse_args(argv)
    if not 0 < arguments.rate <= MAX_RATE or not 0 < arguments.duration <= MAX_DURATION or not 1 <= arguments.concurrency <= 1024:
        parser.error(f"--rate must be in (0, {MAX_RATE:g}], --duration in (0, {MAX_DURATION:g}], --concurrency in 1..1024")
    return arguments


async def simulate(arguments: argparse.Namespace) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = App(arguments.router, arguments.events, arguments.model, arguments.concurrency)
    census = Census()
    progress = Progress(census, arguments.duration, arguments.quiet)
    with ExitStack() as stack:
        if arguments.json_out:
            arguments.json_out.parent.mkdir(parents=True, exist_ok=True)
        out = stack.enter_context(arguments.json_out.open("w")) if arguments.json_out else None

        def note(record: dict[str, Any]) -> None:
            if out is not None:
                out.write(json.dumps(record) + "\n")
                out.flush()

        stack.enter_context(progress.context())
        prefix = arguments.prefix or f"s{arguments.seed}-{int(time.time() * 1000):x}"
        note(
            {
                "type": "start",
                "time": time.time(),
                "seed": arguments.seed,
                "rate": arguments.rate,
                "duration": arguments.duration,
                "prefix": prefix,
            }
        )
        crowd = Crowd(
            app, census, note, prefix=prefix, seed=arguments.seed, rate=arguments.rate, concurrency=arguments.concurrency,
            max_users=arguments.max_users,
        )  # fmt: skip
        reporter = asyncio.create_task(_report(census, progress, note))
        try:
            await crowd.run(arguments.duration, stop)
        finally:
            reporter.cancel()
            await app.close()
        for generation, answers in census.generations.items():
            note({"type": "generation", "generation": generation, **asdict(answers)})
        note({"type": "summary", "time": time.time(), **census.summary()})
    print(json.dumps(census.summary() | {"generations": {name: answers.replies for name, answers in census.generations.items()}}))
    return 0 if census.turns else 1


async def _report(census: Census, progress: Progress, note: Any) -> None:
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(TICK_SECONDS)
            progress.show()
            replies = {name: answers.replies for name, answers in census.generations.items()}
            counts = {"users": census.users, "turns": census.turns, "good": census.good, "failed": census.failures.total()}
            note({"type": "tick", "time": time.time(), **counts, "generations": replies})


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return asyncio.run(simulate(parse(argv)))
    except Refused as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
