"""The record of a lap: what it was made from, by what, how it ended and what it cost. Written once, with the decision."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from flywheel.api.base import Finite, Name, ObjectName, Resource, Time
from flywheel.api.common import Artifact
from flywheel.api.cost import Cost

MAX_EARLIER = 8
MAX_GATES = 128
DIGEST = Field(max_length=71, description="Content digest.")


class RecordedModel(Resource):
    """A model that took part."""

    generation: Annotated[Name | None, Field(description="Its generation, if it has one.")] = None
    uri: Annotated[str, Field(max_length=1024, description="Where it lies.")]
    digest: Annotated[str | None, DIGEST] = None


class RecordedData(Resource):
    """Data that went into the lap or came out of one of its stages."""

    name: Annotated[str, Field(max_length=253, description="The stage that made it, or the input's name.")]
    uri: Annotated[str, Field(max_length=1024, description="Where it lies.")]
    digest: Annotated[str | None, DIGEST] = None
    rows: Annotated[dict[str, int], Field(max_length=32, description="Rows by subset, as far as the stage counted them.")] = {}


class RecordedReward(Resource):
    """A version of a reward model."""

    name: Annotated[ObjectName, Field(description="The RewardModel, or the stage that made it.")]
    digest: Annotated[str | None, DIGEST] = None
    accuracy: Annotated[Finite | None, Field(description="Accuracy on held-out pairs.")] = None


class RecordedStage(Resource):
    """One step of the recipe."""

    name: Annotated[Name, Field(description="The stage.")]
    method: Annotated[str, Field(max_length=63, description="What it ran.")]
    phase: Annotated[str, Field(max_length=16, description="How it ended.")]
    child: Annotated[ObjectName | None, Field(description="Name of the object that ran it.")] = None
    parameters: Annotated[str | None, Field(max_length=71, description="sha256 of the resolved spec of its run.")] = None
    image: Annotated[str | None, Field(max_length=512, description="Image it ran: by digest where the node told it.")] = None
    artifact: Annotated[str | None, Field(max_length=71, description="Digest of what it made.")] = None
    reused_from: Annotated[ObjectName | None, Field(description="The earlier TrainingRun whose result it took over.")] = None


class RecordedGate(Resource):
    """What a gate said."""

    stage: Annotated[Name, Field(description="The stage.")]
    metric: Annotated[str, Field(max_length=63, description="The metric.")]
    operator: Annotated[str, Field(max_length=32, description="How it had to compare.")]
    limit: Annotated[Finite, Field(description="The limit.")]
    value: Annotated[Finite | None, Field(description="What was measured.")] = None
    passed: Annotated[bool, Field(description="Whether it held.")]


class RecordedApproval(Resource):
    """What a person said of a gate."""

    gate: Annotated[str, Field(max_length=253, description="What was approved.")]
    by: Annotated[str, Field(max_length=512, description="Who said so.")]
    decision: Annotated[str, Field(max_length=16, description="What was said.")] = "Approve"
    time: Annotated[Time | None, Field(description="When.")] = None


class WinRate(Resource):
    """How often a judge preferred the candidate to the champion; ties count half."""

    value: Annotated[Finite, Field(description="Share of the prompts.")]
    lower: Annotated[Finite | None, Field(description="Lower end of its interval.")] = None
    upper: Annotated[Finite | None, Field(description="Upper end of its interval.")] = None


class Lift(Resource):
    """What users did with the candidate, against the control."""

    metric: Annotated[str, Field(max_length=63, description="The metric.")]
    lift: Annotated[Finite, Field(description="Relative difference; 0.1 is +10 %.")]
    lower: Annotated[Finite | None, Field(description="Lower end of its interval.")] = None
    upper: Annotated[Finite | None, Field(description="Upper end of its interval.")] = None
    users: Annotated[int, Field(ge=0, description="Matured users of both slices.")] = 0


class GenerationRecord(Resource):
    """A lap, as it was when it was decided. Nothing of it changes later."""

    generation: Annotated[Name, Field(description="The lap.")]
    flywheel: Annotated[Name, Field(description="Whose lap.")]
    revision: Annotated[int, Field(ge=0, description="metadata.generation it ran by.")]
    retry: Annotated[str | None, Field(max_length=256, description="Value of the retry annotation it was started by.")] = None
    verdict: Annotated[str, Field(max_length=16, description="How it ended.")]
    reason: Annotated[str, Field(max_length=63, description="Why, in one word.")]
    message: Annotated[str, Field(max_length=1024, description="Why, with numbers.")] = ""
    evidence_digest: Annotated[str, Field(max_length=71, description="sha256 of the numbers that decided it.")]
    start_time: Annotated[Time | None, Field(description="When it started.")] = None
    decision_time: Annotated[Time, Field(description="When it was decided.")]
    parent: Annotated[RecordedModel | None, Field(description="The champion when it started.")] = None
    opponent: Annotated[RecordedModel | None, Field(description="The champion it was compared with.")] = None
    base: Annotated[RecordedModel | None, Field(description="The checkpoint it was trained from.")] = None
    model: Annotated[RecordedModel | None, Field(description="What it made.")] = None
    recipe: Annotated[str, Field(max_length=71, description="sha256 of the spec it ran by and of its stages' resolved specs.")]
    stages: Annotated[tuple[RecordedStage, ...], Field(max_length=24, description="The recipe, step by step.")] = ()
    data: Annotated[tuple[RecordedData, ...], Field(max_length=64, description="Data that went in, and that stages made.")] = ()
    reward_models: Annotated[tuple[RecordedReward, ...], Field(max_length=32, description="Reward models, by version.")] = ()
    gates: Annotated[tuple[RecordedGate, ...], Field(max_length=MAX_GATES, description="Gates; failed ones first.")] = ()
    approvals: Annotated[tuple[RecordedApproval, ...], Field(max_length=32, description="Who approved what.")] = ()
    serving_image: Annotated[str | None, Field(max_length=512, description="Image that served it to users.")] = None
    rollout: Annotated[ObjectName | None, Field(description="The Rollout that asked the users.")] = None
    predicted_win_rate: Annotated[WinRate | None, Field(description="What the evaluation promised.")] = None
    realised_lift: Annotated[tuple[Lift, ...], Field(max_length=8, description="What the users answered: success metrics.")] = ()
    cost: Annotated[Cost, Field(description="What its runs cost.")] = Cost()


class EarlierRecord(Resource):
    """The record of the same lap before a retry or an edit: whole in the artifact store, in brief here."""

    revision: Annotated[int, Field(ge=0, description="metadata.generation it ran by.")]
    retry: Annotated[str | None, Field(max_length=256, description="Value of the retry annotation it was started by.")] = None
    verdict: Annotated[str, Field(max_length=16, description="How it ended.")]
    decision_time: Annotated[Time, Field(description="When it was decided.")]
    digest: Annotated[str, Field(max_length=71, description="sha256 of the canonical JSON of the record.")]
    run: Annotated[ObjectName | None, Field(description="The TrainingRun that wrote it into the store.")] = None
    artifact: Annotated[Artifact | None, Field(description="Where generation.json lies.")] = None
