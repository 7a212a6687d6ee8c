"""What a run's references stand for. Only what a single TrainingRun can know: a Generation resolves its own words before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from flywheel.api.base import get_condition
from flywheel.api.common import Artifact, DataRef, ModelRef, RewardRef
from flywheel.api.generation import TERMINAL_GENERATION_PHASES, Generation
from flywheel.api.reasons import Reason
from flywheel.api.reward_model import RewardModel
from flywheel.api.training_run import Inputs, TrainingRun, TrainingTemplate

Key = tuple[str, str]  # (kind, name)
Objects = Mapping[Key, TrainingRun | RewardModel | Generation]
Reference = ModelRef | DataRef | RewardRef


@dataclass(frozen=True)
class Problem:
    """Why a reference can't be used. `final`: only a change of this spec mends it; else it may mend by itself."""

    reason: Reason
    message: str
    final: bool = False


class _Unresolved(Exception):
    def __init__(self, reason: Reason, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.problem = Problem(reason, message, final)


def referenced(spec: TrainingTemplate) -> frozenset[Key]:
    """The objects of the namespace that a spec refers to; whoever wakes a run watches these."""
    return frozenset(key for _, reference, _ in _references(spec) if (key := _key(reference)) is not None)


def resolve_inputs(spec: TrainingTemplate, objects: Objects) -> Inputs | Problem:
    """The artifacts that a spec's references stand for, or the first problem."""
    try:
        found = {where: _resolve(where, reference, kind, objects) for where, reference, kind in _references(spec)}
    except _Unresolved as unresolved:
        return unresolved.problem
    return Inputs(
        model=found.get("spec.model"),
        opponent=found.get("spec.opponent"),
        pool=tuple(found[f"spec.pool[{i}]"] for i in range(len(spec.pool))),
        datasets={dataset.name: found[_dataset(dataset.name)] for dataset in spec.datasets},
        rewards={reward.name: found[_reward(reward.name)] for reward in spec.rewards},
    )


def _references(spec: TrainingTemplate) -> Iterator[tuple[str, Reference, str]]:
    """(where it stands, the reference, the kind of artifact it must be)."""
    for where, model in (("spec.model", spec.model), ("spec.opponent", spec.opponent)):
        if model is not None:
            yield where, model, "model"
    for i, model in enumerate(spec.pool):
        yield f"spec.pool[{i}]", model, "model"
    for dataset in spec.datasets:
        yield _dataset(dataset.name), dataset.source, "dataset"
    for reward in spec.rewards:
        yield _reward(reward.name), reward.source, "reward-model"


def _dataset(name: str) -> str:
    return f"spec.datasets[{name}].from"


def _reward(name: str) -> str:
    return f"spec.rewards[{name}].from"


def _name(reference: Reference) -> str | None:
    """The object that a reference names, by the field that its type selects."""
    field = {"TrainingRun": "training_run", "RewardModel": "reward_model", "Generation": "generation"}.get(reference.type)
    return cast("str | None", getattr(reference, field, None)) if field else None


def _key(reference: Reference) -> Key | None:
    name = _name(reference)
    return (reference.type, name) if name else None


def _resolve(where: str, reference: Reference, kind: str, objects: Objects) -> Artifact:
    if reference.type == "Uri":
        if not reference.uri:
            raise _Unresolved(Reason.INVALID_SPEC, f"{where} has type Uri but no uri; give {where}.uri", final=True)
        return Artifact(uri=reference.uri, digest=reference.digest)
    key = _key(reference)
    if reference.type in ("Stage", "Base", "Champion", "Conversations"):
        raise _Unresolved(
            Reason.INVALID_SPEC,
            f"{where}.type is {reference.type}, which has a meaning only in a stage of a Generation; "
            f"in a TrainingRun of its own use type Uri with uri and digest",
            final=True,
        )
    if key is None:
        raise _Unresolved(Reason.INVALID_SPEC, f"{where} has type {reference.type} but names none; give its name", final=True)
    target = objects.get(key)
    if target is None:
        raise _Unresolved(
            Reason.REFERENCE_NOT_FOUND,
            f"{where}: there is no {key[0]} {key[1]!r} in this namespace; create it, or correct the name. The run starts when it appears",
        )
    artifact = _product(where, target)
    if artifact.kind is not None and artifact.kind != kind:
        raise _Unresolved(
            Reason.INVALID_SPEC,
            f"{where}: {key[0]} {key[1]!r} makes a {artifact.kind}, but a {kind} is needed; refer to another",
            final=True,
        )
    return artifact


def _product(where: str, target: TrainingRun | RewardModel | Generation) -> Artifact:
    if isinstance(target, TrainingRun):
        done, failed, artifact = target.status.phase == "Succeeded", target.status.phase == "Failed", target.status.artifact
    elif isinstance(target, RewardModel):
        done, failed, artifact = target.status.phase == "Ready", target.status.phase == "Failed", target.status.artifact
    else:
        failed, artifact = target.status.phase in TERMINAL_GENERATION_PHASES, target.status.model
        done = artifact is not None
    if done and artifact is not None:
        return artifact
    name = f"{type(target).__name__} {target.metadata.name!r}"
    if failed or done:
        raise _Unresolved(
            Reason.REFERENCE_FAILED, f"{where}: {name} has ended without an artifact{_why(target)}; mend it, or refer to another"
        )
    raise _Unresolved(Reason.WAITING, f"{where}: waiting for {name}, which is {target.status.phase}")


def _why(target: TrainingRun | RewardModel | Generation) -> str:
    condition = get_condition(target.status.conditions, "Ready" if isinstance(target, RewardModel) else "Succeeded")
    return f" ({condition.reason}: {condition.message[:300]})" if condition else ""
