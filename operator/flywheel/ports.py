"""What the runtime needs from the outside world, as Protocols; adapters implement them, tests use small doubles."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from flywheel.plan.base import Manifest
from flywheel.plan.rollout_observed import Acknowledgement, ErrorShare
from flywheel.stats.verdict import Evidence


class ClusterError(Exception):
    """The API server refused or could not be reached. `retryable` tells which; `status` is HTTP's, 0 if there was no answer."""

    def __init__(self, message: str, *, status: int, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.retryable, self.retry_after = status, retryable, retry_after


class Conflict(ClusterError):
    """Somebody wrote in between: observe again."""


class NameConflict(Conflict):
    """The name is taken by an object of another owner; it is neither adopted nor replaced."""


class Cluster(Protocol):
    """The Kubernetes API, as far as the operator writes it. Every method may raise ClusterError."""

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply with the operator's field manager; returns the object. NameConflict, and nothing is written, if an object of
        that name is neither the same owner's nor labelled as the same model service's (one of our own kinds: owner only)."""

    async def create(self, manifest: Manifest) -> Manifest:
        """Create; if it exists with the same controller owner (or none was asked for) return it, else raise NameConflict."""

    async def delete(self, api_version: str, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete in the background if it still has this uid; a missing object is success."""

    async def patch_status(self, body: Manifest, status: dict[str, Any]) -> Manifest:
        """Replace the status of `body`, only if its resourceVersion is still the newest."""

    async def emit(self, body: Manifest, type_: str, reason: str, message: str) -> None:
        """Record an event; never raises (events are a courtesy)."""


class MetricsProvider(Protocol):
    """Where engagement is measured. No method raises: what can't be had is a value (NoData, Stale, Unavailable)."""

    async def evidence(self, experiment: str, metrics: Sequence[str], *, stale_after: dt.timedelta, window_over: bool) -> Evidence:
        """Moments of each metric by slice, and first assignments."""

    async def error_share(self, namespace: str, service: str, generation: str) -> ErrorShare | None:
        """Failed and all replies of a service's generation in the last minute; None when unknown."""

    async def conversations(self, namespace: str, service: str) -> float | None:
        """Conversations of a service kept so far; None when unknown."""


class TrafficRouter(Protocol):
    """What the router's replicas say of the routes they hold."""

    async def acknowledgements(self, pods: Mapping[str, str]) -> tuple[Acknowledgement, ...]:
        """Ask each router pod (name -> IP) which revision Envoy has taken. A silent pod is an unaccepted one."""


class AdoptedServers(Protocol):
    """Deployments that somebody else runs and that a Flywheel sends users to. They carry no label of ours, so no watch tells of them."""

    async def read(self, namespace: str, deployment: str, service: str) -> tuple[Manifest | None, Manifest | None]:
        """The Deployment and our Service before it, None for what is missing. Raises ClusterError."""

    async def models(self, address: str) -> tuple[tuple[str, ...] | None, str]:
        """The names a server answers to (none if it does not say), or None and why it does not answer."""


class TrainerProgress(Protocol):
    """What a running trainer says of itself."""

    async def progress(self, pod_ip: str) -> Mapping[str, Any] | None:
        """The trainer's /progress; None while it doesn't answer."""


class AdmissionQueues(Protocol):
    """What Kueue says of a Job that waits."""

    async def waits_for(self, namespace: str, job_uid: str) -> str | None:
        """Why it is not admitted; None when nobody can tell."""


class Experiments(Protocol):
    """The collector's register of experiments."""

    async def put(self, collector: str, experiment: str, definition: Mapping[str, Any]) -> None:
        """Idempotent; raises ClusterError (retryable) when the collector doesn't answer."""


class Clock(Protocol):
    """Time as an argument."""

    def now(self) -> dt.datetime:
        """The time in UTC."""
