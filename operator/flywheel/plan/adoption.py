"""Adoption: a vLLM Deployment that somebody runs already is the first champion's arm, as it is.

A Service of ours selects its pods, and an anchor like any arm's owns that Service. The Deployment is only read: nothing of it is changed,
owned, scaled or deleted, and when a later champion has replaced it, it is left to whoever runs it. What it serves can't be checked but for
the name it answers to: the digest is its user's word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from flywheel.api.common import Artifact
from flywheel.api.flywheel import Adoption, ChampionStatus, Flywheel
from flywheel.api.reasons import Reason
from flywheel.plan.base import LABEL, MANAGED_BY, Apply, Manifest
from flywheel.plan.flywheel_names import first_generation
from flywheel.plan.kube import DeploymentState, deployment_state
from flywheel.specs.vllm import PORT, arm_name

Why = tuple[Reason, str]


@dataclass(frozen=True)
class AdoptedState:
    """What was seen of an adopted Deployment."""

    state: DeploymentState | None = None  # under the arm's name; None: it does not exist
    selector: Mapping[str, str] = field(default_factory=dict)  # empty: no Service can select its pods
    declared: tuple[int, ...] = ()  # ports of its containers
    ours: bool = False  # one that an operator has made
    service: Manifest | None = None  # ours, before its pods
    models: tuple[str, ...] | None = None  # the names it answers to; None: not asked, or no answer
    silence: str = ""  # why there was no answer; empty: it answered, or was not asked


def adopted_state(arm: str, deployment: Manifest | None, service: Manifest | None) -> AdoptedState:
    """Read a Deployment. What it serves is asked elsewhere."""
    if deployment is None or deployment["metadata"].get("deletionTimestamp"):
        return AdoptedState(service=service)
    spec, named = deployment.get("spec") or {}, deployment["metadata"]
    selector = spec.get("selector") or {}
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or ()
    return AdoptedState(
        state=deployment_state({**deployment, "metadata": {**named, "name": arm}}),
        selector={} if selector.get("matchExpressions") else selector.get("matchLabels") or {},
        declared=tuple(sorted({int(p["containerPort"]) for c in containers for p in c.get("ports") or ()})),
        ours=MANAGED_BY.items() <= (named.get("labels") or {}).items(),
        service=service,
    )


def with_adopted(deployments: Mapping[str, DeploymentState], seen: AdoptedState | None) -> Mapping[str, DeploymentState]:
    """The Deployments of a service, and the adopted one under its arm's name."""
    return deployments if seen is None or seen.state is None else {**deployments, seen.state.name: seen.state}


def asked_for(flywheel: Flywheel) -> tuple[str, Adoption] | None:
    """The arm and the Deployment that serves as it: the champion's, or what the first champion is to be."""
    champion = flywheel.status.champion
    if champion is not None:
        return (champion.arm, champion.adopted) if champion.adopted else None
    base, first = flywheel.spec.base, flywheel.spec.adopt
    return (adopted_arm(flywheel, base.digest), first) if first is not None else None


def adopted_arm(flywheel: Flywheel, digest: str) -> str:
    """Never the name of an arm that the operator would make: a Service must not turn from one to the other under the users."""
    return arm_name(f"{first_generation(flywheel)}-adopted", digest)


def model_name(flywheel: Flywheel) -> str:
    """The name that candidates will answer to."""
    return flywheel.spec.serving.model_name or flywheel.metadata.name


def obstacle(flywheel: Flywheel, adoption: Adoption, seen: AdoptedState | None, *, routed: bool) -> Why | None:
    """Why no user may be sent to an adopted Deployment, with the mend; None if they may. One that users are sent to is asked no more."""
    name = adoption.deployment
    if seen is None:
        return Reason.STARTING, f"Deployment {name} has not been looked at yet"
    if seen.state is None:
        return Reason.REFERENCE_NOT_FOUND, f"Deployment {name} does not exist; create it, or correct spec.adopt.deployment"
    if seen.ours:
        return Reason.INVALID_SPEC, f"Deployment {name} was made by the operator; adopt one that was not, or remove spec.adopt"
    if not seen.selector:
        return Reason.INVALID_SPEC, f"Deployment {name} selects its pods by expressions, which no Service can; use matchLabels alone"
    if not seen.state.ready_replicas:
        return Reason.NOT_READY, f"0 of {seen.state.replicas} pods of the adopted Deployment {name} are ready; look at its pods"
    if routed:
        return None
    if seen.silence:
        declared = f" (its containers declare {', '.join(map(str, seen.declared))})" if seen.declared else ""
        mend = f"correct spec.adopt.port{declared}, or let the operator reach its pods"
        return Reason.NOT_READY, f"nothing answers for the adopted Deployment {name} on port {adoption.port}: {seen.silence}; {mend}"
    if seen.models and model_name(flywheel) not in seen.models:
        return Reason.INVALID_SPEC, (
            f"Deployment {name} answers to {', '.join(seen.models)}, but candidates would answer to {model_name(flywheel)}: users' "
            f"requests name one model; set spec.serving.modelName to {seen.models[0]}"
        )
    return None if seen.models is not None else (Reason.STARTING, f"Deployment {name} has yet to be asked what it serves")


