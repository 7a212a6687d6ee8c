"""The two arms of a Rollout: what they are called, whether they answer, and to whom they belong.

An arm outlives what decided on it: the baseline's keeps the name it got as a candidate, and no Rollout owns what
serves a Flywheel.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from functools import partial

from flywheel.api.base import parse_duration
from flywheel.api.common import Artifact
from flywheel.api.rollout import ArmModel, ArmStatus
from flywheel.plan import arms
from flywheel.plan.base import Action, Manifest, Owner
from flywheel.plan.kube import DeploymentState, parse_time
from flywheel.plan.rollout_draft import Draft
from flywheel.plan.rollout_observed import service_name
from flywheel.specs.envoy import Arm
from flywheel.specs.vllm import arm_name


def baseline_arm(draft: Draft) -> Arm:
    """The arm that serves the baseline: the champion's, whatever it is called, or one by the usual name."""
    rollout, flywheel = draft.observed.rollout, draft.observed.flywheel
    champions = [flywheel.status.champion, *flywheel.status.previous] if flywheel else []
    known = next((c.arm for c in champions if c and c.digest == rollout.spec.baseline.digest), None)
    return _routed(rollout.spec.baseline, known or arm_name(rollout.spec.baseline.generation, rollout.spec.baseline.digest))


def candidate_arm(draft: Draft) -> Arm:
    """The arm that serves the candidate."""
    candidate = draft.observed.rollout.spec.candidate
    return _routed(candidate, arm_name(candidate.generation, candidate.digest))


def _routed(model: ArmModel, arm: str) -> Arm:
    return Arm(arm=arm, generation=model.generation, service=arm)


def candidate_state(draft: Draft) -> DeploymentState | None:
    """The candidate's Deployment with the pods of this try; those of an earlier one are older than the anchor, and not its fault."""
    name = candidate_arm(draft).arm
    frozen, deployment = draft.observed.anchors.get(name), draft.observed.deployments.get(name)
    if frozen is None or deployment is None:
        return None
    since = parse_time(frozen["metadata"].get("creationTimestamp"))
    return replace(deployment, pods=tuple(pod for pod in deployment.pods if not (since and pod.created and pod.created < since)))


def candidate_ready(draft: Draft) -> bool:
    """Whether every pod of the candidate has answered; pods of an arm that is being removed do not count."""
    name = candidate_arm(draft).arm
    frozen, deployment = draft.observed.anchors.get(name), draft.observed.deployments.get(name)
    if frozen is None or deployment is None or deployment.owner_uid not in (None, frozen["metadata"]["uid"]):
        return False
    return deployment.updated and 0 < deployment.replicas <= deployment.ready_replicas


def ready_deadline(draft: Draft) -> dt.datetime | None:
    """When a candidate that is not ready has failed."""
    started = draft.status.prepare_start_time
    return started + parse_duration(draft.observed.rollout.spec.serving.ready_timeout) if started else None


def arm_in_role(draft: Draft, model: ArmModel, role: str, *, replicas: int | None = None, never_served: bool = False) -> list[Action]:
    """What brings the arm of one of the two models into a role."""
    observed, rollout = draft.observed, draft.observed.rollout
    name = candidate_arm(draft).arm if model.digest == rollout.spec.candidate.digest else baseline_arm(draft).arm
    if name in _adopted(draft):
        return []  # neither made, scaled nor labelled by us
    render = partial(
        arms.anchor,
        arm=name,
        service=service_name(rollout),
        generation=model.generation,
        model=Artifact(uri=model.uri, digest=model.digest),
        serving=rollout.spec.serving,
        storage=rollout.spec.storage,
        namespace=rollout.metadata.namespace,
        owners=owners(draft),
        defaults=observed.defaults,
    )
    frozen, deployment = observed.anchors.get(name), observed.deployments.get(name)
    return arms.arm_actions(frozen, deployment, render, role, replicas=replicas, never_served=never_served, parts=observed.parts)


def _adopted(draft: Draft) -> list[str]:
    """Arms whose Deployments somebody else runs."""
    flywheel = draft.observed.flywheel
    return [c.arm for c in (flywheel.status.champion, *flywheel.status.previous) if c and c.adopted] if flywheel else []


def owners(draft: Draft) -> list[Manifest]:
    """What serves belongs to the Flywheel, or to nobody: it outlives what decided, unless deletion was asked for."""
    rollout, flywheel = draft.observed.rollout, draft.observed.flywheel
    if flywheel is not None:
        return [Owner("Flywheel", flywheel.metadata).reference()] if flywheel.spec.deletion_policy == "Delete" else []
    return [Owner("Rollout", rollout.metadata).reference()] if rollout.spec.deletion_policy == "Delete" else []


def arm_statuses(draft: Draft) -> tuple[ArmStatus, ...]:
    """Both arms as the status shows them, in the roles that the decision gave them."""
    if draft.status.phase == "Pending":
        return ()
    promoted = draft.status.decision is not None and draft.status.decision.verdict == "Promote" and draft.status.cutover_time is not None
    over = draft.status.phase in ("RolledBack", "Inconclusive", "Failed")
    roles = ("Parked", "Stable") if promoted else ("Stable", "Parked" if over else "Candidate")
    pairs = zip(
        (baseline_arm(draft), candidate_arm(draft)),
        (draft.observed.rollout.spec.baseline, draft.observed.rollout.spec.candidate),
        roles,
        strict=True,
    )
    return tuple(
        ArmStatus(
            name=arm.arm,
            generation=model.generation,
            digest=model.digest,
            role=role,  # type: ignore[arg-type]  # literals above
            ready_replicas=arms.ready_replicas(draft.observed.deployments, arm.arm),
        )
        for arm, model, role in pairs
    )
