"""python -m dev.bench.operator [--sizes 100,300,1000] [--quick]

What the operator costs by the number of objects: a real etcd and kube-apiserver, the operator as a process of its own, and
around them dev.bench.operator_world. One size means that many Flywheels, each with one lap (Generation) of four TrainingRuns
that are over, one more TrainingRun that runs and is polled, and one Rollout in analysis. Ends with 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from aiohttp import ClientError, ClientSession

from dev.bench.operator_world import ENDLESS, HOME, LABEL, SELECTOR
from flywheel.adapters.kube_api import KubeApi, load_configuration
from flywheel.adapters.resources import collection_path, object_path
from flywheel.api.base import API_VERSION
from flywheel.ports import ClusterError, Conflict
from tests.cluster.api_server import ApiServer, started
from tests.processes import end, end_with_parent, free_ports

Body = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "default"
RUNS_A_LAP = 4
ASK_EVERY = 1.0  # seconds; every look is a scrape, which the operator has to answer
QUIET_LOOKS, QUIET_DEPTH = 5, 5
MAX_RSS_MB, MAX_CORES, MAX_MEDIAN, MAX_P99, MAX_RESTART, MAX_CALLS = 400.0, 1.0, 1.0, 5.0, 60.0, 0.5
# The services' names exist in a cluster's DNS only; the process is told where the played ones are.
LAUNCH = f"""
import socket
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, *a, **k: real("{HOME}" if str(host).endswith(".svc") else host, *a, **k)
from flywheel.runtime.main import main
main()
"""
BASE = {"uri": "file:///flywheel/models/base", "digest": "sha256:" + "a" * 64}
DATA = [{"name": "train", "from": {"type": "Uri", "uri": "file:///flywheel/data/x"}}]
TRAIN = {"model": {"type": "Base"}, "datasets": DATA}
STAGES = [
    {"name": "sft", "run": {"method": "SFT", **TRAIN}},
    {"name": "dpo", "dependsOn": ["sft"], "run": {"method": "DPO", **TRAIN}},
    {"name": "kto", "dependsOn": ["dpo"], "run": {"method": "KTO", **TRAIN}},
    {"name": "tune", "dependsOn": ["kto"], "run": {"method": "SFT", **TRAIN}},
]
ROLLOUT = {"traffic": {"steps": [{"weightPercent": 50}]}, "analysis": {"window": "168h", "horizon": "24h"}}


class Operator:
    """The process, its metrics and what /proc says of it."""

    def __init__(self, server: ApiServer, log: Path) -> None:
        self._server, self._log, self.port = server, log, free_ports(1)[0]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        settings = {"KUBECONFIG": str(self._server.kubeconfig), "FLYWHEEL_PORT": str(self.port), "FLYWHEEL_LOG_LEVEL": "WARNING"}
        environment = {**os.environ, **settings, "FLYWHEEL_PROMETHEUS_ADDRESS": f"http://{HOME}:9090"}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", LAUNCH], env=environment, stderr=log, preexec_fn=end_with_parent)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def cpu(self) -> float:
        """Seconds of one core so far."""
        assert self.process is not None
        parts = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self, line: str = "VmHWM") -> float:
        """Megabytes in memory: VmHWM at most so far, VmRSS now."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(rf"{line}:\s+(\d+) kB", text)[0]) / 1024

    async def metrics(self) -> dict[str, float]:
        """Series by name and labels, as they are printed; empty while nobody answers."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the operator has ended:\n{self._log.read_text()[-4000:]}")
        with contextlib.suppress(ClientError, TimeoutError):
            async with ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
                lines = [line.rpartition(" ") for line in (await answer.text()).splitlines() if line.startswith("flywheel_")]
            return {name: float(value) for name, _, value in lines}
        return {}

    async def until(self, what: str, reached: Callable[[dict[str, float]], bool], seconds: float) -> dict[str, float]:
        """Wait for the metrics to say so."""
        deadline, found = time.monotonic() + seconds, {}
        while time.monotonic() < deadline:
            found = await self.metrics()
            if found and reached(found):
                return found
            await asyncio.sleep(ASK_EVERY)
        objects = {name: value for name, value in found.items() if name.startswith("flywheel_objects")}
        raise AssertionError(f"not {what} after {seconds:.0f} s: {objects}\n{self._log.read_text()[-4000:]}")


@dataclass
class Row:
    """What was measured at one size."""

    size: int
    objects: int = 0
    build: float = 0.0
    rss: float = 0.0
    peak: float = 0.0
    cores: float = 0.0
    passes: float = 0.0
    restart: float = 0.0
    calls: dict[str, float] = field(default_factory=dict)  # between the restart and the last first pass
    steady: dict[str, float] = field(default_factory=dict)  # a second
    delays: dict[str, list[float]] = field(default_factory=dict)

    @property
    def all_delays(self) -> list[float]:
        return sorted(delay for delays in self.delays.values() for delay in delays)

    @property
    def writes_and_reads(self) -> float:
        """Requests for single objects, per object."""
        return sum(count for name, count in self.calls.items() if not name.startswith(("WATCH", "list"))) / self.objects


def phase(metrics: dict[str, float], kind: str, name: str) -> float:
    return metrics.get(f'flywheel_objects{{kind="{kind}",phase="{name}"}}', 0.0)


def requests(metrics: dict[str, float]) -> dict[str, float]:
    """Requests by method and resource."""
    found: Counter[str] = Counter()
    for name, value in metrics.items():
        if name.startswith("flywheel_operator_api_requests_total"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
            found[f"{labels['method']} {labels['resource']}"] += int(value)
    return dict(found)


def passes(metrics: dict[str, float]) -> float:
    return sum(value for name, value in metrics.items() if name.startswith("flywheel_operator_reconcile_seconds_count"))


async def make(api: KubeApi, kind: str, name: str, spec: Body) -> None:
    body = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
    await api.request("POST", collection_path(API_VERSION, kind, NAMESPACE), body=body)


async def build(api: KubeApi, operator: Operator, before: int, size: int, seconds: float) -> None:
    """Make the laps, and wait until all of them are where they are to stay."""
    endless = {"method": "SFT", "model": {"type": "Uri", **BASE}, "datasets": DATA}

    async def one(number: int) -> None:
        with contextlib.suppress(Conflict):  # kept from a run before
            await lap(number)

    async def lap(number: int) -> None:
        await make(api, "Flywheel", f"f{number}", {"base": BASE})
        await make(api, "Generation", f"g{number}", {"flywheel": f"f{number}", "stages": STAGES, "rollout": ROLLOUT})
        await make(api, "TrainingRun", f"{ENDLESS}{number}", endless)

    await asyncio.gather(*(one(number) for number in range(before, size)))
    await operator.until(
        "all in analysis",
        # A run before may have left a few that it aborted.
        lambda m: phase(m, "Rollout", "Progressing") >= 0.95 * size and phase(m, "TrainingRun", "Running") >= size,
        seconds,
    )


async def settle(operator: Operator, seconds: float) -> None:
    """Until nothing of what was made waits for a pass any more: what comes after is the steady state."""
    looks = 0

    def quiet(found: dict[str, float]) -> bool:
        nonlocal looks
        looks = looks + 1 if found.get("flywheel_operator_queue_depth", math.inf) <= QUIET_DEPTH else 0
        return looks >= QUIET_LOOKS

    await operator.until("quiet", quiet, seconds)


async def steady(operator: Operator, row: Row, seconds: float) -> None:
    """Nothing happens but what the operator does of itself."""
    before, cpu, began = await operator.metrics(), operator.cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    after, spent, took = await operator.metrics(), operator.cpu() - cpu, time.monotonic() - began
    row.cores, row.passes = spent / took, (passes(after) - passes(before)) / took
    old = requests(before)
    row.steady = {name: (count - old.get(name, 0)) / took for name, count in requests(after).items() if count > old.get(name, 0)}
    row.rss, row.peak = operator.rss("VmRSS"), max(row.peak, operator.rss())


class Clocks:
    """When the API server told of something, for whoever waits for it."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._told = asyncio.Condition()

    async def tell(self, what: str) -> None:
        async with self._told:
            self._at.setdefault(what, time.monotonic())
            self._told.notify_all()

    async def of(self, what: str) -> float:
        async with self._told:
            await self._told.wait_for(lambda: what in self._at)
            return self._at[what]


