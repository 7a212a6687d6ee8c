"""What is known of a Rollout's surroundings when it is planned, and what has to be found out before."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flywheel.api.base import parse_duration
from flywheel.api.flywheel import Flywheel
from flywheel.api.names import RETRY
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES, Rollout, RolloutStatus
from flywheel.plan.base import Defaults, Manifest, stable_hash
from flywheel.plan.kube import DeploymentState
from flywheel.plan.parts import Parts
from flywheel.specs.envoy import Routes
from flywheel.stats.verdict import Evidence

MAX_OWNER = 110  # of an experiment's id, which the collector takes up to 128 characters long; the hashes tell experiments apart


@dataclass(frozen=True)
class Acknowledgement:
    """One router replica's word on the routes it holds."""

    pod: str
    revision: int
    accepted: bool
    error: str | None = None


@dataclass(frozen=True)
class ErrorShare:
    """Replies of one generation in the last minute."""

    failed: float
    total: float


@dataclass(frozen=True)
class RoutesState:
    """The routes ConfigMap as it stands."""

    routes: Routes
    resource_version: str


@dataclass(frozen=True)
class RolloutObserved:
    """Everything a Rollout's plan depends on, besides the time."""

    rollout: Rollout
    flywheel: Flywheel | None = None
    defaults: Defaults = field(default_factory=Defaults)
    queued_behind: str | None = None  # see queued_behind()
    deployments: Mapping[str, DeploymentState] = field(default_factory=dict)  # of this service, by name: arms, router, collector
    anchors: Mapping[str, Manifest] = field(default_factory=dict)  # of this service, by arm name: the ControllerRevision that froze it
    routes: RoutesState | None = None
    parts: Parts | None = None  # of this service; None: not looked at
    acknowledgements: tuple[Acknowledgement, ...] = ()  # one for every router pod that should be ready
    evidence: Evidence | None = None  # None: not looked at in this pass
    errors: ErrorShare | None = None


def service_name(rollout: Rollout) -> str:
    """The service whose users are asked: the Flywheel's, or the Rollout's own."""
    return rollout.spec.flywheel or rollout.metadata.name


def experiment_id(rollout: Rollout) -> str:
    """Changes when the question changes (other models, or a retry): users are randomised anew and a new verdict is made."""
    meta, spec = rollout.metadata, rollout.spec
    question = stable_hash(meta.uid, spec.baseline.digest, spec.candidate.digest, meta.annotations.get(RETRY, ""))
    return f"{f'{meta.namespace}.{meta.name}'[:MAX_OWNER]}.{question}"


def asks_the_same(rollout: Rollout) -> bool:
    """Whether the experiment on record is the one that the spec asks for."""
    asked, recorded = experiment_id(rollout), rollout.status.experiment or ""
    return recorded == asked or recorded.startswith(asked + ".")


def holds_service(rollout: Rollout) -> bool:
    """Whether the routes of its service are this Rollout's to write: from its first preparation to its cut-over."""
    status = rollout.status
    if status.experiment is None or status.phase == "Pending" or rollout.metadata.deletion_timestamp is not None:
        return False
    return status.phase not in TERMINAL_ROLLOUT_PHASES and status.cutover_time is None


def promotion_pending(status: RolloutStatus) -> bool:
    """Decided for the candidate, but the router has yet to confirm it: users may meet both arms, and the way back is open."""
    return status.decision is not None and status.decision.verdict == "Promote" and status.cutover_time is None


def unrecorded(rollout: Rollout, flywheel: Flywheel | None) -> bool:
    """A promotion that the Flywheel has yet to take note of: until then its champion is the one before."""
    status, champion = rollout.status, flywheel.status.champion if flywheel else None
    promoted = status.decision is not None and status.decision.verdict == "Promote"
    if champion is None or not promoted or status.cutover_time is None:
        return False
    return status.cutover_time > champion.since and rollout.spec.candidate.digest != champion.digest


def queued_behind(rollout: Rollout, siblings: Iterable[Rollout], flywheel: Flywheel | None = None) -> str | None:
    """The Rollout of the same service that goes first: the one that holds it, else an older one that waits too.

    Two that hold it have each begun before their passes could know of the other: the one that began first goes on.
    """
    others = [o for o in siblings if o.metadata.uid != rollout.metadata.uid and service_name(o) == service_name(rollout)]
    if holds_service(rollout):
        first = min((rollout, *(o for o in others if holds_service(o))), key=_hold)
        return None if first is rollout else first.metadata.name
    for other in sorted(others, key=_age):
        waiting = other.status.phase == "Pending" and _age(other) < _age(rollout) and not other.spec.suspend
        if other.metadata.deletion_timestamp is None and (holds_service(other) or waiting or unrecorded(other, flywheel)):
            return other.metadata.name
    return None


def _hold(rollout: Rollout) -> tuple[bool, dt.datetime, tuple[dt.datetime, str]]:
    """The order of those that hold a service: what is decided is carried out first, then whoever began first."""
    status = rollout.status
    return status.decision is None, status.prepare_start_time or dt.datetime.min.replace(tzinfo=dt.UTC), _age(rollout)


def _age(rollout: Rollout) -> tuple[dt.datetime, str]:
    created = rollout.metadata.creation_timestamp or dt.datetime.max.replace(tzinfo=dt.UTC)
    return created, rollout.metadata.name


def analysis_due(rollout: Rollout, now: dt.datetime) -> bool:
    """Whether the metrics must be looked at in this pass: every interval, and when the window is over."""
    status = rollout.status
    if status.window_start_time is None or status.decision is not None or not asks_the_same(rollout):
        return False
    if status.last_analysis_time is None:
        return True
    due = status.last_analysis_time + parse_duration(rollout.spec.analysis.interval)
    if status.window_end_time is not None and status.last_analysis_time < status.window_end_time:
        due = min(due, status.window_end_time)
    return now >= due


def acknowledgement_needed(rollout: Rollout) -> bool:
    """Whether the router replicas must be asked: while this Rollout holds the service."""
    return holds_service(rollout)
