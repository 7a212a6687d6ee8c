"""Small valid objects, and a way to spoil one field of them."""

from __future__ import annotations

import copy
import re
from typing import Any

Object = dict[str, Any]
ABSENT: Any = object()
DIGEST = "sha256:" + "6f1c0f2a" * 8
OTHER_DIGEST = "sha256:" + "0d9b7a5c" * 8
STORE = "file:///flywheel/artifacts/"


def _object(kind: str, name: str, spec: Object) -> Object:
    return copy.deepcopy({"apiVersion": "modelflywheel.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})


def model() -> Object:
    """A model by content."""
    return {"type": "Uri", "uri": STORE + "m", "digest": DIGEST}


def data(name: str) -> Object:
    """A dataset by content."""
    return {"name": name, "from": {"type": "Uri", "uri": STORE + "d", "digest": OTHER_DIGEST}}


def reward(role: str = "Reward") -> Object:
    """A rule that is shipped with the trainers."""
    return {"name": role.lower(), "role": role, "from": {"type": "Uri", "uri": "builtin:question-mark"}}


def flywheel(**spec: Any) -> Object:
    """The least a Flywheel needs."""
    return _object("Flywheel", "companion", {"base": {"uri": STORE + "m", "digest": DIGEST}, **spec})


def generation(*stages: Object, **spec: Any) -> Object:
    """A Generation with these stages."""
    return _object("Generation", "g1", {"flywheel": "companion", **({"stages": list(stages)} if stages else {}), **spec})


def run(method: str, **spec: Any) -> Object:
    """A TrainingRun of a method."""
    return _object("TrainingRun", "trial", {"method": method, **spec})


def sft(**spec: Any) -> Object:
    """A TrainingRun that has all it needs."""
    return run("SFT", **{"model": model(), "datasets": [data("train")], **spec})


def reward_model(**spec: Any) -> Object:
    """A RewardModel to train."""
    return _object(
        "RewardModel", "taste", spec or {"training": {"method": "Reward", "model": model(), "datasets": [data("train"), data("eval")]}}
    )


def rollout(**spec: Any) -> Object:
    """An A/B of two models."""
    baseline = {"generation": "g1", "uri": STORE + "a", "digest": DIGEST}
    candidate = {"generation": "g2", "uri": STORE + "b", "digest": OTHER_DIGEST}
    return _object("Rollout", "ab", {"baseline": baseline, "candidate": candidate, **spec})


def stage(name: str, method: str, **template: Any) -> Object:
    """A stage that runs a method."""
    return {"name": name, "run": {"method": method, **template}}


def from_stage(name: str, source: str) -> Object:
    """A dataset that an earlier stage made."""
    return {"name": name, "from": {"type": "Stage", "stage": source}}


def spoilt(body: Object, path: str, value: Any) -> Object:
    """The object with the field at `a.b[0].c` set to a value, or taken away with ABSENT."""
    result = copy.deepcopy(body)
    keys: list[Any] = [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]
    place: Any = result
    for key in keys[:-1]:
        place = place[key] if isinstance(key, int) else place.setdefault(key, {})
    if value is ABSENT:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return result