def condition(flywheel: Flywheel, champion: ChampionStatus, hindered: Why | None, anchored: Collection[str]) -> tuple[bool, Why] | None:
    """`Adopted`: whether an adopted Deployment serves, or what became of it. None where nothing was ever adopted."""
    if champion.adopted is not None:
        name = champion.adopted.deployment
        return hindered is None, hindered or (Reason.READY, f"Deployment {name} serves as {champion.generation}, by Service {champion.arm}")
    before = next((one for one in flywheel.status.previous if one.adopted is not None), None)
    if before is not None and before.adopted is not None:
        name = before.adopted.deployment
        if before.arm in anchored:
            return False, (Reason.WATCHING, f"{champion.generation} has replaced Deployment {name}; keep it until the watch ends")
        return False, (
            Reason.RELEASED,
            f"no user is sent to Deployment {name} any more: it may be scaled down or deleted by whoever runs it",
        )
    if flywheel.spec.adopt is None:
        return None
    name = flywheel.spec.adopt.deployment
    return False, (Reason.INVALID_SPEC, f"Deployment {name} is not adopted: {champion.generation} is champion already; remove spec.adopt")


def anchor(flywheel: Flywheel, champion: ChampionStatus, owners: Sequence[Manifest]) -> Manifest:
    """What stands for the arm: it owns the Service, and tells a Flywheel that is made again whose pods these are."""
    assert champion.adopted is not None
    model = Artifact(uri=champion.uri, digest=champion.digest)
    data = {"generation": champion.generation, "model": model.dump(), "manifests": [], "adopted": champion.adopted.dump()}
    metadata = {
        "name": champion.arm,
        "namespace": flywheel.metadata.namespace,
        "labels": _labels(flywheel, champion),
        "ownerReferences": list(owners),
    }
    return {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "revision": 1, "data": data}


def service_actions(flywheel: Flywheel, champion: ChampionStatus, frozen: Manifest | None, seen: AdoptedState | None) -> list[Apply]:
    """The Service before its pods, if it is not as it should be. It follows a Deployment that was made anew with other labels."""
    if frozen is None or seen is None or not seen.selector or seen.ours or champion.adopted is None:
        return []
    meta, owner = (
        frozen["metadata"],
        {"apiVersion": "apps/v1", "kind": "ControllerRevision", "controller": True, "blockOwnerDeletion": False},
    )
    ports = [{"name": "http", "port": PORT, "targetPort": champion.adopted.port, "protocol": "TCP"}]
    wanted: Manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": champion.arm,
            "namespace": flywheel.metadata.namespace,
            "labels": _labels(flywheel, champion),
            "ownerReferences": [{**owner, "name": meta["name"], "uid": meta["uid"]}],
        },
        "spec": {"selector": dict(seen.selector), "ports": ports},
    }
    return [] if seen.service is not None and _same(seen.service, wanted) else [Apply(wanted)]


def _same(found: Manifest, wanted: Manifest) -> bool:
    spec = found.get("spec") or {}
    ports = [port.get("targetPort") for port in spec.get("ports") or ()]
    owners = [owner.get("uid") for owner in found["metadata"].get("ownerReferences") or ()]
    same = spec.get("selector") == wanted["spec"]["selector"] and ports == [port["targetPort"] for port in wanted["spec"]["ports"]]
    return same and owners == [owner["uid"] for owner in wanted["metadata"]["ownerReferences"]]


def _labels(flywheel: Flywheel, champion: ChampionStatus) -> dict[str, str]:
    own = {"flywheel": flywheel.metadata.name, "arm": champion.arm, "component": "vllm", "generation": champion.generation}
    return {**MANAGED_BY, **{LABEL + key: value for key, value in own.items()}}
