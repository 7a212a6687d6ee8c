"""Whoever may make a Flywheel may not thereby rewrite what somebody else has made under the names of its parts."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.runtime import faketime
from tests.runtime.simulated_api import VERSIONS, Body, Ref
from tests.runtime.simulated_cluster import SimulatedCluster
from tests.runtime.test_killed_anywhere import FLYWHEEL

PARTS = [(kind, "demo-router") for kind in ("ServiceAccount", "Role", "RoleBinding", "Deployment", "Service", "PodDisruptionBudget")]
PARTS += [("Service", "demo-collector"), ("Deployment", "demo-collector")]


def reconciled(cluster: SimulatedCluster) -> Body:
    conditions = cluster.state.every("Flywheel")[0].get("status", {}).get("conditions") or []
    found: list[dict[str, Any]] = [c for c in conditions if c["type"] == "Reconciled"]
    return found[0] if found else {}


def written(body: Body) -> Body:
    """What only its maker writes: the controllers look after a foreign Deployment too."""
    return {"labels": body["metadata"]["labels"], "owners": body["metadata"].get("ownerReferences"), "spec": body["spec"]}


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_a_foreign_part_is_left_as_it_is_and_named_until_it_is_gone(kind: str, name: str) -> None:
    async def story() -> None:
        cluster, ref = SimulatedCluster(), Ref(kind, name)
        cluster.kept = lambda: 0.0
        theirs = {"metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "Helm"}}, "spec": {"replicas": 0}}
        before = copy.deepcopy(cluster.api.create({"apiVersion": VERSIONS[kind], "kind": kind, **theirs}))
        cluster.make("Flywheel", "demo", FLYWHEEL)
        async with cluster.operator():
            await cluster.live(20)
            left = cluster.state.objects[ref]
            assert (written(left), left["metadata"]["uid"]) == (written(before), before["metadata"]["uid"])
            said = reconciled(cluster)
            assert (said["status"], said["reason"]) == ("False", "NameConflict")
            assert f"{kind} {name} exists and belongs to nobody (managed by Helm), not to " in said["message"]
            cluster.api.remove(ref)
            await cluster.live(60)
            assert reconciled(cluster)["status"] == "True"
            assert cluster.state.objects[ref]["metadata"]["labels"]["modelflywheel.dev/flywheel"] == "demo"

    faketime.run(story())
