"""python -m dev.bench.collector [--turns 200000] [--users 50000] [--seconds 120]

Turns a second that the collector takes from the log on one core, end to end: tail, parse, merge, mature, commit (synchronous=FULL).
Bounded in time. The numbers at the end are compared with the generator's own count.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from flywheel_collector.experiments import parse_definition
from flywheel_collector.exposition import expose
from flywheel_collector.service import Collector, Options

HORIZON_SECONDS = 60


def write_log(path: Path, turns: int, users: int, start: float) -> list[int]:
    """-> turns of each user. All turns fall within a horizon of the first."""
    rng = random.Random(7)
    made = [0] * users
    with path.open("w") as file:
        for number in range(turns):
            user = rng.randrange(users)
            made[user] += 1
            stamp = datetime.fromtimestamp(start + number * (HORIZON_SECONDS - 1) / turns, UTC).isoformat(timespec="milliseconds")
            arm = "new" if user % 2 else "old"
            file.write(
                f'{{"time":"{stamp}","requestId":"{number:08x}-5b1c-4a0e-9d70-1f0c2a3b4d5e","method":"POST","path":"/v1/chat/completions",'
                f'"status":200,"flags":"-","durationMs":{rng.randrange(40, 900)},"user":"user-{user}","conversation":"conversation-{user}",'
                f'"message":"message-{number}","purpose":"-","experiment":"bench","slice":"{"candidate" if user % 2 else "control"}",'
                f'"assignedArm":"{arm}","answeredArm":"{arm}","assignedGeneration":"{arm}","answeredGeneration":"{arm}","revision":7}}\n'
            )
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=120.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root, start = Path(directory), time.time() - 7200
        (root / "logs/router").mkdir(parents=True)
        made = write_log(root / "logs/router/access.jsonl", arguments.turns, arguments.users, start)
        collector = Collector(Options("bench", root / "logs", root / "data", str(root / "state.sqlite")))
        definition = {"horizonSeconds": HORIZON_SECONDS, "winsorCap": 1000, "startedAt": "2020-01-01T00:00:00Z"}
        collector.put_experiment("bench", parse_definition(definition))
        wall, cpu = time.perf_counter(), time.process_time()
        whole = True
        while collector.tick(time.time_ns() // 1_000_000):
            if time.perf_counter() - wall > arguments.seconds:
                whole = False
                break
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        taken = collector.store.tally("turns")
        exported = time.perf_counter()
        text = expose(collector)
        exported = time.perf_counter() - exported
        n, total = collector.store.db.execute("SELECT sum(n), sum(total) FROM moment WHERE metric = 'depth'").fetchone()
        exact = (n, total) == (sum(turns > 0 for turns in made), sum(max(turns - 1, 0) for turns in made))
        size = (root / "state.sqlite").stat().st_size
        print(f"machine    {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
        print(f"date       {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
        print(f"turns      {taken} of {arguments.turns}, {arguments.users} users")
        print(f"speed      {taken / wall:,.0f} turns/s by the clock, {taken / cpu:,.0f} turns/s of one core")
        print(f"memory     {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most, state {size / 1e6:.0f} MB")
        print(f"export     {exported * 1000:.1f} ms, {len(text)} bytes")
        print(f"recount    {'exact' if exact else 'not finished' if not whole else 'WRONG'}")


if __name__ == "__main__":
    main()
