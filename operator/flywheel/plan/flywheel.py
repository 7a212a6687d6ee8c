"""Flywheel: keep the service up, know the champion, start the next lap, clear away what nobody needs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flywheel.api.base import Condition, get_condition, set_condition
from flywheel.api.common import Artifact
from flywheel.api.flywheel import Adoption, ChampionStatus, Flywheel, FlywheelStatus
from flywheel.api.generation import Generation
from flywheel.api.reasons import Reason
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES, ArmStatus, Rollout
from flywheel.api.training_run import TrainingRun
from flywheel.plan import adoption, arms
from flywheel.plan.base import Action, Defaults, Emit, Manifest, Owner, Plan, earliest
from flywheel.plan.collection import plan_collection
from flywheel.plan.flywheel_laps import plan_laps
from flywheel.plan.flywheel_names import first_generation, is_first
from flywheel.plan.garbage import Mark
from flywheel.plan.kube import DeploymentState
from flywheel.plan.lineage import remembered
from flywheel.plan.parts import Parts
from flywheel.plan.rollout_observed import Acknowledgement, RoutesState, holds_service
from flywheel.plan.rollout_verdict import why_not_ready
from flywheel.plan.routes import acknowledged, write_routes
from flywheel.plan.service import router_address, service_actions
from flywheel.specs.envoy import Arm, Routes
from flywheel.specs.pods import InvalidPodTemplate
from flywheel.specs.vllm import arm_name

TICK = dt.timedelta(seconds=10)
SOON = dt.timedelta(seconds=2)  # while router replicas have yet to confirm
MAX_PREVIOUS = 50
ADOPTED = "Adopted"


@dataclass(frozen=True)
class FlywheelObserved:
    """Everything a Flywheel's plan depends on, besides the time."""

    flywheel: Flywheel
    defaults: Defaults = field(default_factory=Defaults)
    generations: tuple[Generation, ...] = ()  # with spec.flywheel = this one
    rollouts: tuple[Rollout, ...] = ()  # with spec.flywheel = this one
    deployments: Mapping[str, DeploymentState] = field(default_factory=dict)  # of this service, by name
    anchors: Mapping[str, Manifest] = field(default_factory=dict)  # of this service, by arm name
    routes: RoutesState | None = None
    parts: Parts | None = None  # of this service; None: not looked at
    acknowledgements: tuple[Acknowledgement, ...] = ()
    conversations: float | None = None  # kept so far, as Prometheus has it
    collections: Mapping[str, TrainingRun] = field(default_factory=dict)  # its runs that collect garbage, by name
    mark: Mark | None = None  # what must stay in the store; taken only when collection.needs_mark() says so
    adopted: adoption.AdoptedState | None = None  # what adoption.asked_for names


@dataclass
class Draft:
    """A pass in the making."""

    observed: FlywheelObserved
    now: dt.datetime
    status: FlywheelStatus
    actions: list[Action] = field(default_factory=list)
    wake: dt.datetime | None = None
    invalid: str | None = None  # what in the spec keeps the champion from being served
    hindered: tuple[Reason, str] | None = None  # what keeps users from an adopted champion

    def set(self, **changes: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=changes)


def plan_flywheel(observed: FlywheelObserved, now: dt.datetime) -> Plan:
    """The next status of a Flywheel, what follows from it, and when to look again."""
    draft = Draft(observed, now, observed.flywheel.status)
    _know_champion(draft)
    draft.set(lineage=remembered(draft.status, observed.generations, observed.rollouts))
    _serve(draft)
    laps = plan_laps(observed.flywheel, draft.status, observed.generations, observed.conversations, now)
    draft.status, draft.wake = laps.status, earliest((draft.wake, laps.wake))
    draft.actions += laps.actions
    collecting = plan_collection(
        observed.flywheel, draft.status, observed.generations, observed.rollouts, observed.collections, observed.mark, now
    )
    draft.status = collecting.status
    draft.actions += collecting.actions
    _clear_away(draft)
    _report(draft)
    return Plan(draft.status.dump(), tuple(draft.actions), earliest((draft.wake, now + TICK)))


