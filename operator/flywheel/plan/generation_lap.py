"""The stages of a lap as the spec wants them: the default ones or the user's, extended, changed and left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from flywheel.api.generation import GenerationTemplate, Stage
from flywheel.plan.default_stages import default_stages
from flywheel.plan.generation_inputs import InputError, check_graph, dependencies

MAX_STAGES = 24  # as the CRD has it


def lap_stages(spec: GenerationTemplate, *, began_unpinned: bool = False) -> tuple[Stage, ...]:
    """All stages, those to be skipped included, in the order they are shown in. Of a lap that began before the default stages were pinned,
    they are those of then. Raises InputError."""
    stages = _chosen(spec, default_stages(style_gates=not began_unpinned))
    if len(stages) > MAX_STAGES:
        raise InputError(f"spec.stages and the default ones are {len(stages)} stages, at most {MAX_STAGES} can be run; leave some out")
    names = [stage.name for stage in stages]
    patches = {one.name: one.patch for one in spec.stage_patches}
    _known("stagePatches", patches, names)
    patched = [_patched(stage, patches[stage.name]) if stage.name in patches else stage for stage in stages]
    return _in_order(patched) if spec.default_stages == "Extend" else tuple(patched)


def stages_if_any(spec: GenerationTemplate, pinned: tuple[Stage, ...] = ()) -> tuple[Stage, ...]:
    """The stages as they were pinned, else as the spec has them. A spec that makes no lap, which the planner refuses, has none."""
    try:
        return pinned or lap_stages(spec)
    except InputError:
        return ()


def check_lap(spec: GenerationTemplate, stages: tuple[Stage, ...]) -> None:
    """Refuse what can't run: unknown names, circles, inputs from a stage that is skipped. Raises InputError."""
    _known("skip", spec.skip, [stage.name for stage in stages])
    kept = tuple(stage for stage in stages if stage.name not in spec.skip)
    if not kept:
        raise InputError("spec.skip leaves no stage; take one out of it")
    check_graph(kept, spec.candidate, spec.skip)


def _chosen(spec: GenerationTemplate, defaults: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The stages before they are changed."""
    if not spec.stages:
        return defaults
    if spec.default_stages == "Replace":
        return spec.stages
    own = {stage.name: stage for stage in spec.stages}
    kept = [own.pop(stage.name, stage) for stage in defaults]
    return (*kept, *own.values())


def _in_order(stages: list[Stage]) -> tuple[Stage, ...]:
    """Each after what it needs, so that of stages that were added to the default ones the last that makes a model is the lap's."""
    pending, ordered, names = [*stages], list[Stage](), {stage.name for stage in stages}
    while pending:
        done = {stage.name for stage in ordered}
        # Of a circle, which is refused later, the first comes first.
        following = next((s for s in pending if all(d in done or d not in names for d in dependencies(s))), pending[0])
        pending.remove(following)
        ordered.append(following)
    return tuple(ordered)


def _known(field: str, wanted: Any, names: list[str]) -> None:
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise InputError(f"spec.{field} names stage '{unknown[0]}', which does not exist; stages are {', '.join(names)}")


def _patched(stage: Stage, patch: Mapping[str, Any]) -> Stage:
    where = f"spec.stagePatches['{stage.name}'].patch"
    if patch.get("name", stage.name) != stage.name:
        raise InputError(f"{where}.name is '{patch['name']}': a stage can't be renamed, for others refer to it; remove it")
    try:
        body = json.dumps(_merged(stage.dump(), patch))
        changed = Stage.model_validate_json(body, strict=True, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = "unknown field; correct its name" if first["type"] == "extra_forbidden" else first["msg"]
        raise InputError(f"{'.'.join((where, *map(str, first['loc'])))}: {said}") from None
    except RecursionError:
        raise InputError(f"{where} is nested too deeply; a stage is not") from None
    if (changed.run is None) == (changed.reward_model is None):
        raise InputError(f"{where} leaves the stage with both or none of 'run' and 'rewardModel'; it needs one of them")
    return changed


def _merged(base: Any, patch: Any) -> Any:
    """Objects field by field, lists of named items by name, everything else as the patch has it; null takes away."""
    if isinstance(base, Mapping) and isinstance(patch, Mapping):
        changed = {key: _merged(base.get(key), value) for key, value in patch.items() if value is not None}
        return {key: value for key, value in base.items() if key not in patch} | changed
    if _named(base) and _named(patch) and patch:
        changes = {item["name"]: item for item in patch}
        kept = [_merged(item, changes.pop(item["name"], {})) for item in base]
        return [*kept, *changes.values()]
    return patch


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) and isinstance(item.get("name"), str) for item in value)
