"""RewardModel: a TrainingRun of method Reward (or an imported artifact), and the check without which nobody may use it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from flywheel.api.base import API_VERSION, get_condition, set_condition
from flywheel.api.common import Artifact
from flywheel.api.reasons import Reason
from flywheel.api.reward_model import RewardModel, RewardModelStatus, Validation
from flywheel.api.training_run import TrainingRun, TrainingRunSpec
from flywheel.plan.base import LABEL, MANAGED_BY, Action, Apply, Defaults, Emit, Manifest, Owner, Plan, child_name
from flywheel.plan.training_retries import RETRY_ANNOTATION

Phase = Literal["Pending", "Training", "Ready", "Failed"]
AGAIN = dt.timedelta(seconds=30)  # the child's events wake earlier
INHERITED_LABELS = ("flywheel", "generation")
CALM = {Reason.READY, Reason.RUNNING, Reason.STARTING, Reason.SUSPENDED, Reason.WAITING}


@dataclass(frozen=True)
class RewardModelObserved:
    """Everything a RewardModel's plan depends on, besides the time."""

    reward_model: RewardModel
    training_run: TrainingRun | None = None  # the child called training_run_name(reward_model), if it exists
    defaults: Defaults = field(default_factory=Defaults)


@dataclass(frozen=True)
class _Pass:
    observed: RewardModelObserved
    now: dt.datetime
    status: RewardModelStatus

    @property
    def model(self) -> RewardModel:
        return self.observed.reward_model

    def having(self, **changes: Any) -> _Pass:
        return replace(self, status=self.status.model_copy(update=changes))


def training_run_name(reward_model: RewardModel) -> str:
    """The TrainingRun that makes it: the one on record, or the first."""
    return reward_model.status.training_run or child_name(reward_model.metadata, "train")


def plan_reward_model(observed: RewardModelObserved, now: dt.datetime) -> Plan:
    """What to do about a RewardModel now."""
    model = observed.reward_model
    this = _Pass(observed, now, model.status)
    if model.metadata.deletion_timestamp is not None:
        return Plan(model.status.dump())
    if model.spec.artifact is not None:
        return _import(this, model.spec.artifact)
    if model.spec.training is None:
        message = "give spec.training to train a reward model, or spec.artifact to import one"
        return _settle(this, "Failed", False, Reason.INVALID_SPEC, message)
    if model.status.ready_time is not None and model.status.artifact is not None:
        return _judge(this, model.status.artifact)  # what was trained stays, whatever becomes of its TrainingRun
    return _train(this)


def _import(this: _Pass, artifact: Artifact) -> Plan:
    if artifact.digest is None:
        message = "spec.artifact has no digest: an imported reward model is trusted by its content alone; give spec.artifact.digest"
        return _settle(this.having(artifact=None, ready_time=None), "Failed", False, Reason.INVALID_SPEC, message)
    if artifact.kind not in (None, "reward-model"):
        message = f"spec.artifact is a {artifact.kind}, not a reward-model; refer to another"
        return _settle(this.having(artifact=None, ready_time=None), "Failed", False, Reason.INVALID_SPEC, message)
    this = this.having(artifact=artifact, ready_time=this.status.ready_time or this.now)
    message = f"imported {artifact.digest}; it was not trained here, so {this.model.spec.validation.metric} was not checked"
    return _settle(this, "Ready", True, Reason.READY, message)


# ------------------------------------------------------------------------------------------------------------- training


def _train(this: _Pass) -> Plan:
    child, name = this.observed.training_run, training_run_name(this.model)
    this = this.having(training_run=name)
    if child is None:
        unchanged = this.status.observed_generation == this.model.metadata.generation and this.status.retry == _token(this.model)
        if this.status.phase == "Failed" and unchanged:
            return Plan(this.model.status.dump())  # its run was tidied away; that mends nothing
        message = f"TrainingRun {name} is being created"
        return _settle(this, "Pending", False, Reason.STARTING, message, again=AGAIN, actions=(Apply(_manifest(this.model, name)),))
    if not any(owner.uid == this.model.metadata.uid for owner in child.metadata.owner_references):
        message = f"there is a TrainingRun {name} that belongs to somebody else; delete or rename one of the two"
        return _settle(this, "Failed", False, Reason.NAME_CONFLICT, message, again=AGAIN)
    this = this.having(progress=child.status.progress, metrics=child.status.metrics)
    if child.status.phase == "Succeeded" and child.status.artifact is not None:
        return _trained(this, child, child.status.artifact)
    actions = (Apply(_manifest(this.model, name)),) if _differs(this.model, child) else ()
    succeeded = get_condition(child.status.conditions, "Succeeded")
    reason = Reason(succeeded.reason) if succeeded and succeeded.reason in set(Reason) else Reason.STARTING
    message = f"TrainingRun {name}: {succeeded.message if succeeded else 'not started yet'}"
    if child.status.phase == "Failed" and (actions or not _heeded(this.model, child)):
        message = f"TrainingRun {name} failed, and is tried again"
        return _settle(this, "Training", False, Reason.RETRYING, message, again=AGAIN, actions=actions)
    if child.status.phase == "Failed":
        return _settle(this, "Failed", False, reason, message)
    phase: Phase = "Pending" if child.status.phase == "Pending" else "Training"
    return _settle(this, phase, False, reason, message, again=AGAIN, actions=actions)


