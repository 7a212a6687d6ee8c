"""A namespace as plain values: the children of a Generation appear at once and end as a test says."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from flywheel.api.base import Metadata, OwnerReference
from flywheel.api.flywheel import ChampionStatus, Flywheel, FlywheelSpec, FlywheelStatus
from flywheel.api.generation import Generation, GenerationSpec, GenerationStatus, Stage
from flywheel.api.reward_model import RewardModel, RewardModelStatus
from flywheel.api.rollout import Rollout, RolloutStatus
from flywheel.api.training_run import TrainingRun, TrainingRunStatus
from flywheel.plan.base import Apply, Create, Defaults, Delete, Plan
from flywheel.plan.generation import plan_generation
from flywheel.plan.generation_observed import GenerationObserved
from flywheel.plan.recording import RECORD

T0 = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
BASE = "sha256:" + "a" * 64
STYLE = {f"style_{name}_delta": 0.0 for name in ("garbage", "refusal", "list", "emoji_count", "question")}  # a stage that bends nothing
GOOD = {"win_rate_user": 0.6, "win_rate_user_lower": 0.55, "win_rate_user_upper": 0.64, "win_rate_internal": 0.58}
PASSING = {**GOOD, "win_rate_internal_upper": 0.63, "win_rate_divergence_significant": 0.0, "safety_violation_rate": 0.0}


def digest_of(text: str) -> str:
    """A digest that differs by name."""
    return "sha256:" + text.encode().hex().ljust(64, "0")[:64]


def metadata(body: dict[str, Any]) -> Metadata:
    """What the API server would have made of a manifest's metadata."""
    meta = body["metadata"]
    owners = tuple(OwnerReference.model_validate(o) for o in meta.get("ownerReferences", ()))
    return Metadata(
        name=meta["name"],
        namespace="demo",
        uid="u-" + meta["name"],
        generation=1,
        labels=meta.get("labels", {}),
        annotations=meta.get("annotations", {}),
        owner_references=owners,
    )


