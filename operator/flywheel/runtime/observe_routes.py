"""What surrounds the routes of a service: whoever may judge a candidate in them, and the arms."""

from __future__ import annotations

import datetime as dt

from flywheel.api.rollout import Rollout
from flywheel.plan.adoption import with_adopted
from flywheel.plan.base import LABEL, Manifest
from flywheel.plan.routes_orphaned import RoutesObserved
from flywheel.runtime.cache import View
from flywheel.runtime.observe import World, observe_service, read_adopted


async def observe_routes(view: View, body: Manifest, world: World, now: dt.datetime) -> RoutesObserved:
    """While there is a Flywheel nothing else is looked at, and nothing else wakes."""
    service = str((body["metadata"].get("labels") or {}).get(LABEL + "flywheel"))
    if view.get("Flywheel", service) is not None:
        return RoutesObserved(service, view.namespace, None, judged=True)
    before = observe_service(view, service)
    stable = before.routes.routes.stable.arm if before.routes else ""
    theirs = (before.anchors.get(stable) or {}).get("data", {}).get("adopted")
    adopted = await read_adopted(world, view.namespace, stable, theirs["deployment"], now) if theirs else None
    rollouts = [world.parser.parse(Rollout, found) for found in view.of_service("Rollout", service)]
    state = observe_service(view, service)
    return RoutesObserved(
        service=service,
        namespace=view.namespace,
        routes=state.routes,
        owned=bool(body["metadata"].get("ownerReferences")),
        judged=any(not r.spec.flywheel and r.metadata.deletion_timestamp is None for r in rollouts),
        deployments=with_adopted(state.deployments, adopted),
    )
