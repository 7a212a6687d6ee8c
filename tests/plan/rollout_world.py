"""A service as plain values: what a Rollout's plan asks for happens here at once, or not at all. No cluster, no clock."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from flywheel.api.base import Metadata
from flywheel.api.flywheel import ChampionStatus, Flywheel, FlywheelSpec, FlywheelStatus
from flywheel.api.rollout import Rollout, RolloutSpec, RolloutStatus
from flywheel.plan.base import Apply, Create, Delete, Emit, Plan, PutExperiment
from flywheel.plan.kube import DeploymentState, PodState
from flywheel.plan.rollout import plan_rollout
from flywheel.plan.rollout_observed import Acknowledgement, ErrorShare, RolloutObserved, RoutesState, analysis_due
from flywheel.specs.envoy import parse_routes
from flywheel.stats.verdict import Evidence, Measured, Moments

T0 = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
BASE, NEXT = "sha256:" + "a" * 64, "sha256:" + "b" * 64
OLD_ARM = "demo-initial-aaaaaaaa"
NEW_ARM = "g1-bbbbbbbb"


def seconds(value: float) -> dt.timedelta:
    """A timedelta."""
    return dt.timedelta(seconds=value)


def rollout_spec(**changes: Any) -> RolloutSpec:
    """A demo-sized rollout: half and half for 150 s, 15 s maturity."""
    body: dict[str, Any] = {
        "flywheel": "demo",
        "baseline": {"generation": "demo-initial", "uri": "file:///flywheel/artifacts/a", "digest": BASE},
        "candidate": {"generation": "g1", "uri": "file:///flywheel/artifacts/b", "digest": NEXT},
        "serving": {"readyTimeout": "5m"},
        "traffic": {"steps": [{"weightPercent": 50}]},
        "analysis": {"interval": "2s", "window": "150s", "horizon": "15s", "minimumUsers": 50, "patience": "60s"},
        "watch": {"duration": "30s"},
    }
    return RolloutSpec.model_validate({**body, **changes})


def moments(n: int, mean: float, spread: float = 1.0) -> Moments:
    """Moments of n users with this mean and standard deviation."""
    return Moments(n, n * mean, n * (mean * mean + spread * spread))


def evidence(control: dict[str, float], candidate: dict[str, float], n: int = 400, assigned: tuple[int, int] | None = None) -> Evidence:
    """What Prometheus would say of two slices."""
    spread = {"breadth": 0.5, "depth": 1.0}
    pairs = {name: Measured(*(moments(n, arm[name], spread.get(name, 0.1)) for arm in (control, candidate))) for name in control}
    return Evidence(assigned=assigned or (n, n), metrics=pairs, window_over=False)


EQUAL = {"breadth": 0.5, "depth": 1.0, "errors": 0.0, "thumbs_down": 0.1}
BETTER = {**EQUAL, "breadth": 0.7, "depth": 1.4}
WORSE = {**EQUAL, "breadth": 0.2, "depth": 0.4}


class World:
    """Holds the objects; `step` makes one pass of the operator, with a crash wherever a test asks for one."""

    def __init__(self, spec: RolloutSpec | None = None) -> None:
        meta = Metadata(name="r1", namespace="demo", uid="uid-1", generation=1, creation_timestamp=T0)
        self.rollout = Rollout(metadata=meta, spec=spec or rollout_spec())
        champion = ChampionStatus(generation="demo-initial", uri="file:///flywheel/artifacts/a", digest=BASE, arm=OLD_ARM, since=T0)
        base = {"base": {"uri": "file:///flywheel/artifacts/a", "digest": BASE}}
        self.flywheel = Flywheel(
            metadata=Metadata(name="demo", namespace="demo", uid="uid-f"),
            spec=FlywheelSpec.model_validate(base),
            status=FlywheelStatus(champion=champion),
        )
        self.now = T0
        self.deployments = {OLD_ARM: self.deployment(OLD_ARM, "stable")}
        self.anchors: dict[str, Any] = {}
        self.routes: RoutesState | None = None
        self.acks = True
        self.ready = True  # whether new arms become ready
        self.evidence: Evidence | None = None
        self.errors: ErrorShare | None = None
        self.experiments: list[PutExperiment] = []
        self.events: list[Emit] = []
        self.writes: list[str] = []
        self.queued_behind: str | None = None
        self.plans: list[Plan] = []

    @staticmethod
    def deployment(name: str, role: str, ready: bool = True, **pod: Any) -> DeploymentState:
        """An arm with one pod."""
        state = PodState(name=f"{name}-0", ready=ready, phase="Running", **pod)
        labels = {"modelflywheel.dev/role": role}
        return DeploymentState(name=name, uid=f"u-{name}", replicas=1, ready_replicas=int(ready), labels=labels, pods=(state,))

    def observe(self) -> RolloutObserved:
        """What the operator would see now."""
        revision = self.routes.routes.revision if self.routes else 0
        acks = (Acknowledgement("router-0", revision if self.acks else max(0, revision - 1), True),)
        return RolloutObserved(
            rollout=self.rollout,
            flywheel=self.flywheel if self.rollout.spec.flywheel else None,
            queued_behind=self.queued_behind,
            deployments=dict(self.deployments),
            anchors=dict(self.anchors),
            routes=self.routes,
            acknowledgements=acks,
            evidence=self.evidence if analysis_due(self.rollout, self.now) else None,
            errors=self.errors,
        )

    def step(self, *, crash_after_status: bool = False) -> Plan:
        """One pass: persist the status, then act."""
        plan = plan_rollout(self.observe(), self.now)
        self.plans.append(plan)
        self.rollout = self.rollout.model_copy(update={"status": RolloutStatus.model_validate(plan.status)})
        if crash_after_status:
            return plan
        for action in plan.actions:
            self._do(action)
        return plan

    def run(self, until: float, tick: float = 1.0) -> str:
        """Passes until so many seconds after the start; returns the phase."""
        while self.now < T0 + seconds(until):
            self.step()
            self.now += seconds(tick)
        self.step()
        return self.rollout.status.phase

    def edit(self, **changes: Any) -> None:
        """The user changes the spec."""
        meta = self.rollout.metadata.model_copy(update={"generation": self.rollout.metadata.generation + 1})
        self.rollout = self.rollout.model_copy(update={"metadata": meta, "spec": self.rollout.spec.model_copy(update=changes)})

    def _do(self, action: object) -> None:
        if isinstance(action, PutExperiment):
            self.experiments.append(action)
        elif isinstance(action, Emit):
            self.events.append(action)
        elif isinstance(action, Delete):
            self.writes.append(f"delete {action.kind} {action.name}")
            self.anchors.pop(action.name, None)
            self.deployments.pop(action.name, None)
        elif isinstance(action, Apply | Create):
            self._write(action.manifest)

    def _write(self, manifest: dict[str, Any]) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self.writes.append(f"{kind} {name}")
        if kind == "ConfigMap" and name.endswith("-routes"):
            revision = str(int(self.routes.resource_version) + 1) if self.routes else "1"
            wanted = manifest["metadata"].get("resourceVersion")
            assert wanted is None or self.routes is None or wanted == self.routes.resource_version, "an unfenced write of the routes"
            self.routes = RoutesState(parse_routes(manifest["data"]["routes.json"]), revision)
        elif kind == "ControllerRevision":
            given = {"uid": f"u-{name}", "creationTimestamp": self.now.isoformat()}
            self.anchors.setdefault(name, {**manifest, "metadata": {**manifest["metadata"], **given}})
        elif kind == "Deployment":
            role = manifest["metadata"]["labels"].get("modelflywheel.dev/role", "")
            old = self.deployments.get(name) or self.deployment(name, role, ready=self.ready)
            labels = {**old.labels, "modelflywheel.dev/role": role}
            self.deployments[name] = replace(old, labels=labels, replicas=manifest["spec"]["replicas"])