def _trained(this: _Pass, child: TrainingRun, artifact: Artifact) -> Plan:
    """A finished run is final: if it did not pass and the spec was mended since, another run is made."""
    passed, _ = _check(this.model.spec.validation, child.status.metrics)
    if not passed and _differs(this.model, child):
        name = child_name(this.model.metadata, "train", this.model.metadata.generation)
        if name != child.metadata.name:
            this = this.having(training_run=name, progress=None, metrics={}, artifact=None)
            message = f"TrainingRun {name} is being created for the changed spec"
            return _settle(this, "Pending", False, Reason.STARTING, message, again=AGAIN, actions=(Apply(_manifest(this.model, name)),))
    return _judge(this, artifact)


def _judge(this: _Pass, artifact: Artifact) -> Plan:
    """Ready if its metric is at least the minimum; both numbers are in the message."""
    passed, message = _check(this.model.spec.validation, this.status.metrics)
    if not passed:
        return _settle(this.having(artifact=None, ready_time=None), "Failed", False, Reason.VALIDATION_FAILED, message)
    this = this.having(artifact=artifact, ready_time=this.status.ready_time or this.now)
    return _settle(this, "Ready", True, Reason.READY, f"{message}; artifact {artifact.digest}")


def _check(validation: Validation, metrics: dict[str, float]) -> tuple[bool, str]:
    value = metrics.get(validation.metric)
    if value is None:
        known = ", ".join(sorted(metrics)[:20]) or "none"
        return False, (
            f"its training did not report {validation.metric}, which must be at least {validation.minimum:g}; "
            f"add an eval dataset, or choose another spec.validation.metric (reported: {known})"
        )
    if value < validation.minimum:
        return False, (
            f"{validation.metric} is {value:.4g}, below spec.validation.minimum {validation.minimum:g}; "
            f"train on more or cleaner preferences, or lower the minimum"
        )
    return True, f"{validation.metric} is {value:.4g}, at least {validation.minimum:g}"


# ------------------------------------------------------------------------------------------------------------ the child


def _spec(model: RewardModel) -> TrainingRunSpec:
    assert model.spec.training is not None
    template = model.spec.training.model_dump(by_alias=True)
    return TrainingRunSpec.model_validate({**template, "storage": model.spec.storage, "suspend": model.spec.suspend})


def _manifest(model: RewardModel, name: str) -> Manifest:
    inherited = {LABEL + key: model.metadata.labels[LABEL + key] for key in INHERITED_LABELS if LABEL + key in model.metadata.labels}
    metadata: Manifest = {
        "name": name,
        "namespace": model.metadata.namespace,
        "labels": {**MANAGED_BY, **inherited, LABEL + "reward-model": model.metadata.name},
        "ownerReferences": [Owner("RewardModel", model.metadata).reference()],
    }
    if token := _token(model):
        metadata["annotations"] = {RETRY_ANNOTATION: token}
    return {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": metadata, "spec": _spec(model).dump()}


def _token(model: RewardModel) -> str | None:
    token = model.metadata.annotations.get(RETRY_ANNOTATION)
    return token[:256] if token else None


def _heeded(model: RewardModel, child: TrainingRun) -> bool:
    """Whether the child has seen the retry that was asked for; before that its failure answers an earlier one."""
    attempts, token = child.status.attempts, _token(model)
    return token is None or not attempts or attempts[-1].retry_token == token


def _differs(model: RewardModel, child: TrainingRun) -> bool:
    """Whether the child does not do what the spec says now."""
    token = _token(model)
    return child.spec != _spec(model) or (token is not None and child.metadata.annotations.get(RETRY_ANNOTATION) != token)


def _settle(
    this: _Pass,
    phase: Phase,
    ready: bool,
    reason: Reason,
    message: str,
    *,
    again: dt.timedelta | None = None,
    actions: tuple[Action, ...] = (),
) -> Plan:
    metadata = this.model.metadata
    old = get_condition(this.model.status.conditions, "Ready")
    conditions = set_condition(this.status.conditions, "Ready", ready, reason, message, generation=metadata.generation, now=this.now)
    answered = {"observed_generation": metadata.generation, "retry": _token(this.model)}
    status = this.status.model_copy(update={"phase": phase, "conditions": conditions, **answered})
    event = () if old and old.reason == reason.value else (Emit("Normal" if reason in CALM else "Warning", reason.value, message[:1024]),)
    return Plan(status.dump(), (*actions, *event), this.now + again if again is not None else None)
