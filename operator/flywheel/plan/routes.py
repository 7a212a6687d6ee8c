"""The routes of one service: one ConfigMap, written only when its content changes, fenced by its resourceVersion."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import replace

from flywheel.plan.base import LABEL, MANAGED_BY, Apply, Create, Manifest
from flywheel.plan.rollout_observed import Acknowledgement, RoutesState
from flywheel.specs.envoy import Routes, format_routes


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
    """The revision that the next write carries. The first is the time in seconds: routes that were deleted and made again
    are newer than any that a router may remember."""
    return state.routes.revision + 1 if state else int(now.timestamp())


def acknowledged(acknowledgements: Iterable[Acknowledgement], revision: int) -> bool:
    """Whether every router replica holds this revision or a newer one. No replica: nobody has."""
    answers = list(acknowledgements)
    return bool(answers) and all(a.accepted and a.revision >= revision for a in answers)
