"""What a planner returns: the status to persist, the actions that follow from it, and when to look again."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flywheel.api.base import API_VERSION, Metadata
from flywheel.api.names import LABEL as LABEL
from flywheel.api.names import MANAGED_BY as MANAGED_BY
from flywheel.api.names import MANAGER as MANAGER
from flywheel.plan.prices import PriceTable

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Apply:
    """Server-side apply of a manifest. With `metadata.resourceVersion` in it, only if nobody wrote since; with `metadata.uid` only to
    that object; with neither, never to an object that somebody else has made."""

    manifest: Manifest


@dataclass(frozen=True)
class Create:
    """Create, and leave what is already there as it is (frozen manifests, Jobs). Never adopts another owner's object."""

    manifest: Manifest


@dataclass(frozen=True)
class Delete:
    """Delete one object, only if it still has this uid."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class PutExperiment:
    """Tell the collector what to count (idempotent)."""

    collector: str  # base URL
    experiment: str
    definition: dict[str, Any]


@dataclass(frozen=True)
class Emit:
    """A Kubernetes event on the planned object."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


Action = Apply | Create | Delete | PutExperiment | Emit


@dataclass(frozen=True)
class Plan:
    """Persist `status` first; only then do `actions`, in order; look again at `requeue_at` at the latest.

    A decision is part of the status, so it is on record before anything acts on it; an action that was lost in a
    crash is planned again by the next pass, which sees that it has not happened.
    """

    status: dict[str, Any]
    actions: tuple[Action, ...] = ()
    requeue_at: dt.datetime | None = None


@dataclass(frozen=True)
class Defaults:
    """The operator's settings that planners need (chart values)."""

    trainer_image: str = "localhost/flywheel/trainer:dev"
    vllm_image: str = "localhost/flywheel/vllm:dev"
    collector_image: str = "localhost/flywheel/collector:dev"
    envoy_image: str = "localhost/flywheel/envoy:dev"
    operator_image: str = "localhost/flywheel/operator:dev"
    prometheus_address: str = "http://prometheus.flywheel-system:9090"
    prices: PriceTable = field(default_factory=PriceTable)


@dataclass(frozen=True)
class Owner:
    """The object that children are made for."""

    kind: str
    metadata: Metadata
    extra_labels: Mapping[str, str] = field(default_factory=dict)

    def reference(self) -> Manifest:
        """An owner reference with which the garbage collector cleans up; it never blocks the owner's deletion."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "name": self.metadata.name,
            "uid": self.metadata.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }


def stable_hash(*parts: object, length: int = 8) -> str:
    """A short hash of JSON-able parts, the same in every process."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def child_name(owner: Metadata, role: str, *key: object, longest: int = 63) -> str:
    """Owner + role + hash of (owner's UID, role, key): the same on every retry, another for another owner; at most `longest` long."""
    suffix = f"-{role}-{stable_hash(owner.uid, role, *key)}" if role else f"-{stable_hash(owner.uid, *key)}"
    return owner.name[: longest - len(suffix)].rstrip("-.") + suffix


def deployments_last(manifests: Iterable[Manifest]) -> list[Manifest]:
    """The order to apply a stack in: what its Deployment says of it is taken for the whole, so everything else is there before."""
    return sorted(manifests, key=lambda manifest: manifest["kind"] == "Deployment")


def earliest(times: Iterable[dt.datetime | None]) -> dt.datetime | None:
    """The first of the times that are set."""
    return min((t for t in times if t is not None), default=None)


def duration_text(delta: dt.timedelta) -> str:
    """A duration for people: `42 s`, `3 min`, `5 h`, `7 d`."""
    seconds = max(0, round(delta.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
