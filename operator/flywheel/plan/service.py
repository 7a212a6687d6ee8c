"""The service of one model: router and collector. It belongs to the Flywheel, or stands alone with a Rollout of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flywheel.api.base import parse_duration
from flywheel.api.common import Storage
from flywheel.api.flywheel import Engagement, Router
from flywheel.plan.base import LABEL, MANAGED_BY, Action, Apply, Defaults, Manifest, deployments_last, stable_hash
from flywheel.plan.kube import DeploymentState
from flywheel.plan.parts import Parts, damaged, restore
from flywheel.specs.collector import collector_manifests
from flywheel.specs.router import router_manifests

HASH = LABEL + "hash"


def router_address(service: str, namespace: str) -> str:
    """Where users' requests go."""
    return f"http://{service}-router.{namespace}.svc"


def collector_address(service: str, namespace: str) -> str:
    """Where the app's events and the operator's experiments go."""
    return f"http://{service}-collector.{namespace}.svc:8080"


def service_actions(
    deployments: Mapping[str, DeploymentState],
    *,
    service: str,
    namespace: str,
    router: Router,
    engagement: Engagement,
    storage: Storage,
    owners: Sequence[Manifest],
    defaults: Defaults,
    parts: Parts | None = None,
) -> list[Action]:
    """Apply router and collector when they are missing or were applied from something else, and of `parts` what was deleted or changed."""
    labels = {**MANAGED_BY, LABEL + "flywheel": service}
    stacks = {
        f"{service}-router": router_manifests(
            service=service,
            namespace=namespace,
            image_envoy=router.image or defaults.envoy_image,
            image_operator=defaults.operator_image,
            replicas=router.replicas,
            claim=storage.claim_name,
            owner_references=list(owners),
            labels=labels,
        ),
        f"{service}-collector": collector_manifests(
            service=service,
            namespace=namespace,
            image=engagement.image or defaults.collector_image,
            claim=storage.claim_name,
            owner_references=list(owners),
            labels=labels,
            conversation_idle=parse_duration(engagement.conversation_idle).total_seconds(),
        ),
    }
    actions: list[Action] = []
    for name, manifests in stacks.items():
        digest = stable_hash(manifests, length=16)
        found = deployments.get(name)
        if found is not None and found.hash == digest:
            actions += restore(damaged(_marked(manifests, digest), parts)) if parts is not None else []
            continue
        actions += [Apply(manifest) for manifest in deployments_last(_marked(manifests, digest))]
    return actions


def _marked(manifests: Sequence[Manifest], digest: str) -> list[Manifest]:
    """The Deployment, which stands for its stack, says what it was made from."""
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            manifest["metadata"].setdefault("annotations", {})[HASH] = digest
    return list(manifests)
