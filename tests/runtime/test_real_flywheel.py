"""A Flywheel's operator process against a real API server: adoption, the GPU budget, and a Flywheel that is deleted in mid-experiment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from flywheel.adapters.resources import collection_path, object_path
from flywheel.ports import ClusterError
from tests.runtime.stage import HOME, Stage, moments, staged
from tests.runtime.test_real_api import BASE, DATA, LAP, MODEL, routes

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("stage_kubeconfig")]
LLAMA = {
    "replicas": 2,
    "selector": {"matchLabels": {"app": "llama"}},
    "template": {
        "metadata": {"labels": {"app": "llama"}},
        "spec": {"containers": [{"name": "vllm", "image": "vllm", "ports": [{"containerPort": 8001}]}]},
    },
}


async def until(holds: Callable[[], Awaitable[Any]], what: str, stage: Stage, seconds: float = 120) -> Any:
    """Wait until something is so; what it answered."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := await holds():
                return found
        except ClusterError as error:
            if error.status != 404:
                raise
        await asyncio.sleep(0.1)
    raise AssertionError(f"{what} after {seconds} s\n{stage.log()[-4000:]}")


async def condition(stage: Stage, kind: str, name: str, type_: str) -> dict[str, Any]:
    conditions = (await stage.get(kind, name)).get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == type_), {})


async def models(_request: web.Request) -> web.Response:
    """What the adopted server answers to."""
    return web.json_response({"object": "list", "data": [{"id": "org/Llama-8B"}]})


async def says(stage: Stage, reason: str) -> dict[str, Any]:
    async def said() -> Any:
        found = await condition(stage, "Flywheel", "companion", "Adopted")
        return found if found.get("reason") == reason else None

    found: dict[str, Any] = await until(said, f"Adopted does not say {reason}", stage)
    return found


async def test_a_deployment_that_runs_is_adopted_as_it_is_and_left_alone_when_users_have_chosen_another(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        stage.samples = moments(0.30, 0.50)
        await stage.serve(HOME, 8000, [web.get("/v1/models", models)])
        await stage.start()
        adopt = {"deployment": "llama", "port": 8001}
        await stage.make("Flywheel", "companion", {"base": BASE, "adopt": adopt})
        assert "Deployment llama does not exist" in (await says(stage, "ReferenceNotFound"))["message"]
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "llama", "namespace": stage.namespace}, "spec": LLAMA}
        theirs = await stage.api.request("POST", collection_path("apps/v1", "Deployment", stage.namespace), body=body)
        assert "set spec.serving.modelName to org/Llama-8B" in (await says(stage, "InvalidSpec"))["message"]
        await stage.patch("Flywheel", "companion", {"spec": {"serving": {"modelName": "org/Llama-8B"}}})
        await says(stage, "Ready")
        flywheel = await stage.reaches("Flywheel", "companion", "Serving")
        arm = flywheel["status"]["champion"]["arm"]
        assert (await routes(stage, "companion"))["stable"]["service"] == arm
        service = await stage.get("Service", arm, "v1")
        assert service["spec"]["selector"] == {"app": "llama"}
        assert service["spec"]["ports"][0]["targetPort"] == 8001
        await stage.make("Generation", "g1", {"flywheel": "companion", **LAP})
        await stage.reaches("Generation", "g1", "Promoted", seconds=180)
        await says(stage, "Released")
        left = await stage.get("Deployment", "llama", "apps/v1")
        assert (left["spec"], left["metadata"]["generation"]) == (theirs["spec"], 1)
        assert [f for f in left["metadata"]["managedFields"] if f["operation"] == "Apply"] == []  # as the operator writes
        assert "Traceback" not in stage.log()


async def test_training_beyond_the_budget_makes_no_job_until_gpus_are_free(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        stage.train_seconds = 3.0
        await stage.start(FLYWHEEL_GPU_BUDGET="8")
        for name in ("a", "b", "c"):
            await stage.make("TrainingRun", name, {"method": "SFT", "model": MODEL, "datasets": DATA, "gpusPerNode": 5})
            await asyncio.sleep(0.2)

        async def waits() -> bool:
            return (await condition(stage, "TrainingRun", "c", "Progressing")).get("reason") == "WaitingForGPUs"

        await until(waits, "c does not wait", stage)
        most = 0
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            runs = await stage.every("TrainingRun")
            most = max(most, sum((r.get("status") or {}).get("gpus", 0) for r in runs))
            if all((r.get("status") or {}).get("phase") == "Succeeded" for r in runs):
                break
            await asyncio.sleep(0.1)
        assert {(r.get("status") or {}).get("phase") for r in await stage.every("TrainingRun")} == {"Succeeded"}
        assert most == 5
        assert "Traceback" not in stage.log()


async def test_a_flywheel_deleted_in_mid_experiment_while_the_operator_is_dead_leaves_all_users_with_stable(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        stage.samples = moments(0.40, 0.40)
        await stage.start()
        long: dict[str, Any] = {**LAP, "rollout": {**LAP["rollout"], "analysis": {**LAP["rollout"]["analysis"], "window": "1h"}}}
        await stage.make("Flywheel", "companion", {"base": BASE})
        await stage.make("Generation", "g1", {"flywheel": "companion", **long})

        async def asked() -> bool:
            return bool((await routes(stage, "companion"))["weightPercent"] == 50)

        await until(asked, "users are not asked", stage, seconds=180)
        await stage.kill()
        path = object_path("modelflywheel.dev/v1alpha1", "Flywheel", stage.namespace, "companion")
        await stage.api.request("DELETE", path)
        generation = object_path("modelflywheel.dev/v1alpha1", "Generation", stage.namespace, "g1")
        await stage.api.request("DELETE", generation)  # made by hand, so nobody's garbage

        async def gone() -> bool:
            return not await stage.every("Rollout")

        await until(gone, "the Rollout is not collected", stage)
        assert (await routes(stage, "companion"))["weightPercent"] == 50
        await stage.start()

        async def home() -> bool:
            held = await routes(stage, "companion")
            return held["candidate"] is None and held["stable"]["generation"] == "companion-initial"

        await until(home, "users are not home", stage)
        assert "Traceback" not in stage.log()