async def watch(api: KubeApi, clocks: Clocks, version: str, kind: str, what: Callable[[Body], str | None], selector: str = "") -> None:
    """Tell the clocks of every event that `what` has a name for."""
    path = collection_path(version, kind, NAMESPACE)
    query = [("labelSelector", selector)] if selector else []
    since = (await api.request("GET", path, query=[*query, ("limit", "1")]))["metadata"]["resourceVersion"]
    async with api.stream(path, query=[*query, ("watch", "true"), ("resourceVersion", since)], seconds=3600) as events:
        async for event in events:
            if name := what(event["object"]):
                await clocks.tell(name)


def _job(body: Body) -> str | None:
    run = (body["metadata"].get("labels") or {}).get(LABEL + "training-run", "")
    complete = any(condition["type"] == "Complete" for condition in (body.get("status") or {}).get("conditions") or ())
    return f"{'complete' if complete else 'job'} {run}"


def _run(body: Body) -> str | None:
    done = (body.get("status") or {}).get("phase") == "Succeeded"
    return f"succeeded {body['metadata']['name']}" if done else None


def _routes(body: Body) -> str | None:
    text = (body.get("data") or {}).get("routes.json", "")
    return f"alone {body['metadata']['name']}" if text and '"candidate": null' in text.replace('":null', '": null') else None


