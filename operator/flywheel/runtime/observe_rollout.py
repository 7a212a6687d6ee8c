"""What surrounds a Rollout: its service, its router's word, the users' engagement when it is due."""

from __future__ import annotations

import datetime as dt

from flywheel.api.base import parse_duration
from flywheel.api.flywheel import Flywheel
from flywheel.api.rollout import Rollout
from flywheel.plan.adoption import with_adopted
from flywheel.plan.base import Manifest
from flywheel.plan.rollout_observed import (
    Acknowledgement,
    ErrorShare,
    RolloutObserved,
    acknowledgement_needed,
    analysis_due,
    promotion_pending,
    queued_behind,
    service_name,
)
from flywheel.ports import MetricsProvider
from flywheel.runtime.cache import View
from flywheel.runtime.observe import World, acknowledgements, observe_adopted, observe_service, routes_of, together
from flywheel.stats.evidence import Evidence

ERRORS_EVERY = dt.timedelta(seconds=5)


async def observe_rollout(view: View, body: Manifest, world: World, now: dt.datetime) -> RolloutObserved:
    """Caches first; the router, the metrics and the error share are asked at once, and only when they matter."""
    rollout = world.parser.parse(Rollout, body)
    name = service_name(rollout)
    owner = view.get("Flywheel", rollout.spec.flywheel) if rollout.spec.flywheel else None
    siblings = [world.parser.parse(Rollout, b) for b in view.of_service("Rollout", name)]
    flywheel = world.parser.parse(Flywheel, owner) if owner else None
    adopted = await observe_adopted(world, flywheel, now, routes_of(view, name)) if flywheel else None
    service = observe_service(view, name)

    async def acks() -> tuple[Acknowledgement, ...]:
        return await acknowledgements(world, service, name) if acknowledgement_needed(rollout) else ()

    acknowledged, evidence, errors = await together(acks(), _evidence(rollout, world, now), _errors(rollout, world, now))
    return RolloutObserved(
        rollout=rollout,
        flywheel=flywheel,
        defaults=world.defaults,
        queued_behind=queued_behind(rollout, siblings, flywheel),
        deployments=with_adopted(service.deployments, adopted),
        anchors=service.anchors,
        routes=service.routes,
        parts=service.parts,
        acknowledgements=acknowledged,
        evidence=evidence,
        errors=errors,
    )


def _provider(rollout: Rollout, world: World) -> MetricsProvider:
    own = rollout.spec.analysis.prometheus
    return world.metrics(own.address if own else world.defaults.prometheus_address)


async def _evidence(rollout: Rollout, world: World, now: dt.datetime) -> Evidence | None:
    if not analysis_due(rollout, now):
        return None
    end = rollout.status.window_end_time
    return await _provider(rollout, world).evidence(
        rollout.status.experiment or "",
        [metric.name for metric in rollout.spec.metrics],
        stale_after=parse_duration(rollout.spec.analysis.stale_after),
        window_over=end is not None and now >= end,
    )


async def _errors(rollout: Rollout, world: World, now: dt.datetime) -> ErrorShare | None:
    """Only while users meet the candidate and can be taken back: before and after there is nothing to protect them from."""
    undecided = rollout.status.decision is None or promotion_pending(rollout.status)
    if not undecided or not rollout.status.weights.intended:
        return None
    asked = (rollout.metadata.namespace, service_name(rollout), rollout.spec.candidate.generation)
    return await world.throttle.ask(
        f"errors/{rollout.metadata.uid}", ERRORS_EVERY, now, lambda: _provider(rollout, world).error_share(*asked)
    )
