"""python -m dev.bench.collector [--turns 400000] [--seconds 600] [--rate 20000] [--live-seconds 20]

Turns a second that the collector takes from the log on one core, end to end: tail, parse, merge, reconcile, mature, commit
(synchronous=FULL), with 10 thousand to 1 million users, each case in a process of its own so that its memory is its own. Then a live
log of `--rate` turns a second, and how old what would be exported is. Every case is recounted from what was generated, and the routers'
count is compared. Exits 1 if a recount is wrong or a bound of `BOUNDS` is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flywheel_collector.experiments import parse_definition
from flywheel_collector.exposition import expose
from flywheel_collector.service import Collector, Options

HORIZON_SECONDS = 60
USERS = (10_000, 100_000, 1_000_000)
BOUNDS = {"turns a second of one core": 20_000, "seconds old": 1.0, "more memory with 100 times the users": 1.5}


def line(number: int, user: int, stamp: str, duration: int) -> str:
    arm, slice_ = ("new", "candidate") if user % 2 else ("old", "control")
    return (
        f'{{"answeredArm":"{arm}","answeredGeneration":"{arm}","assignedArm":"{arm}","assignedGeneration":"{arm}",'
        f'"conversation":"conversation-{user}","durationMs":{duration},"experiment":"bench","flags":"-","message":"message-{number}",'
        f'"method":"POST","path":"/v1/chat/completions","purpose":null,"requestId":"{number:08x}-5b1c-4a0e-9d70-1f0c2a3b4d5e","revision":7,'
        f'"segment":null,"slice":"{slice_}","status":200,"time":"{stamp}","user":"user-{user}"}}\n'
    )


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_log(path: Path, turns: int, users: int, start: float) -> list[int]:
    """-> turns of each user. All turns fall within a horizon of the first."""
    rng = random.Random(7)
    made = [0] * users
    with path.open("w") as file:
        for number in range(turns):
            user = rng.randrange(users)
            made[user] += 1
            file.write(line(number, user, stamp(start + number * (HORIZON_SECONDS - 1) / turns), rng.randrange(40, 900)))
    return made


def expected(made: list[int]) -> tuple[int, int, int]:
    """Users, and the sums of their depth and its square."""
    depths = [turns - 1 for turns in made if turns]
    return len(depths), sum(depths), sum(depth * depth for depth in depths)


def found(collector: Collector) -> tuple[int, int, int]:
    row = collector.store.db.execute("SELECT sum(n), sum(total), sum(squares) FROM moment WHERE metric = 'depth'").fetchone()
    return int(row[0]), int(row[1]), int(row[2])


def set_up(root: Path) -> Collector:
    (root / "logs/router").mkdir(parents=True)
    collector = Collector(Options("bench", root / "logs", root / "data", str(root / "state.sqlite")))
    definition = {"horizonSeconds": HORIZON_SECONDS, "winsorCap": 1_000_000, "startedAt": "2020-01-01T00:00:00Z"}
    collector.put_experiment("bench", parse_definition(definition))
    return collector


def backlog(turns: int, users: int, seconds: float) -> dict[str, Any]:
    """A log that lies there, taken as fast as one core can."""
    with tempfile.TemporaryDirectory() as directory:
        root, start = Path(directory), time.time() - 7200
        collector = set_up(root)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        made = subprocess_log(root / "logs/router/access.jsonl", turns, users, start)
        wall, cpu = time.perf_counter(), time.process_time()
        while collector.tick(time.time_ns() // 1_000_000):
            if time.perf_counter() - wall > seconds:
                break
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        taken = collector.store.tally("turns")
        export = time.perf_counter()
        text = expose(collector)
        return {
            "users": users,
            "turns": taken,
            "wall": taken / wall,
            "core": taken / cpu,
            "start_mb": before / 1024,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "state_mb": (root / "state.sqlite").stat().st_size / 1e6,
            "export_ms": (time.perf_counter() - export) * 1000,
            "export_bytes": len(text),
            "exact": taken == turns and list(found(collector)) == list(made),
        }


def subprocess_log(path: Path, turns: int, users: int, start: float) -> tuple[int, int, int]:
    """Made in another process, so that the list of all users is not in this one's memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_make, (path, turns, users, start))


def _make(path: Path, turns: int, users: int, start: float) -> tuple[int, int, int]:
    return expected(write_log(path, turns, users, start))