@contextlib.asynccontextmanager
async def watching(api: KubeApi) -> AsyncIterator[Clocks]:
    clocks = Clocks()
    tasks = [
        asyncio.create_task(watch(api, clocks, "batch/v1", "Job", _job, SELECTOR)),
        asyncio.create_task(watch(api, clocks, API_VERSION, "TrainingRun", _run)),
        asyncio.create_task(watch(api, clocks, "v1", "ConfigMap", _routes, SELECTOR)),
    ]
    await asyncio.sleep(1)
    try:
        yield clocks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def react(api: KubeApi, row: Row, events: int, aborts: list[int]) -> None:
    """From an event to what the operator writes because of it, while everything else goes on."""
    delays: dict[str, list[float]] = {"run made -> Job": [], "Job complete -> run Succeeded": [], "abort -> routes": []}
    spec = {"method": "SFT", "model": {"type": "Uri", **BASE}, "datasets": DATA}

    async def run(name: str) -> None:
        await make(api, "TrainingRun", name, spec)
        made = time.monotonic()
        delays["run made -> Job"].append(max(0.0, await clocks.of(f"job {name}") - made))
        complete = await clocks.of(f"complete {name}")
        delays["Job complete -> run Succeeded"].append(max(0.0, await clocks.of(f"succeeded {name}") - complete))

    async def abort(number: int) -> None:
        found = await api.request("GET", object_path(API_VERSION, "Generation", NAMESPACE, f"g{number}"))
        path = object_path(API_VERSION, "Rollout", NAMESPACE, found["status"]["rollout"])
        if (await api.request("GET", path))["status"]["phase"] != "Progressing":
            return  # a run before has aborted it
        await api.request("PATCH", path, body={"spec": {"abort": True}}, content_type="application/merge-patch+json")
        made = time.monotonic()
        delays["abort -> routes"].append(max(0.0, await clocks.of(f"alone f{number}-routes") - made))

    async with watching(api) as clocks, asyncio.timeout(300), asyncio.TaskGroup() as tasks:
        for number in range(events):
            tasks.create_task(run(f"probe-{row.size}-{int(time.time())}-{number}"))
            if number < len(aborts):
                tasks.create_task(abort(aborts[number]))
            await asyncio.sleep(0.2)
    row.delays = delays