def _name(draft: Draft) -> str:
    return draft.observed.flywheel.metadata.name


def _owners(draft: Draft) -> list[Manifest]:
    flywheel = draft.observed.flywheel
    return [Owner("Flywheel", flywheel.metadata).reference()] if flywheel.spec.deletion_policy == "Delete" else []


# ---------------------------------------------------------------------------------------------------- champion


def _know_champion(draft: Draft) -> None:
    """The base at first, and as it was mended until it serves; then the winner of every Rollout whose cut-over the router has confirmed."""
    champion = draft.status.champion
    if champion is None and (champion := _found(draft)) is not None:
        draft.set(champion=champion)
        draft.actions.append(Emit("Normal", "Champion", f"{champion.generation} serves already, and stays champion"))
    elif champion is None:
        champion = _first(draft)
        draft.set(champion=champion)
    elif _other_base(draft, champion) and _never_served(draft) and not _busy(draft):
        champion = _first(draft)
        draft.set(champion=champion)
        draft.actions.append(
            Emit("Normal", "Champion", f"spec.base or spec.adopt was changed before anybody was served: {champion.arm} is champion")
        )
    for rollout in sorted(_winners(draft), key=lambda r: r.status.cutover_time or draft.now):
        cutover, winner = rollout.status.cutover_time, rollout.spec.candidate
        if cutover is None or cutover <= champion.since or winner.digest == champion.digest:
            continue
        previous = (champion, *draft.status.previous)[:MAX_PREVIOUS]
        arm = arm_name(winner.generation, winner.digest)
        champion = ChampionStatus(generation=winner.generation, uri=winner.uri, digest=winner.digest, arm=arm, since=cutover)
        draft.set(champion=champion, previous=previous)
        draft.actions.append(Emit("Normal", "Champion", f"{winner.generation} is champion, after {previous[0].generation}"))


def _first(draft: Draft) -> ChampionStatus:
    flywheel, name = draft.observed.flywheel, first_generation(draft.observed.flywheel)
    base, adopted = flywheel.spec.base, flywheel.spec.adopt
    arm = arm_name(name, base.digest) if adopted is None else adoption.adopted_arm(flywheel, base.digest)
    return ChampionStatus(generation=name, uri=base.uri, digest=base.digest, arm=arm, since=draft.now, adopted=adopted)


def _other_base(draft: Draft, champion: ChampionStatus) -> bool:
    """Whether the spec asks for another first champion."""
    spec = draft.observed.flywheel.spec
    return (champion.uri, champion.digest, champion.adopted) != (spec.base.uri, spec.base.digest, spec.adopt)


def _never_served(draft: Draft) -> bool:
    """Whether the first champion has not met a user yet. The phase remembers it if somebody deletes the routes later."""
    observed, champion = draft.observed, draft.status.champion
    if champion is None or not is_first(observed.flywheel, champion.generation):
        return False
    waits = observed.routes is None and observed.flywheel.status.phase == "Starting"
    # An adopted Deployment is ready from the beginning, and nobody is sent to it before it was found fit.
    return waits and (champion.adopted is not None or not arms.ready_replicas(observed.deployments, champion.arm))


def _found(draft: Draft) -> ChampionStatus | None:
    """What serves this service's users already: a Flywheel that is made again goes on where the one before has stopped."""
    observed, uid = draft.observed, draft.observed.flywheel.metadata.uid
    arm = observed.routes.routes.stable.arm if observed.routes else ""
    frozen = observed.anchors.get(arm)
    if frozen is None or frozen["metadata"].get("deletionTimestamp"):
        return None
    if any(owner["uid"] != uid for owner in frozen["metadata"].get("ownerReferences") or ()):
        return None  # it goes with the Flywheel it belonged to
    data, model = frozen["data"], frozen["data"]["model"]
    adopted = Adoption.model_validate(data["adopted"]) if data.get("adopted") else None
    return ChampionStatus(
        generation=data["generation"], uri=model["uri"], digest=model["digest"], arm=arm, since=draft.now, adopted=adopted
    )