def live(rate: int, seconds: float, users: int = 100_000) -> dict[str, Any]:
    """A log that grows: how old is what a scrape would see, and is nothing lost on the way?"""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        collector = set_up(root)
        writer = multiprocessing.get_context("spawn").Process(
            target=_write_live, args=(root / "logs/router/access.jsonl", root / "made.json", rate, seconds, users)
        )
        writer.start()
        ages, cpu, wall = [], time.process_time(), time.perf_counter()
        while writer.is_alive():
            more = collector.tick(time.time_ns() // 1_000_000)
            ages.append(time.time() - collector.watermark_ms / 1000)
            if not more:
                time.sleep(0.25)
                ages.append(time.time() - collector.watermark_ms / 1000)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        later = time.time_ns() // 1_000_000 + (HORIZON_SECONDS + 10) * 1000
        while collector.tick(later):
            pass
        made = json.loads((root / "made.json").read_text())
        ages.sort()
        return {
            "rate": made["turns"] / made["seconds"],
            "asked": rate,
            "core": cpu / wall,
            "age_p99": ages[int(0.99 * len(ages))],
            "age_max": ages[-1],
            "exact": collector.store.tally("turns") == made["turns"] and list(found(collector)) == made["expected"],
        }


def _write_live(path: Path, made_path: Path, rate: int, seconds: float, users: int) -> None:
    rng, made, number, start = random.Random(11), [0] * users, 0, time.time()
    with path.open("w") as file:
        while (elapsed := time.time() - start) < seconds:
            now = stamp(time.time())
            for number in range(number, int(elapsed * rate)):  # noqa: B020 - it goes on where it stopped
                user = rng.randrange(users)
                made[user] += 1
                file.write(line(number, user, now, 0))
            number = max(number, int(elapsed * rate))
            file.flush()
            time.sleep(0.05)
    made_path.write_text(json.dumps({"turns": sum(made), "seconds": time.time() - start, "expected": expected(made)}))


def report(cases: list[dict[str, Any]], alive: dict[str, Any]) -> Iterator[str]:
    """-> the table, in Markdown."""
    yield f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine()}; load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}"
    yield ""
    yield "| users | turns | turns/s of one core | turns/s by the clock | memory MB (at start) | state MB | export ms | recount |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for case in cases:
        yield (
            f"| {case['users']:,} | {case['turns']:,} | {case['core']:,.0f} | {case['wall']:,.0f} | {case['memory_mb']:.0f} "
            f"({case['start_mb']:.0f}) | {case['state_mb']:.0f} | {case['export_ms']:.1f} | {'exact' if case['exact'] else 'WRONG'} |"
        )
    yield ""
    verdict = "exact" if alive["exact"] else "WRONG"
    yield (
        f"Live: {alive['rate']:,.0f} turns/s (asked {alive['asked']:,}), {100 * alive['core']:.0f} % of one core, exported numbers "
        f"{alive['age_p99']:.2f} s old at the 99th percentile and {alive['age_max']:.2f} s at most, recount {verdict}"
    )


def machine() -> str:
    model = next(
        (text.split(":")[1].strip() for text in Path("/proc/cpuinfo").read_text().splitlines() if text.startswith("model name")), ""
    )
    return f"{os.cpu_count()} cores {model or platform.machine()}"


def missed(cases: list[dict[str, Any]], alive: dict[str, Any]) -> list[str]:
    problems = [f"the recount of {case['users']:,} users is wrong" for case in cases if not case["exact"]]
    problems += [] if alive["exact"] else ["the recount of the live log is wrong"]
    speed, age, growth = BOUNDS.values()
    problems += [f"{case['core']:,.0f} turns/s of one core with {case['users']:,} users" for case in cases if case["core"] < speed]
    if alive["age_p99"] > age or alive["rate"] < 0.95 * alive["asked"]:
        problems.append(f"live numbers {alive['age_p99']:.2f} s old at {alive['rate']:,.0f} turns/s")
    if cases[-1]["memory_mb"] > growth * cases[0]["memory_mb"]:
        problems.append(f"memory grew from {cases[0]['memory_mb']:.0f} to {cases[-1]['memory_mb']:.0f} MB")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=400_000)
    parser.add_argument("--users", type=int, help="one case alone, as JSON")
    parser.add_argument("--seconds", type=float, default=600.0, help="after which a case is given up")
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--live-seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    if arguments.users:
        print(json.dumps(backlog(arguments.turns, arguments.users, arguments.seconds)))
        return
    cases = []
    for users in USERS:
        command = [sys.executable, "-m", "dev.bench.collector", "--users", str(users), "--turns", str(arguments.turns)]
        command += ["--seconds", str(arguments.seconds)]
        cases.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]))
    alive = live(arguments.rate, arguments.live_seconds)
    print(*report(cases, alive), sep="\n")
    if problems := missed(cases, alive):
        sys.exit("missed: " + "; ".join(problems))


if __name__ == "__main__":
    main()