async def restart(operator: Operator, row: Row) -> None:
    """Killed and started again: how long until every object had its first pass, and what that asked of the API server."""
    row.peak = max(row.peak, operator.rss())
    operator.kill()
    began = time.monotonic()
    operator.start()
    # Objects are counted once the caches are there; from then on each of them waits for its first pass.
    total = float(row.objects)

    def over(found: dict[str, float]) -> bool:
        counted = sum(value for name, value in found.items() if name.startswith("flywheel_objects{"))
        return counted >= total and found.get("flywheel_operator_awaiting_first_pass") == 0 and passes(found) >= total

    found = await operator.until("reconciled after a restart", over, 300)
    row.restart, row.calls = time.monotonic() - began, requests(found)
    lists = {name for name in row.calls if name.startswith("GET") and name.split()[1] in LISTED}
    row.calls = {(f"list{name[3:]}" if name in lists else name): count for name, count in row.calls.items()}
    row.peak = max(row.peak, operator.rss())


LISTED = {"flywheels", "generations", "trainingruns", "rewardmodels", "rollouts", "jobs", "pods", "deployments", "configmaps"}
LISTED |= {"controllerrevisions", "services", "serviceaccounts", "roles", "rolebindings", "poddisruptionbudgets", "leases"}


async def prepare(server: ApiServer, operator: Operator, size: int) -> None:
    """Make everything, and measure nothing."""
    api = KubeApi(await load_configuration(str(server.kubeconfig)), max_requests=8, user_agent="bench")
    operator.start()
    await build(api, operator, 0, size, 120 + 20.0 * size)
    await api.close()


async def measure(server: ApiServer, operator: Operator, sizes: list[int], quick: bool) -> list[Row]:
    api = KubeApi(await load_configuration(str(server.kubeconfig)), max_requests=8, user_agent="bench")
    rows: list[Row] = []
    before = 0
    operator.start()
    for size in sizes:
        row = Row(size)
        began = time.monotonic()
        await build(api, operator, before, size, 120 + 20.0 * (size - before))
        row.build = time.monotonic() - began
        print(f"{size}: built in {row.build:.0f} s, {operator.rss('VmRSS'):.0f} MB", flush=True)
        await settle(operator, 60 + size)
        await steady(operator, row, 60 if quick else 90)  # an interval of the analysis, and a round of all trainers
        events, aborts = (40, 5) if quick else (120, 10)
        found = await operator.metrics()
        row.objects = int(sum(value for name, value in found.items() if name.startswith("flywheel_objects{")))
        await restart(operator, row)
        await settle(operator, 60 + size)
        await react(api, row, events, random.sample(range(size), aborts) if size == sizes[-1] else [])
        row.peak = max(row.peak, operator.rss())
        rows.append(row)
        show(row)
        before = size
    await api.close()
    return rows


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def show(row: Row) -> None:
    print(f"{row.size} Flywheels: {row.objects} objects of the five kinds")
    print(f"  memory     {row.rss:.0f} MB now, {row.peak:.0f} MB at most")
    print(f"  cpu        {row.cores:.2f} cores at steady state, {row.passes:.0f} passes/s")
    print(f"  restart    all had their first pass after {row.restart:.1f} s; {row.writes_and_reads:.3f} requests for single objects each")
    print("             " + ", ".join(f"{name} {count:.0f}" for name, count in sorted(row.calls.items())))
    print("  steady     " + ", ".join(f"{name} {rate:.1f}/s" for name, rate in sorted(row.steady.items())))
    for name, delays in row.delays.items():
        if delays:
            median, p99 = statistics.median(delays), percentile(delays, 0.99)
            print(f"  {name:32} median {median:.3f} s, p99 {p99:.3f} s, most {max(delays):.3f} s ({len(delays)})")
    sys.stdout.flush()


def exponent(rows: list[Row], value: Callable[[Row], float]) -> float:
    """b of value ~ size^b by least squares on logarithms: 1 is linear."""
    points = [(math.log(row.size), math.log(max(value(row), 1e-9))) for row in rows]
    return statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 1 else math.nan


