"""Arms: a vLLM Deployment a model, frozen when first rendered, anchored by a ControllerRevision.

The anchor holds the manifests as they were first rendered, so that no changed default and no operator upgrade restarts a
pod that serves or ever served, and owns what they become, so that deleting the anchor deletes the arm. Roles are labels on the
Deployment's metadata alone: a promotion touches no pod template.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

from flywheel.api.common import Artifact, Serving, Storage
from flywheel.plan.base import LABEL, MANAGED_BY, Action, Apply, Create, Defaults, Delete, Manifest, deployments_last
from flywheel.plan.kube import DeploymentState
from flywheel.plan.parts import Parts, damaged, restore
from flywheel.specs.vllm import arm_manifests

ROLE = LABEL + "role"
STABLE, CANDIDATE, PARKED = "stable", "candidate", "parked"


def anchor(
    *,
    arm: str,
    service: str,
    generation: str,
    model: Artifact,
    serving: Serving,
    storage: Storage,
    namespace: str,
    owners: Sequence[Manifest],
    defaults: Defaults,
) -> Manifest:
    """The ControllerRevision that freezes an arm's manifests."""
    labels = {**MANAGED_BY, LABEL + "flywheel": service, LABEL + "arm": arm, LABEL + "component": "vllm", LABEL + "generation": generation}
    manifests = arm_manifests(
        arm=arm,
        service=service,
        generation=generation,
        model=model,
        serving=serving,
        storage=storage,
        namespace=namespace,
        owner_references=[],
        labels=labels,
        defaults=defaults,
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": arm, "namespace": namespace, "labels": labels, "ownerReferences": list(owners)},
        "revision": 1,
        "data": {"generation": generation, "model": model.dump(), "manifests": manifests},
    }


def arm_actions(
    frozen: Manifest | None,
    deployment: DeploymentState | None,
    render: Callable[[], Manifest],
    role: str,
    *,
    replicas: int | None = None,
    never_served: bool = False,
    parts: Parts | None = None,
) -> list[Action]:
    """What brings an arm into its role: freeze it, make it, or relabel and rescale it. Nothing when it is as it should be.

    `render` is asked for the anchor only when there is none; and while an arm never served anybody, to see whether the spec
    was mended: then it goes, and a later pass makes it anew. `replicas` None keeps what runs (an autoscaler's or a person's
    choice), and at least what was frozen. `parts` are looked at for what somebody deleted or changed, if they are given.
    """
    if frozen is None:
        return [Create(render())]
    if never_served and frozen["data"] != render()["data"]:
        return [delete_arm(frozen)]
    ours = deployment is not None and deployment.owner_uid in (None, frozen["metadata"]["uid"])  # else it goes with an earlier anchor
    if deployment is not None and ours and deployment.labels.get(ROLE) == role and replicas in (None, deployment.replicas):
        broken = damaged(frozen["data"]["manifests"], parts) if parts is not None else {}
        return restore({why: _owned(manifest, frozen, role, deployment, deployment.replicas) for why, manifest in broken.items()})
    return [Apply(_owned(manifest, frozen, role, deployment, replicas)) for manifest in deployments_last(frozen["data"]["manifests"])]


def _owned(manifest: Manifest, frozen: Manifest, role: str, deployment: DeploymentState | None, replicas: int | None) -> Manifest:
    owned = copy.deepcopy(manifest)
    meta = frozen["metadata"]
    owned["metadata"]["ownerReferences"] = [
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "name": meta["name"],
            "uid": meta["uid"],
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]
    if owned["kind"] == "Deployment":
        owned["metadata"].setdefault("labels", {})[ROLE] = role
        running = deployment.replicas if deployment else 0
        owned["spec"]["replicas"] = max(running, owned["spec"].get("replicas", 1)) if replicas is None else replicas
    return owned


def delete_arm(frozen: Manifest) -> Delete:
    """Delete an arm by its anchor; the garbage collector takes the rest, and its pods drain."""
    meta = frozen["metadata"]
    return Delete("apps/v1", "ControllerRevision", meta["namespace"], meta["name"], meta["uid"])


def ready_replicas(deployments: Mapping[str, DeploymentState], arm: str) -> int:
    """Pods of an arm that have answered a completion."""
    return deployments[arm].ready_replicas if arm in deployments else 0
