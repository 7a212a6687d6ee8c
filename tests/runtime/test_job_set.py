"""Runs with backend JobSet: JobSet's own CRD on a real API server, the real Job controller below it, the real operator above.

The JobSet controller is played: it makes the Job that the JobSet describes, and says of the JobSet what that Job says of itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from flywheel.adapters.resources import collection_path, object_path
from flywheel.ports import ClusterError
from tests.builders import error_message
from tests.cluster.api_server import ApiServer
from tests.runtime.stage import INDEX, Body, Stage, staged

pytestmark = pytest.mark.cluster
VERSION = "jobset.x-k8s.io/v1alpha2"
MODULE = Path(__file__).resolve().parents[2] / "dev" / "tools" / "jobset"
MODEL = {"type": "Uri", "uri": "file:///flywheel/models/base", "digest": "sha256:" + "a" * 64}
DATA = [{"name": "train", "from": {"type": "Uri", "uri": "file:///flywheel/data/x"}}]
RUN: Body = {"method": "SFT", "model": MODEL, "datasets": DATA, "backend": "JobSet", "nodes": 2, "retry": {"limit": 0}}


@pytest.fixture(scope="module")
def job_set_crd() -> Path:
    """The CRD as JobSet's own module carries it."""
    if shutil.which("go") is None:
        (pytest.fail if os.environ.get("FLYWHEEL_REQUIRE_CLUSTER") else pytest.skip)("JobSet's CRD comes with its Go module; install Go")
    subprocess.run(["go", "mod", "download", "sigs.k8s.io/jobset"], cwd=MODULE, check=True, capture_output=True)
    listed = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/jobset"], cwd=MODULE, check=True, capture_output=True, text=True
    )
    return Path(listed.stdout.strip()) / "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml"


async def play_controller(stage: Stage) -> None:
    """For ever: what JobSet's controller does with a JobSet of one replicated Job."""
    while True:
        with contextlib.suppress(ClusterError):
            for job_set in await stage.every("JobSet", VERSION):
                await _reconcile(stage, job_set)
        await asyncio.sleep(0.1)


async def _reconcile(stage: Stage, job_set: Body) -> None:
    meta, spec = job_set["metadata"], job_set["spec"]
    (replicated,) = spec["replicatedJobs"]
    name = f"{meta['name']}-{replicated['name']}-0"
    try:
        job = await stage.get("Job", name, "batch/v1")
    except ClusterError:
        owner = {"apiVersion": VERSION, "kind": "JobSet", "name": meta["name"], "uid": meta["uid"], "controller": True}
        template = {**replicated["template"]["spec"], "suspend": spec.get("suspend", False)}
        template["template"]["spec"]["subdomain"] = spec["network"]["subdomain"]
        body = {"metadata": {**replicated["template"]["metadata"], "name": name, "ownerReferences": [owner]}, "spec": template}
        await stage.api.request(
            "POST", collection_path("batch/v1", "Job", stage.namespace), body={"kind": "Job", "apiVersion": "batch/v1"} | body
        )
        return
    if job["spec"].get("suspend", False) != spec.get("suspend", False):
        await stage.patch("Job", name, {"spec": {"suspend": spec.get("suspend", False)}}, "batch/v1")
    for said, means in (("Complete", "Completed"), ("Failed", "Failed")):
        found = next((c for c in (job.get("status") or {}).get("conditions") or () if (c["type"], c["status"]) == (said, "True")), None)
        if found and not (job_set.get("status") or {}).get("terminalState"):
            told = {
                "type": means,
                "status": "True",
                "reason": "FailedJobs",
                "message": "jobset",
                "lastTransitionTime": found["lastTransitionTime"],
            }
            status = {"status": {"conditions": [told], "terminalState": means, "restarts": 0}}
            path = object_path(VERSION, "JobSet", stage.namespace, meta["name"]) + "/status"
            await stage.api.request("PATCH", path, body=status, content_type="application/merge-patch+json")