def table(rows: list[Row]) -> None:
    columns: dict[str, Callable[[Row], float]] = {
        "objects": lambda r: r.objects,
        "memory, MB at most": lambda r: r.peak,
        "cores at steady state": lambda r: r.cores,
        "passes/s": lambda r: r.passes,
        "requests/s at steady state": lambda r: sum(r.steady.values()),
        "restart, s": lambda r: r.restart,
        "requests after a restart": lambda r: sum(r.calls.values()),
        "median delay, s": lambda r: statistics.median(r.all_delays),
        "p99 delay, s": lambda r: percentile(r.all_delays, 0.99),
    }
    print("\n| Flywheels | " + " | ".join(str(row.size) for row in rows) + " | growth ~ n^ |")
    print("| --- |" + " --- |" * (len(rows) + 1))
    for name, value in columns.items():
        print(f"| {name} | " + " | ".join(f"{value(row):.4g}" for row in rows) + f" | {exponent(rows, value):.2f} |")


def broken(row: Row) -> list[str]:
    """Limits that the largest size does not hold."""
    delays = row.all_delays
    told = [
        (row.peak, MAX_RSS_MB, "MB of memory"),
        (row.cores, MAX_CORES, "cores at steady state"),
        (statistics.median(delays), MAX_MEDIAN, "s median from event to apply"),
        (percentile(delays, 0.99), MAX_P99, "s p99 from event to apply"),
        (row.restart, MAX_RESTART, "s to the first reconcile of everything"),
        (row.writes_and_reads, MAX_CALLS, "requests for single objects per object after a restart"),
    ]
    return [f"{value:.3g} {unit}, at most {limit:g}" for value, limit, unit in told if value > limit]


def bench(directory: Path, sizes: list[int], *, quick: bool, only_build: bool) -> list[str]:
    """Everything between the start of etcd and its end; the limits that are broken."""
    rows: list[Row] = []
    with started(directory, "10.96.0.0/16") as server:
        server.install_crds(ROOT / "crds")
        operator = Operator(server, directory / "operator.log")
        command = [sys.executable, "-m", "dev.bench.operator_world", "--kubeconfig", str(server.kubeconfig), "--flywheels", str(sizes[-1])]
        world = subprocess.Popen(command, preexec_fn=end_with_parent)
        try:
            if only_build:
                asyncio.run(prepare(server, operator, sizes[-1]))
            else:
                rows = asyncio.run(measure(server, operator, sizes, quick))
        except ClusterError as error:
            sys.exit(f"{error}\n{(directory / 'operator.log').read_text()[-2000:]}")
        finally:
            if operator.process is not None:
                end(operator.process)
            end(world)
    if not rows:
        return []
    table(rows)
    return broken(rows[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="100,300,1000")
    parser.add_argument("--state", type=Path, help="keep etcd's data of the last size here, or begin with what is kept")
    parser.add_argument("--only-build", action="store_true", help="with --state: make the objects of the last size, for runs to come")
    parser.add_argument("--quick", action="store_true", help="shorter looks, for development")
    arguments = parser.parse_args()
    if arguments.only_build and not arguments.state:
        parser.error("--only-build keeps what it builds: give --state DIR")
    sizes = [int(size) for size in arguments.sizes.split(",")]
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - etcd's fsync is not what is measured
    print(f"machine    {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
    print(f"date       {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-operator-", dir=shm) as directory:
        if arguments.state and arguments.state.is_dir():
            shutil.copytree(arguments.state, Path(directory) / "etcd")
        failures = bench(Path(directory), sizes, quick=arguments.quick, only_build=arguments.only_build)
        if arguments.state and not arguments.state.is_dir():
            shutil.copytree(Path(directory) / "etcd", arguments.state)
    if arguments.only_build:
        print(f"built: {arguments.state}")
        return
    print("\n" + ("\n".join(f"BROKEN     {failure}" for failure in failures) or "every limit is held"))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