class World:
    """Holds the objects; `step` makes one pass."""

    def __init__(self, **spec: Any) -> None:
        body = {"flywheel": "demo", "rollout": {}, **spec}
        self.generation = Generation(
            metadata=Metadata(name="g1", namespace="demo", uid="u-g1", generation=1), spec=GenerationSpec.model_validate(body)
        )
        champion = ChampionStatus(
            generation="demo-initial", uri="file:///flywheel/artifacts/a", digest=BASE, arm="demo-initial-aaaaaaaa", since=T0
        )
        base = {"base": {"uri": "file:///flywheel/artifacts/a", "digest": BASE}}
        self.flywheel: Flywheel | None = Flywheel(
            metadata=Metadata(name="demo", namespace="demo"),
            spec=FlywheelSpec.model_validate(base),
            status=FlywheelStatus(champion=champion),
        )
        self.now = T0
        self.snapshots: dict[str, GenerationSpec] = {}
        self.pinned: dict[str, list[dict[str, Any]]] = {}  # stages, by snapshot
        self.defaults = Defaults()
        self.laps: dict[str, Generation] = {}  # those that made a champion, by name
        self.earlier_runs: list[TrainingRun] = []
        self.gone: frozenset[str] = frozenset()
        self.runs: dict[str, TrainingRun] = {}
        self.rewards: dict[str, RewardModel] = {}
        self.reward_runs: dict[str, TrainingRun] = {}
        self.record_runs: dict[str, TrainingRun] = {}  # the runs that write a lap's record; they end when a test says so
        self.rollout: Rollout | None = None
        self.other_rollout: str | None = None
        self.siblings: list[Generation] = []
        self.rollouts: list[Rollout] = []
        self.deleted: list[str] = []
        self.metrics: dict[str, dict[str, float]] = {"evaluate": PASSING}
        self.plans: list[Plan] = []

    def step(self, *, crash_after_status: bool = False) -> GenerationStatus:
        """One pass of the operator: persist the status, then act."""
        observed = GenerationObserved(
            generation=self.generation,
            flywheel=self.flywheel,
            defaults=self.defaults,
            snapshot=self.snapshots.get(self.generation.status.snapshot or ""),
            stages=tuple(Stage.model_validate(s) for s in self.pinned.get(self.generation.status.snapshot or "", ())) or None,
            training_runs=dict(self.runs),
            reward_models=dict(self.rewards),
            reward_runs=dict(self.reward_runs),
            record_runs=dict(self.record_runs),
            rollout=self.rollout if self.rollout and self.rollout.metadata.name == self.generation.status.rollout else None,
            other_rollout=self.other_rollout,
            siblings=tuple(self.siblings),
            rollouts=tuple(self.rollouts),
            records=self.laps,
            earlier_runs=tuple(self.earlier_runs),
            gone=self.gone,
        )
        plan = plan_generation(observed, self.now)
        self.plans.append(plan)
        self.generation = self.generation.model_copy(update={"status": GenerationStatus.model_validate(plan.status)})
        for action in () if crash_after_status else plan.actions:
            if isinstance(action, Apply | Create):
                self._write(action.manifest)
            elif isinstance(action, Delete):
                self.deleted.append(action.name)
                self.runs.pop(action.name, None)
                self.rewards.pop(action.name, None)
        self.now += dt.timedelta(seconds=1)
        return self.generation.status

    def run(self, passes: int = 30, *, succeed: bool = True) -> GenerationStatus:
        """Passes in which every child ends well at once, unless told otherwise."""
        for _ in range(passes):
            self.step()
            if succeed:
                self.finish()
        return self.generation.status

    def finish(self) -> None:
        """Every child that runs succeeds."""
        for name, run in self.runs.items():
            if run.status.phase == "Pending":
                self.succeed(name)
        for name, model in self.rewards.items():
            made = {"uri": f"file:///flywheel/{name}", "digest": digest_of(name), "kind": "reward-model"}
            status = RewardModelStatus.model_validate({"phase": "Ready", "artifact": made, "metrics": {"accuracy": 0.9}})
            self.rewards[name] = model.model_copy(update={"status": status})

    def succeed(self, name: str) -> None:
        """One run succeeds."""
        run = self.runs[name]
        kind = {"Curate": "dataset", "RejectionSample": "dataset", "Record": "dataset", "Evaluate": "evaluation"}.get(
            run.spec.method, "model"
        )
        made = {"uri": f"file:///flywheel/{name}", "digest": digest_of(name[-12:] + name), "kind": kind}
        metrics = self.metrics.get(self.stage(name), STYLE if kind == "model" else {})
        status = TrainingRunStatus.model_validate({"phase": "Succeeded", "artifact": made, "metrics": metrics})
        self.runs[name] = run.model_copy(update={"status": status})

    def fail(self, stage: str, reason: str, message: str, token: str | None = None) -> None:
        """The run of a stage fails for good; `token` is the retry that it had heeded."""
        name = next(n for n in self.runs if self.stage(n) == stage)
        condition = {"type": "Succeeded", "status": "False", "reason": reason, "message": message, "lastTransitionTime": T0}
        attempt = {"number": 1, "job": "j", "revision": 1, "reason": reason, "retryToken": token}
        status = TrainingRunStatus.model_validate({"phase": "Failed", "conditions": [condition], "attempts": [attempt]})
        self.runs[name] = self.runs[name].model_copy(update={"status": status})

    def stage(self, name: str) -> str:
        """The stage a child belongs to."""
        return name.removeprefix("g1-").rpartition("-")[0]

    def end_rollout(self, phase: str, verdict: str, reason: str) -> None:
        """The users have answered."""
        assert self.rollout is not None
        decision = {"verdict": verdict, "reason": reason, "message": "breadth +12 %", "time": self.now, "revision": 1}
        status = RolloutStatus.model_validate({"phase": phase, "decision": decision, "cutoverTime": self.now})
        self.rollout = self.rollout.model_copy(update={"status": status})

    def annotate(self, retry: str, stage: str | None = None) -> None:
        """The user asks for another try, of the lap or of one stage."""
        notes = {"modelflywheel.dev/retry": retry, **({"modelflywheel.dev/retry-stage": stage} if stage else {})}
        meta = self.generation.metadata.model_copy(update={"annotations": notes})
        self.generation = self.generation.model_copy(update={"metadata": meta})

    def edit(self, **spec: Any) -> None:
        """The user changes the spec."""
        meta = self.generation.metadata.model_copy(update={"generation": self.generation.metadata.generation + 1})
        changed = GenerationSpec.model_validate({**self.generation.spec.dump(), **spec})
        self.generation = self.generation.model_copy(update={"metadata": meta, "spec": changed})

    def _write(self, manifest: dict[str, Any]) -> None:
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "ControllerRevision":
            self.snapshots.setdefault(name, GenerationSpec.model_validate(manifest["data"]["spec"]))
            self.pinned.setdefault(name, json.loads(json.dumps(manifest["data"].get("stages", []))))
        elif manifest["kind"] == "TrainingRun":
            runs = self.record_runs if RECORD in manifest["metadata"]["labels"] else self.runs
            old = runs.get(name)
            made = TrainingRun(metadata=metadata(manifest), spec=manifest["spec"], status=old.status if old else TrainingRunStatus())
            runs[name] = made
        elif manifest["kind"] == "RewardModel":
            model = self.rewards.get(name)
            known = model.status if model else RewardModelStatus()
            self.rewards[name] = RewardModel(metadata=metadata(manifest), spec=manifest["spec"], status=known)
        elif manifest["kind"] == "Rollout":
            self.rollout = Rollout(metadata=metadata(manifest), spec=manifest["spec"])