def _winners(draft: Draft) -> list[Rollout]:
    decided = [r for r in draft.observed.rollouts if r.status.decision and r.status.cutover_time]
    return [r for r in decided if r.status.decision and r.status.decision.verdict == "Promote"]


# ---------------------------------------------------------------------------------------------------- service


def _serve(draft: Draft) -> None:
    observed, flywheel, champion = draft.observed, draft.observed.flywheel, draft.status.champion
    if champion is None:
        return
    namespace = flywheel.metadata.namespace
    draft.actions += service_actions(
        observed.deployments,
        service=_name(draft),
        namespace=namespace,
        router=flywheel.spec.router,
        engagement=flywheel.spec.engagement,
        storage=flywheel.spec.storage,
        owners=_owners(draft),
        defaults=observed.defaults,
        parts=observed.parts,
    )
    if champion.adopted is not None:
        _adopt(draft, champion, champion.adopted)
    alone = not _busy(draft) or _never_served(draft)  # else a Rollout gives the champion's arm its role
    if alone or champion.arm not in observed.anchors or champion.arm not in observed.deployments:
        try:
            draft.actions += _champion_arm(draft, champion)
        except InvalidPodTemplate as error:
            draft.invalid = f"spec.serving.podTemplate: {error}"
    if any(holds_service(r) or _cutting_over(r) for r in observed.rollouts) or draft.hindered is not None:
        return  # the routes are that Rollout's to write, or there is nobody to send users to
    if arms.ready_replicas(observed.deployments, champion.arm):
        stable = Arm(arm=champion.arm, generation=champion.generation, service=champion.arm)
        wanted = Routes(revision=1, stable=stable, header=flywheel.spec.router.assignment.header)
        draft.actions += write_routes(
            observed.routes, wanted, service=_name(draft), namespace=namespace, owners=_owners(draft), now=draft.now
        )


def _adopt(draft: Draft, champion: ChampionStatus, adopted: Adoption) -> None:
    """Keep the Service before an adopted Deployment, and know whether users may be sent there."""
    observed = draft.observed
    routed = observed.routes is not None and champion.arm in (arm.arm for arm in observed.routes.routes.arms)
    draft.hindered = adoption.obstacle(observed.flywheel, adopted, observed.adopted, routed=routed)
    draft.actions += adoption.service_actions(observed.flywheel, champion, observed.anchors.get(champion.arm), observed.adopted)
    if not routed:
        draft.wake = draft.now + SOON


def _champion_arm(draft: Draft, champion: ChampionStatus) -> list[Action]:
    observed, spec = draft.observed, draft.observed.flywheel.spec
    if champion.adopted is not None:
        frozen, render = observed.anchors.get(champion.arm), partial(adoption.anchor, observed.flywheel, champion, _owners(draft))
        return arms.arm_actions(frozen, None, render, arms.STABLE, never_served=_never_served(draft))
    render = partial(
        arms.anchor,
        arm=champion.arm,
        service=_name(draft),
        generation=champion.generation,
        model=Artifact(uri=champion.uri, digest=champion.digest),
        serving=spec.serving,
        storage=spec.storage,
        namespace=observed.flywheel.metadata.namespace,
        owners=_owners(draft),
        defaults=observed.defaults,
    )
    frozen, deployment = observed.anchors.get(champion.arm), observed.deployments.get(champion.arm)
    return arms.arm_actions(frozen, deployment, render, arms.STABLE, never_served=_never_served(draft), parts=observed.parts)


def _busy(draft: Draft) -> bool:
    """Whether a Rollout is under way."""
    return any(r.status.phase not in (*TERMINAL_ROLLOUT_PHASES, "Pending") for r in draft.observed.rollouts)


def _cutting_over(rollout: Rollout) -> bool:
    """Decided but not yet confirmed by the router: its next pass writes the routes."""
    return rollout.status.decision is not None and rollout.status.cutover_time is None and rollout.metadata.deletion_timestamp is None


# ---------------------------------------------------------------------------------------------------- clear away