@contextlib.asynccontextmanager
async def installed(stage: Stage, server: ApiServer, crd: Path) -> AsyncIterator[None]:
    """JobSet in the cluster, and out of it again."""
    applied = server.kubectl("apply", "--server-side", "-f", str(crd), timeout=120)
    assert applied.accepted, applied.error
    player = asyncio.create_task(play_controller(stage))
    try:
        yield
    finally:
        player.cancel()
        await asyncio.gather(player, return_exceptions=True)
        server.kubectl("delete", "-f", str(crd), timeout=120)


def one_is_misled(pod: Body) -> tuple[int, str] | None:
    """Of the run `misled` the second pod has bad parameters, and the first loses it."""
    labels = pod["metadata"]["labels"]
    if labels["modelflywheel.dev/training-run"] != "misled":
        return None
    if labels[INDEX] == "1":
        return 64, error_message("InvalidParameter", "parameters.maxSteps must be 1 to 10000000, not 0")
    return 75, error_message("PeerLost", "connection closed by peer")


async def until(stage: Stage, name: str, holds: Callable[[Body], bool], *, seconds: float = 120) -> Body:
    body: Body = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not holds(body := await stage.get("TrainingRun", name)):  # noqa: ASYNC110 - polled like a user would
                await asyncio.sleep(0.1)
            return body
    raise AssertionError(f"{name} is not as wanted: {body.get('status')}\n{stage.log()[-3000:]}")


def said(body: Body) -> tuple[Any, str]:
    """Reason and message of the run."""
    found = next((c for c in (body.get("status") or {}).get("conditions") or () if c["type"] == "Succeeded"), {})
    return found.get("reason"), found.get("message", "")


async def test_jobset_is_asked_for_noticed_when_it_comes_used_and_missed_when_it_goes(
    tmp_path: Path, stage_kubeconfig: Path, job_set_crd: Path
) -> None:
    server = ApiServer(stage_kubeconfig, own=True)
    async with staged(tmp_path / "operator.log") as stage:
        stage.ends = one_is_misled
        await stage.start()
        await stage.make("TrainingRun", "early", RUN)
        missed = await until(stage, "early", lambda b: said(b)[0] == "BackendMissing")
        assert "install JobSet" in said(missed)[1]
        assert not missed["status"].get("attempts")
        async with installed(stage, server, job_set_crd):
            done = await stage.reaches("TrainingRun", "early", "Succeeded", seconds=180)
            (attempt,) = done["status"]["attempts"]
            assert attempt["backend"] == "JobSet"
            pods = [pod for pod in await stage.every("Pod", "v1") if pod["metadata"]["labels"]["modelflywheel.dev/training-run"] == "early"]
            assert {pod["spec"]["hostname"] for pod in pods} == {f"{attempt['job']}-node-0-{index}" for index in (0, 1)}
            leader = next(e["value"] for e in pods[0]["spec"]["containers"][0]["env"] if e["name"] == "FLYWHEEL_LEADER")
            assert leader == f"{attempt['job']}-node-0-0.{pods[0]['spec']['subdomain']}"

            await stage.make("TrainingRun", "misled", RUN)
            failed = await stage.reaches("TrainingRun", "misled", "Failed", seconds=120)
            assert said(failed)[0] == "InvalidParameter"
            assert "node 1 of 2: parameters.maxSteps must be 1" in said(failed)[1]

            stage.train_seconds = 3600
            await stage.make("TrainingRun", "paused", RUN)
            await stage.reaches("TrainingRun", "paused", "Running", seconds=120)
            await stage.patch("TrainingRun", "paused", {"spec": {"suspend": True}})
            await stage.reaches("TrainingRun", "paused", "Suspended")
            (name,) = [one["job"] for one in (await stage.get("TrainingRun", "paused"))["status"]["attempts"]]
            held = await stage.get("JobSet", name, VERSION)
            assert held["spec"]["suspend"] is True
            await stage.kill()  # an operator that starts anew sees the JobSet before it decides anything
            await stage.start()
            await stage.patch("TrainingRun", "paused", {"spec": {"suspend": False}})
            stage.train_seconds = 0.3
            resumed = await stage.reaches("TrainingRun", "paused", "Succeeded", seconds=120)
            assert len(resumed["status"]["attempts"]) == 1
        await stage.make("TrainingRun", "late", RUN)
        await until(stage, "late", lambda b: said(b)[0] == "BackendMissing")
        assert "Traceback" not in stage.log()
