"""What surrounds a Flywheel: its laps, its Rollouts and its service."""

from __future__ import annotations

import datetime as dt

from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Generation
from flywheel.api.rollout import Rollout
from flywheel.api.training_run import TrainingRun
from flywheel.plan.adoption import asked_for, with_adopted
from flywheel.plan.base import Manifest
from flywheel.plan.collection import needs_mark
from flywheel.plan.flywheel import FlywheelObserved
from flywheel.plan.garbage import COLLECTION, mark
from flywheel.runtime.cache import View
from flywheel.runtime.observe import World, acknowledgements, observe_adopted, observe_service

CONVERSATIONS_EVERY = dt.timedelta(seconds=10)


async def observe_flywheel(view: View, body: Manifest, world: World, now: dt.datetime) -> FlywheelObserved:
    """Everything from the caches, and the number of conversations from Prometheus."""
    flywheel = world.parser.parse(Flywheel, body)
    name, namespace = flywheel.metadata.name, flywheel.metadata.namespace
    provider = world.metrics(world.defaults.prometheus_address)
    # The outside world first: what the caches say must not be older than the plan that is made from it.
    conversations = await world.throttle.ask(
        f"conversations/{flywheel.metadata.uid}", CONVERSATIONS_EVERY, now, lambda: provider.conversations(namespace, name)
    )
    service = observe_service(view, name)
    adopted = await observe_adopted(world, flywheel, now, service.routes)
    routed = {arm.arm for arm in service.routes.routes.arms} if service.routes else set()
    leaving = service.anchors.keys() - routed  # arms that may have to go
    acks = await acknowledgements(world, service, name) if leaving else ()
    if leaving or asked_for(flywheel) is not None:
        service = observe_service(view, name)  # time has passed
    runs = {
        b["metadata"]["name"]: world.parser.parse(TrainingRun, b)
        for b in view.labelled("TrainingRun", "flywheel", name)
        if _ours(flywheel, b)
    }
    # By all objects of all namespaces that the caches have: a store may be shared. Nobody is woken by them: a mark is taken once.
    marked = mark(flywheel, flywheel.status.released, view.everything()) if needs_mark(flywheel.status, runs) else None
    return FlywheelObserved(
        flywheel=flywheel,
        defaults=world.defaults,
        generations=tuple(world.parser.parse(Generation, b) for b in view.of_service("Generation", name)),
        rollouts=tuple(world.parser.parse(Rollout, b) for b in view.of_service("Rollout", name)),
        deployments=with_adopted(service.deployments, adopted),
        anchors=service.anchors,
        routes=service.routes,
        parts=service.parts,
        acknowledgements=acks,
        conversations=conversations,
        collections=runs,
        mark=marked,
        adopted=adopted,
    )


def _ours(flywheel: Flywheel, body: Manifest) -> bool:
    """A run that collects garbage for this Flywheel."""
    owners = {owner["uid"] for owner in body["metadata"].get("ownerReferences") or ()}
    return COLLECTION in body["metadata"]["labels"] and flywheel.metadata.uid in owners