def _clear_away(draft: Draft) -> None:
    """Arms that are neither champion nor routed nor part of an unfinished Rollout (its parked one included)."""
    observed, champion = draft.observed, draft.status.champion
    if champion is None or (observed.routes is None and not _never_served(draft)):
        return
    keep = {champion.arm, *(arm.arm for arm in (observed.routes.routes.arms if observed.routes else ()))}
    for rollout in observed.rollouts:
        if rollout.status.phase not in TERMINAL_ROLLOUT_PHASES:
            keep |= {arm.name for arm in rollout.status.arms}
            keep.add(arm_name(rollout.spec.candidate.generation, rollout.spec.candidate.digest))
    if observed.routes is None:  # a router may remember routes that somebody deleted
        keep |= {name for name in observed.anchors if arms.ready_replicas(observed.deployments, name)}
    leftover = [arms.delete_arm(anchor) for name, anchor in sorted(observed.anchors.items()) if name not in keep]
    if leftover and observed.routes and not acknowledged(observed.acknowledgements, observed.routes.routes.revision):
        draft.wake = earliest((draft.wake, draft.now + SOON))  # a router replica may still send users there
        return
    draft.actions += leftover


# ---------------------------------------------------------------------------------------------------- words


def _report(draft: Draft) -> None:
    observed, flywheel, champion = draft.observed, draft.observed.flywheel, draft.status.champion
    arm = champion.arm if champion else ""
    ready = arms.ready_replicas(observed.deployments, arm)
    router = observed.deployments.get(f"{_name(draft)}-router")
    served = bool(ready and observed.routes and router and router.ready_replicas)
    was = observed.flywheel.status.phase
    phase = "Serving" if served else "Starting" if was == "Starting" else "Degraded"
    if served:
        reason, message = Reason.READY, f"{champion.generation if champion else ''} answers with {ready} replicas"
    elif draft.hindered:
        reason, message = draft.hindered
    elif draft.invalid:
        reason, message = Reason.INVALID_SPEC, draft.invalid
    elif not ready:
        reason, why = why_not_ready(observed.deployments.get(arm))
        message = f"the champion's arm {arm} has no ready pod: {why}"
    else:
        reason, message = Reason.STARTING, "the router is not ready"
    conditions = set_condition(
        draft.status.conditions, "Ready", served, reason, message, generation=flywheel.metadata.generation, now=draft.now
    )
    conditions = _adopted_condition(draft, conditions)
    draft.set(
        phase=phase,
        conditions=conditions,
        observed_generation=flywheel.metadata.generation,
        arms=_arm_statuses(draft),
        conversations=observed.conversations if observed.conversations is not None else draft.status.conversations,
        address=router_address(_name(draft), flywheel.metadata.namespace),
    )


def _adopted_condition(draft: Draft, conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    champion, flywheel = draft.status.champion, draft.observed.flywheel.model_copy(update={"status": draft.status})
    said = adoption.condition(flywheel, champion, draft.hindered, draft.observed.anchors) if champion else None
    if said is None:
        return tuple(c for c in conditions if c.type != ADOPTED)
    word, (reason, message) = said
    old = get_condition(conditions, ADOPTED)
    if reason is Reason.RELEASED and (old is None or old.reason != reason):
        draft.actions.append(Emit("Normal", reason, message))
    return set_condition(conditions, ADOPTED, word, reason, message, generation=flywheel.metadata.generation, now=draft.now)


def _arm_statuses(draft: Draft) -> tuple[ArmStatus, ...]:
    words = {arms.STABLE: "Stable", arms.CANDIDATE: "Candidate", arms.PARKED: "Parked"}
    found = []
    for name, anchor in sorted(draft.observed.anchors.items()):
        deployment = draft.observed.deployments.get(name)
        if deployment is None:
            continue
        data, champion = anchor["data"], draft.status.champion
        role = words.get(deployment.labels.get(arms.ROLE, ""), "Parked")
        if data.get("adopted") and champion is not None and champion.arm == name:
            role = "Stable"  # a Deployment of somebody else's carries no role
        found.append(
            ArmStatus(
                name=name,
                generation=data["generation"],
                digest=data["model"]["digest"],
                role=role,  # type: ignore[arg-type]  # literals above
                ready_replicas=deployment.ready_replicas,
            )
        )
    return tuple(found[:16])
