"""The routes of one service: one ConfigMap, written only when its content changes, fenced by its resourceVersion."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import replace

from flywheel.plan.base import LABEL, MANAGED_BY, Apply, Create, Manifest
from flywheel.plan.rollout_observed import Acknowledgement, RoutesState
from flywheel.specs.envoy import Arm, Routes, format_routes

# Stands for routes that nobody can read: never what is wanted, so that they are overwritten, and of a revision that no router can
# confirm, so that no arm is cleared away on their word. Routers go on with the last routes they could read.
UNREADABLE = Routes(revision=2**53 - 1, stable=Arm(arm="unreadable", generation="unreadable", service="unreadable"))


def routes_name(service: str) -> str:
    """Name of the ConfigMap."""
    return f"{service}-routes"


def same_routes(state: RoutesState | None, wanted: Routes) -> bool:
    """Whether what stands is what is wanted, whatever its revision."""
    return state is not None and replace(wanted, revision=state.routes.revision) == state.routes


def write_routes(
    state: RoutesState | None, wanted: Routes, *, service: str, namespace: str, owners: Sequence[Manifest], now: dt.datetime
) -> list[Apply | Create]:
    """Nothing if it stands already, else one write of the next revision that fails if somebody wrote in between."""
    if same_routes(state, wanted):
        return []
    next_one = replace(wanted, revision=next_revision(state, now))
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": routes_name(service),
            "namespace": namespace,
            "labels": {**MANAGED_BY, LABEL + "flywheel": service, LABEL + "component": "routes"},
            "ownerReferences": list(owners),
        },
        "data": {"routes.json": format_routes(next_one)},
    }
    if state is None:
        return [Create(manifest)]
    manifest["metadata"]["resourceVersion"] = state.resource_version
    return [Apply(manifest)]


def next_revision(state: RoutesState | None, now: dt.datetime) -> int:
    """The revision that the next write carries. The first is the time in seconds: routes that were deleted or spoilt, and are made
    again, are newer than any that a router may remember."""
    return int(now.timestamp()) if state is None or state.routes == UNREADABLE else state.routes.revision + 1


def acknowledged(acknowledgements: Iterable[Acknowledgement], revision: int) -> bool:
    """Whether every router replica holds this revision or a newer one. No replica: nobody has."""
    answers = list(acknowledgements)
    return bool(answers) and all(a.accepted and a.revision >= revision for a in answers)
