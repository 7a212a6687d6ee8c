"""A stage's references made concrete: what the children get are URIs and digests, so that they stand for themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flywheel.api.common import Artifact, DataRef, ModelRef, RewardRef
from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Champion, GenerationSpec, Stage
from flywheel.api.training_run import DatasetInput, RewardInput, TrainingTemplate
from flywheel.specs.pods import STORAGE_PATH


class InputError(ValueError):
    """A reference that can never be resolved; the message names the stage, the value and the mend."""


@dataclass(frozen=True)
class Surroundings:
    """What references may point to."""

    spec: GenerationSpec
    flywheel: Flywheel
    opponent: Champion
    artifacts: Mapping[str, Artifact]  # of the stages that passed, by stage
    quarantined: tuple[str, ...] = ()  # generations whose replies teach nothing


def template_of(stage: Stage) -> TrainingTemplate | None:
    """The training a stage asks for; None for an imported reward model."""
    return stage.run or (stage.reward_model.training if stage.reward_model else None)


def dependencies(stage: Stage) -> tuple[str, ...]:
    """The stages that must have passed before: those its inputs name, and `dependsOn`."""
    names = list(stage.depends_on)
    template = template_of(stage)
    if template:
        refs: list[ModelRef | DataRef | RewardRef] = [r for r in (template.model, template.opponent, *template.pool) if r]
        refs += [d.source for d in template.datasets] + [r.source for r in template.rewards]
        names += [r.stage for r in refs if r.type == "Stage" and r.stage]
    return tuple(dict.fromkeys(names))


def check_graph(stages: tuple[Stage, ...], candidate: str | None, skipped: Collection[str] = ()) -> None:
    """Refuse unknown and skipped stages and circles. Raises InputError."""
    names = {stage.name for stage in stages}
    if candidate in skipped:
        raise InputError(f"spec.candidate '{candidate}' is skipped; name another stage, or take it out of spec.skip")
    if candidate is not None and candidate not in names:
        raise InputError(f"spec.candidate '{candidate}' is no stage; stages are {', '.join(sorted(names))}")
    done: set[str] = set()
    for stage in stages:
        for dependency in dependencies(stage):
            if dependency in skipped:
                raise InputError(
                    f"stage '{stage.name}' needs stage '{dependency}', which spec.skip leaves out; skip '{stage.name}' too, or have it use "
                    "another stage (spec.stagePatches)"
                )
            if dependency not in names:
                raise InputError(
                    f"stage '{stage.name}' needs stage '{dependency}', which does not exist; stages are {', '.join(sorted(names))}"
                )
    while ready := [s.name for s in stages if s.name not in done and set(dependencies(s)) <= done]:
        done.update(ready)
    if done != names:
        raise InputError(f"stages {', '.join(sorted(names - done))} wait for each other; break the circle")


def resolve(template: TrainingTemplate, around: Surroundings) -> TrainingTemplate:
    """The template with every reference of this Generation replaced by URI and digest."""
    datasets = template.datasets
    if template.method == "Curate" and not datasets:
        conversations = DatasetInput.model_validate({"name": "conversations", "from": {"type": "Conversations"}})
        datasets = around.spec.sources or (conversations,)
    return template.model_copy(
        update={
            "model": template.model and _model(template.model, around),
            "opponent": template.opponent and _model(template.opponent, around),
            "pool": tuple(_model(ref, around) for ref in template.pool),
            "datasets": tuple(d.model_copy(update={"source": _data(d.source, around)}) for d in datasets),
            "rewards": tuple(_reward(r, around) for r in template.rewards),
            "parameters": _parameters(template, datasets, around.quarantined),
            "seed": template.seed or around.spec.seed,
        }
    )


def _parameters(template: TrainingTemplate, datasets: tuple[DatasetInput, ...], quarantined: tuple[str, ...]) -> dict[str, Any]:
    """The parameters, and for Curate of conversations the quarantine. Nothing to add leaves them, and the child's name, as they are."""
    parameters = template.parameters
    if template.method != "Curate" or not any(d.source.type == "Conversations" for d in datasets):
        return parameters
    wanted, unwanted = parameters.get("includeGenerations", []), parameters.get("excludeGenerations", [])
    if not isinstance(wanted, list) or not isinstance(unwanted, list):
        return parameters  # the trainer refuses it, and says how to write it
    added = [name for name in quarantined if name not in wanted and name not in unwanted]
    return {**parameters, "excludeGenerations": [*unwanted, *added]} if added else parameters


def conversations_uri(flywheel: str) -> str:
    """Where the collector keeps what users and model said: on the claim, which every pod mounts, whatever the store's URI."""
    return f"file://{STORAGE_PATH}/conversations/{flywheel}"


def _model(ref: ModelRef, around: Surroundings) -> ModelRef:
    if ref.type == "Stage":
        made = around.artifacts[ref.stage or ""]
        return ModelRef(type="Uri", uri=made.uri, digest=made.digest)
    if ref.type == "Champion":
        return ModelRef(type="Uri", uri=around.opponent.uri, digest=around.opponent.digest)
    if ref.type == "Base":
        base = around.flywheel.spec.base
        return around.spec.base or ModelRef(type="Uri", uri=base.uri, digest=base.digest)
    return ref


def _data(ref: DataRef, around: Surroundings) -> DataRef:
    if ref.type == "Stage":
        made = around.artifacts[ref.stage or ""]
        return DataRef(type="Uri", uri=made.uri, digest=made.digest)
    if ref.type == "Conversations":
        return DataRef(type="Uri", uri=conversations_uri(around.flywheel.metadata.name))
    return ref


def _reward(reward: RewardInput, around: Surroundings) -> RewardInput:
    ref = reward.source
    if ref.type != "Stage":
        return reward
    made = around.artifacts[ref.stage or ""]
    return reward.model_copy(update={"source": RewardRef(type="Uri", uri=made.uri, digest=made.digest)})
