"""What is known of a Generation's surroundings when it is planned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flywheel.api.base import Metadata
from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Generation, GenerationSpec, Stage
from flywheel.api.reward_model import RewardModel
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES, Rollout
from flywheel.api.training_run import TrainingRun
from flywheel.plan.base import Defaults, child_name
from flywheel.plan.rollout_observed import unrecorded


@dataclass(frozen=True)
class GenerationObserved:
    """Everything a Generation's plan depends on, besides the time."""

    generation: Generation
    flywheel: Flywheel | None = None
    defaults: Defaults = field(default_factory=Defaults)
    snapshot: GenerationSpec | None = None  # from the ControllerRevision that status.snapshot names: its data.spec
    stages: tuple[Stage, ...] | None = None  # from its data.stages, as they were worked out at the start; None: by an older operator
    training_runs: Mapping[str, TrainingRun] = field(default_factory=dict)  # children of its stages, by name
    reward_models: Mapping[str, RewardModel] = field(default_factory=dict)  # children, by name
    reward_runs: Mapping[str, TrainingRun] = field(default_factory=dict)  # of those RewardModels, by name
    record_runs: Mapping[str, TrainingRun] = field(default_factory=dict)  # children that write records into the store, by name
    rollout: Rollout | None = None  # the child that status.rollout names
    other_rollout: str | None = None  # see other_rollout()
    siblings: tuple[Generation, ...] = ()  # of the same Flywheel; known until the lap has first begun, and when it may have to go
    rollouts: tuple[Rollout, ...] = ()  # of the same Flywheel, whoever made them
    records: Mapping[str, Generation] = field(default_factory=dict)  # laps that made the parent and today's champion, by name
    earlier_runs: tuple[TrainingRun, ...] = ()  # of the same Flywheel; known when generation_cache.looks_back() says so
    gone: frozenset[str] = frozenset()  # digests of artifacts that were deleted from the store


def snapshot_name(metadata: Metadata) -> str:
    """Name of the ControllerRevision with the spec of the newest revision."""
    return child_name(metadata, "spec", metadata.generation)


def other_rollout(generation: Generation, rollouts: Iterable[Rollout], flywheel: Flywheel | None = None) -> str | None:
    """An unfinished Rollout of the same Flywheel that another lap made. Its promotion counts once the Flywheel has the new champion."""
    for rollout in rollouts:
        owned = any(o.uid == generation.metadata.uid for o in rollout.metadata.owner_references)
        open_ = rollout.status.phase not in TERMINAL_ROLLOUT_PHASES and rollout.status.cutover_time is None
        unfinished = open_ or unrecorded(rollout, flywheel)
        if rollout.spec.flywheel == generation.spec.flywheel and not owned and unfinished and rollout.metadata.deletion_timestamp is None:
            return rollout.metadata.name
    return None
