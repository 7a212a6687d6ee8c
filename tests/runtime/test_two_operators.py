"""Two operator processes on one API server: who works, how soon the other does, and that nobody writes who may not."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from flywheel.runtime.leader import DURATION, NAME, RETRY
from tests.processes import free_ports
from tests.runtime.stage import Stage, staged
from tests.runtime.test_real_api import DATA, MODEL

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("stage_kubeconfig")]
RUN: dict[str, Any] = {"method": "SFT", "model": MODEL, "datasets": DATA}
PAUSE = 30.0


async def two(stage: Stage) -> tuple[asyncio.subprocess.Process, asyncio.subprocess.Process]:
    """A leader that works and a standby whose caches are complete."""
    here = {"FLYWHEEL_LEADER_ELECTION": "true", "POD_NAMESPACE": stage.namespace}
    await stage.start(**here)
    await stage.tells("flywheel_operator_leader 1.0")
    leader = stage.process
    stage.port = free_ports(1)[0]
    await stage.start(**here)
    told = await stage.tells('flywheel_operator_api_requests_total{code="200",method="WATCH",resource="services"}')
    assert "flywheel_operator_leader 0.0" in told
    assert leader is not None
    assert stage.process is not None
    return leader, stage.process


async def holder(stage: Stage) -> str:
    return str((await stage.get("Lease", NAME, "coordination.k8s.io/v1"))["spec"]["holderIdentity"])


async def until_another_leads(stage: Stage, old: str) -> None:
    async with asyncio.timeout(90):
        while await holder(stage) in (old, ""):  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.1)


async def job_of(stage: Stage, run: str) -> None:
    async with asyncio.timeout(90):
        while run not in [job["metadata"]["labels"]["modelflywheel.dev/training-run"] for job in await stage.every("Job", "batch/v1")]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_standby_with_warm_caches_works_soon_after_the_lease_of_a_killed_leader_has_run_out(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        leader, _ = await two(stage)
        leader.kill()
        began = time.monotonic()
        await leader.wait()
        await stage.make("TrainingRun", "after", RUN)
        await job_of(stage, "after")
        took = time.monotonic() - began
        print(f"\nfrom the leader's death to the standby's first Job: {took:.1f} s (lease {DURATION:.0f} s)")
        assert took > RETRY, "it would have taken over a lease that was held"
        assert took < DURATION + 30


async def test_a_leader_that_is_told_to_end_hands_over_at_once(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        leader, _ = await two(stage)
        leader.terminate()
        began = time.monotonic()
        await stage.make("TrainingRun", "after", RUN)
        await job_of(stage, "after")
        took = time.monotonic() - began
        print(f"\nfrom SIGTERM to the standby's first Job: {took:.1f} s")
        assert await leader.wait() == 0
        assert took < DURATION + 15


async def test_a_leader_that_stood_still_for_half_a_minute_writes_nothing_when_it_wakes_up_and_ends(
    tmp_path: Path, control_plane: Path
) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        stage.train_seconds = 1.0
        leader, _ = await two(stage)
        old = await holder(stage)
        for number in range(12):  # so that it stops in the middle of passes
            await stage.make("TrainingRun", f"before-{number}", RUN)
        await asyncio.sleep(0.7)
        os.kill(leader.pid, signal.SIGSTOP)
        began = time.monotonic()
        await until_another_leads(stage, old)
        taken_over = dt.datetime.now(dt.UTC)
        for number in range(12):
            await stage.make("TrainingRun", f"after-{number}", RUN)
        await asyncio.sleep(max(0.0, PAUSE - (time.monotonic() - began)))
        os.kill(leader.pid, signal.SIGCONT)
        assert await asyncio.wait_for(leader.wait(), 60) == 3
        for when in ("before", "after"):
            for number in range(12):
                await stage.reaches("TrainingRun", f"{when}-{number}", "Succeeded", seconds=90)
        runs = await stage.every("TrainingRun")
        assert {run["metadata"]["name"]: len(run["status"]["attempts"]) for run in runs} == {run["metadata"]["name"]: 1 for run in runs}
        assert len(await stage.every("Job", "batch/v1")) == 24
        written = writes(control_plane.parent / "audit.log", old)
        assert any(event["objectRef"]["resource"] == "trainingruns" for event in written), "the audit log does not know it by its name"
        late = [event for event in written if event["requestReceivedTimestamp"] > f"{taken_over:%Y-%m-%dT%H:%M:%S.%fZ}"]
        refused = [e for e in late if e["objectRef"]["resource"] == "leases" and e["responseStatus"]["code"] == 409]
        assert late == refused, [(e["verb"], e["requestURI"], e["responseStatus"]["code"]) for e in late if e not in refused]


def writes(log: Path, identity: str) -> list[dict[str, Any]]:
    """What a replica has written, or has tried to."""
    events = [json.loads(line) for line in log.read_text().splitlines() if identity in line]
    return [event for event in events if identity in event.get("userAgent", "")]


async def test_an_operator_that_is_told_to_end_in_the_middle_of_passes_finishes_them(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        await stage.start()
        await stage.tells("flywheel_operator_leader 1.0")
        for number in range(20):
            await stage.make("TrainingRun", f"run-{number}", RUN)
        code, seconds = await stage.terminate()
        print(f"\nSIGTERM among the passes of 20 runs took {seconds:.1f} s")
        assert code == 0
        assert "Traceback" not in stage.log()
        for run in await stage.every("TrainingRun"):  # whatever was decided was done: no attempt on record without its Job
            jobs = {job["metadata"]["name"] for job in await stage.every("Job", "batch/v1")}
            assert {attempt["job"] for attempt in (run.get("status") or {}).get("attempts", ())} <= jobs
        await stage.start()
        for number in range(20):
            await stage.reaches("TrainingRun", f"run-{number}", "Succeeded", seconds=90)
        assert len(await stage.every("Job", "batch/v1")) == 20
