"""RewardModel: a versioned, validated scorer of replies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flywheel.api.base import Finite, Metadata, ObjectName, Resource, Status, Time
from flywheel.api.cel import rule, rules
from flywheel.api.common import Artifact
from flywheel.api.common import Storage as StorageSpec
from flywheel.api.inputs import alone_rules, template_rules
from flywheel.api.training_run import Metrics, Progress, TrainingTemplate


class Validation(Resource):
    """What a reward model must reach before anything may use it (paper §2.3: a scorer is trusted only where it was checked)."""

    metric: Annotated[str, Field(min_length=1, max_length=63, description="A metric of its training run.")] = "accuracy_lower"
    minimum: Annotated[Finite, Field(ge=0, le=1, description="Least value that passes.")] = 0.5


TEMPLATE_RULES = (
    rule(
        "has(self.training) != has(self.artifact)",
        "give either 'training' (to train the reward model) or 'artifact' (to import one): one of them, not both",
    ),
    rule(
        "!has(self.training) || self.training.method == 'Reward'",
        "training.method {self.training.method} makes no reward model; set it to Reward",
        at=".training.method",
    ),
    rule(
        "!has(self.artifact) || has(self.artifact.digest)",
        "artifact '{self.artifact.uri}' needs its 'digest'; copy it from the manifest.json beside it",
        at=".artifact.digest",
    ),
)


class RewardModelTemplate(Resource):
    """A reward model to train, or one to import."""

    model_config = Resource.model_config | {"json_schema_extra": rules(*TEMPLATE_RULES)}

    type: Annotated[Literal["Pointwise"], Field(description="Pointwise: one score a reply, Bradley-Terry on preference pairs.")] = (
        "Pointwise"
    )
    training: Annotated[
        TrainingTemplate | None, Field(description="How to train it.", json_schema_extra=rules(*template_rules(only="Reward")))
    ] = None
    artifact: Annotated[Artifact | None, Field(description="An existing reward model to import.")] = None
    validation: Annotated[Validation, Field(description="What it must reach before it may be used.")] = Validation()


class RewardModelSpec(RewardModelTemplate):
    """Desired state of a RewardModel."""

    model_config = Resource.model_config | {"json_schema_extra": rules(*TEMPLATE_RULES, *alone_rules("self.training"))}

    storage: Annotated[StorageSpec, Field(description="Where artifacts and checkpoints live.")] = StorageSpec()
    suspend: Annotated[bool, Field(description="True stops its training.")] = False


class RewardModelStatus(Status):
    """Observed state of a RewardModel."""

    phase: Annotated[Literal["Pending", "Training", "Ready", "Failed"], Field(description="For people; decisions read the conditions.")] = (
        "Pending"
    )
    training_run: Annotated[ObjectName | None, Field(description="The TrainingRun that makes it.")] = None
    progress: Annotated[Progress | None, Field(description="How far its training is.")] = None
    artifact: Annotated[Artifact | None, Field(description="The validated reward model.")] = None
    metrics: Metrics = {}
    ready_time: Annotated[Time | None, Field(description="When it passed its validation.")] = None
    retry: Annotated[str | None, Field(max_length=256, description="Value of the retry annotation that this is the answer to.")] = None


class RewardModel(Resource):
    """A scorer of replies, trained on preferences and validated before use."""

    metadata: Metadata
    spec: RewardModelSpec
    status: RewardModelStatus = RewardModelStatus()
