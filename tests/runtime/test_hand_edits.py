"""What people do to the operator's children with kubectl, on a real API server, which alone knows whose each field is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from flywheel.adapters.resources import object_path
from flywheel.api.base import API_VERSION
from flywheel.ports import ClusterError
from flywheel.runtime.keys import CHILDREN, PARTS
from flywheel.runtime.keys import KINDS as OWN
from tests.runtime.stage import Stage, moments, staged
from tests.runtime.test_real_api import DATA, MODEL, SHORT, rollout

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("stage_kubeconfig")]
KINDS = {**PARTS, "Deployment": "apps/v1"}


async def parts(stage: Stage) -> dict[tuple[str, str], dict[str, Any]]:
    """All parts of what serves, by kind and name."""
    found = {kind: await stage.every(kind, version) for kind, version in KINDS.items()}
    return {
        (kind, body["metadata"]["name"]): body
        for kind, bodies in found.items()
        for body in bodies
        if (body["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "flywheel-operator"
    }


async def in_analysis(stage: Stage) -> None:
    """A Rollout of its own service, whose users meet both arms for an hour."""
    stage.samples = moments(0.40, 0.40)
    await stage.start()
    await stage.make("Rollout", "alone", rollout(analysis={**SHORT["analysis"], "window": "1h"}))
    async with asyncio.timeout(60):
        while not (await stage.get("Rollout", "alone")).get("status", {}).get("windowStartTime"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def until_restored(stage: Stage, kind: str, name: str, before: dict[str, Any]) -> dict[str, Any]:
    """Wait until the part says what it said before."""
    now: dict[str, Any] = {}
    async with asyncio.timeout(45):
        while said(now) != said(before):
            await asyncio.sleep(0.1)
            with contextlib.suppress(ClusterError):  # it is not there yet
                now = await stage.get(kind, name, KINDS[kind])
    return now


def said(body: dict[str, Any]) -> dict[str, Any]:
    """Of an object, what the operator says: no status, nothing the server adds."""
    kept = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "status", "metadata")}
    spec = {key: value for key, value in (kept.get("spec") or {}).items() if key not in ("clusterIP", "clusterIPs", "replicas")}
    labels = (body.get("metadata") or {}).get("labels")
    return {**kept, "spec": spec, "labels": labels}


async def test_what_nobody_touched_is_never_written_again(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        await in_analysis(stage)
        await asyncio.sleep(3)
        before = await parts(stage)
        assert len(before) == 6 + 2 + 2 * 3
        await asyncio.sleep(12)  # passes come at least every five seconds
        await stage.kill()
        await stage.start()  # a new process remembers nothing of what it had applied
        await stage.tells("flywheel_operator_awaiting_first_pass 0.0", 'flywheel_objects{kind="Rollout"')
        await asyncio.sleep(7)
        after = await parts(stage)
        entries = {key: [m for m in body["metadata"]["managedFields"] if not m.get("subresource")] for key, body in before.items()}
        assert {key: [m for m in b["metadata"]["managedFields"] if not m.get("subresource")] for key, b in after.items()} == entries
        assert "Restored" not in [event["reason"] for event in await stage.every("Event", "v1")]


async def test_every_part_that_is_deleted_by_hand_is_made_again_as_it_was(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        await in_analysis(stage)
        before = await parts(stage)
        for kind, name in before:
            if kind != "Deployment":
                await stage.api.request("DELETE", object_path(KINDS[kind], kind, stage.namespace, name))
        for (kind, name), body in before.items():
            now = await until_restored(stage, kind, name, body)
            assert kind == "Deployment" or now["metadata"]["uid"] != body["metadata"]["uid"]
        events = [event["message"] for event in await stage.every("Event", "v1") if event["reason"] == "Restored"]
        assert any("Service alone-router was deleted" in message for message in events), events


EDITS: dict[str, dict[str, Any]] = {
    "Service": {"spec": {"selector": {"modelflywheel.dev/component": "nobody"}}},
    "Role": {"rules": []},
    "RoleBinding": {"subjects": []},
    "ServiceAccount": {"automountServiceAccountToken": True},
    "PodDisruptionBudget": {"spec": {"maxUnavailable": 0}},
    "Deployment": {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}},
}


async def test_every_part_that_is_edited_by_hand_is_as_it_was_again_and_an_event_names_the_field(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        await in_analysis(stage)
        before = await parts(stage)
        for kind, name in before:
            await stage.patch(kind, name, EDITS[kind], KINDS[kind])
        for (kind, name), body in before.items():
            now = await until_restored(stage, kind, name, body)
            assert now["metadata"]["uid"] == body["metadata"]["uid"]
        events = [event["message"] for event in await stage.every("Event", "v1") if event["reason"] == "Restored"]
        assert any("alone-router was changed by hand (.rules" in message for message in events), events


async def test_an_arms_image_and_arguments_are_restored_and_its_replicas_are_kept(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        await in_analysis(stage)
        name, body = next((name, body) for (kind, name), body in (await parts(stage)).items() if kind == "Deployment" and "new" in name)
        await stage.patch("Deployment", name, {"spec": {"replicas": 2}}, "apps/v1")
        container = body["spec"]["template"]["spec"]["containers"][0]
        wrong = [{"name": container["name"], "image": "example.invalid/other:1", "args": ["--other"]}]
        path = object_path("apps/v1", "Deployment", stage.namespace, name)
        edit = {"spec": {"template": {"spec": {"containers": wrong}}}}
        await stage.api.request("PATCH", path, body=edit, content_type="application/strategic-merge-patch+json")
        now = await until_restored(stage, "Deployment", name, body)
        assert now["spec"]["template"]["spec"]["containers"][0]["image"] == container["image"]
        await asyncio.sleep(6)
        assert (await stage.get("Deployment", name, "apps/v1"))["spec"]["replicas"] == 2
        print(json.dumps([m for m in now["metadata"]["managedFields"] if m["manager"] != "kube-controller-manager"])[:200])


async def test_nothing_of_ours_holds_up_the_deletion_of_a_namespace(tmp_path: Path) -> None:
    async with staged(tmp_path / "operator.log") as stage:
        await in_analysis(stage)
        await stage.make("TrainingRun", "run", {"method": "SFT", "model": MODEL, "datasets": DATA})
        await stage.reaches("TrainingRun", "run", "Succeeded")
        ours = {**dict.fromkeys(OWN, API_VERSION), **CHILDREN, **PARTS}
        for kind, version in ours.items():
            for body in await stage.every(kind, version):
                foreign = [f for f in body["metadata"].get("finalizers") or () if "kubernetes.io/" not in f]
                assert foreign == [], f"{kind} {body['metadata']['name']}"
        await stage.kill()  # an operator that was uninstalled first
        path = f"/api/v1/namespaces/{stage.namespace}"
        await stage.api.request("DELETE", path)
        with pytest.raises(ClusterError, match="404"):
            await until_gone(stage, path)


async def until_gone(stage: Stage, path: str) -> None:
    async with asyncio.timeout(90):
        while await stage.api.request("GET", path):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
