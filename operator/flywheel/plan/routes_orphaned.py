"""Routes whose Flywheel or Rollout is gone: users go on being served, but nobody is left to judge a candidate. All of them go to stable.

What serves outlives what decided (`deletionPolicy: Retain`), so the routes are planned by themselves. Nothing here needs a finalizer: an
operator that was away when the last judge was deleted finds the routes when it is back; until then they stay as they are.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from flywheel.plan import arms
from flywheel.plan.base import Action, Emit, Plan
from flywheel.plan.kube import DeploymentState
from flywheel.plan.rollout_observed import RoutesState
from flywheel.plan.routes import UNREADABLE, write_routes
from flywheel.specs.envoy import Routes

AGAIN = dt.timedelta(seconds=10)  # while stable can't answer


@dataclass(frozen=True)
class RoutesObserved:
    """Everything the plan of a service's routes depends on."""

    service: str
    namespace: str
    routes: RoutesState | None
    owned: bool = False  # they go with their owner (`deletionPolicy: Delete`)
    judged: bool = False  # there is a Flywheel, or a Rollout that keeps a service of its own
    deployments: Mapping[str, DeploymentState] = field(default_factory=dict)


def plan_routes(observed: RoutesObserved, now: dt.datetime) -> Plan:
    """All users to stable, once it can answer, if nobody is left to decide on the candidate. A ConfigMap has no status."""
    state = observed.routes
    if state is None or state.routes == UNREADABLE or state.routes.candidate is None or observed.owned or observed.judged:
        return Plan({})
    stable, candidate = state.routes.stable, state.routes.candidate
    if not arms.ready_replicas(observed.deployments, stable.arm):
        return Plan({}, requeue_at=now + AGAIN)  # whoever can answer does: a dead arm is no home
    wanted = Routes(revision=1, stable=stable, header=state.routes.header)
    told = (
        f"nobody is left to judge {candidate.generation}: there is neither a Flywheel {observed.service} nor a Rollout of that name; "
        f"all users are sent to {stable.generation}. Arm {candidate.arm} serves nobody: delete ControllerRevision {candidate.arm}, "
        "or make the Flywheel again"
    )
    actions: list[Action] = [
        *write_routes(state, wanted, service=observed.service, namespace=observed.namespace, owners=[], now=now),
        Emit("Warning", "RoutesOrphaned", told),
    ]
    return Plan({}, tuple(actions))
