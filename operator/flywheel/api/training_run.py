"""TrainingRun: one trainer process group, any method, one artifact out. The only kind that creates training pods."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from flywheel.api.base import SCHEMALESS, Duration, Finite, Metadata, Name, ObjectName, PositiveDuration, Resource, Status, Time
from flywheel.api.cel import rule, rules
from flywheel.api.common import Artifact, DataRef, ModelRef, PodSettings, RewardRef, Storage
from flywheel.api.inputs import alone_rules, template_rules

Method = Literal["Curate", "Reward", "RejectionSample", "SFT", "DPO", "KTO", "GRPO", "RLOO", "Evaluate", "Record"]
Metrics = Annotated[dict[str, Finite], Field(max_length=256, description="Flat map of what the run measured.")]
DATA_ONLY: tuple[Method, ...] = ("Curate", "Record")


class DatasetInput(Resource):
    """One named dataset of a run."""

    name: Annotated[
        Name, Field(description="What the method calls it: `train`, `eval`, `prompts`, `select`, `user`, `internal`, `conversations`.")
    ]
    source: Annotated[DataRef, Field(alias="from", description="Where it comes from.")]
    subset: Annotated[
        str | None, Field(max_length=63, pattern=r"^[a-z0-9-]+$", description="A part of the dataset, such as `prompts-train`.")
    ] = None
    weight: Annotated[Finite, Field(gt=0, le=1000, description="Share in a mixture.")] = 1.0


class RewardInput(Resource):
    """One named reward of a run."""

    name: Annotated[Name, Field(description="Name in the metrics.")]
    source: Annotated[RewardRef, Field(alias="from", description="Where it comes from.")]
    role: Annotated[Literal["Reward", "Judge"], Field(description="Reward trains and ranks; Judge evaluates and selects checkpoints.")] = (
        "Reward"
    )
    weight: Annotated[Finite, Field(ge=-1000, le=1000, description="Factor in the sum of rewards.")] = 1.0


class Adapter(Resource):
    """Low-rank adaptation (LoRA) instead of full fine-tuning."""

    rank: Annotated[int, Field(ge=1, le=512, description="Rank of the update.")] = 16
    alpha: Annotated[int, Field(ge=1, le=1024, description="Scale of the update.")] = 32


class Checkpoint(Resource):
    """How often a run saves where it is."""

    every_steps: Annotated[int, Field(ge=1, le=1_000_000, description="Optimiser steps between checkpoints.")] = 50
    keep: Annotated[int, Field(ge=1, le=100, description="How many checkpoints stay.")] = 2


class Retry(Resource):
    """What happens after a failure that may pass (exit code 75, eviction, node loss)."""

    limit: Annotated[int, Field(ge=0, le=100, description="How many times a retryable failure is tried again.")] = 3
    backoff: Annotated[Duration, Field(description="Wait before the first retry; doubled each time, at most 10 minutes.")] = "10s"


class TrainingTemplate(PodSettings):
    """What to train and with what; shared by TrainingRun, RewardModel and a Generation's stages."""

    method: Annotated[Method, Field(description="What to run.")]
    model: Annotated[ModelRef | None, Field(description="The model that is trained, sampled or evaluated.")] = None
    opponent: Annotated[ModelRef | None, Field(description="The model it is compared with (Evaluate, checkpoint selection).")] = None
    pool: Annotated[tuple[ModelRef, ...], Field(max_length=8, description="More models that give candidates (RejectionSample).")] = ()
    datasets: Annotated[
        tuple[DatasetInput, ...],
        Field(
            max_length=16,
            description="Named datasets.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    rewards: Annotated[
        tuple[RewardInput, ...],
        Field(
            max_length=8,
            description="Named rewards.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    parameters: Annotated[
        dict[str, Any],
        Field(
            description="Parameters of the method; `python -m flywheel_trainers schema METHOD` prints them.", json_schema_extra=SCHEMALESS
        ),
    ] = {}
    adapter: Annotated[Adapter | None, Field(description="Train a LoRA adapter; the artifact is the merged model.")] = None
    seed: Annotated[int, Field(ge=0, le=2_147_483_647, description="Seed of everything random in the run.")] = 0
    gpus_per_node: Annotated[int, Field(ge=0, le=64, description="`nvidia.com/gpu` of the pod; 0 trains on CPU.")] = 0
    checkpoint: Annotated[Checkpoint, Field(description="How often a run saves where it is.")] = Checkpoint()
    retry: Annotated[Retry, Field(description="What happens after a failure that may pass.")] = Retry()
    deadline: Annotated[PositiveDuration | None, Field(description="Longest time one attempt may run.")] = None


class TrainingRunSpec(TrainingTemplate):
    """Desired state of a TrainingRun."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            *template_rules(),
            *alone_rules(),
            rule(
                "self.method == oldSelf.method",
                "method can't be changed from {oldSelf.method} to {self.method}; create another TrainingRun",
                at=".method",
            ),
        )
    }

    storage: Annotated[Storage, Field(description="Where artifacts and checkpoints live.")] = Storage()
    suspend: Annotated[bool, Field(description="True stops the pod after a checkpoint; false goes on from it.")] = False


class Progress(Resource):
    """How far a run is."""

    phase: Annotated[str | None, Field(max_length=63, description="What the trainer is doing.")] = None
    step: Annotated[int, Field(ge=0, description="Optimiser steps done.")] = 0
    total_steps: Annotated[int, Field(ge=0, description="Optimiser steps in all.")] = 0
    percent: Annotated[Finite, Field(ge=0, le=100, description="Share done.")] = 0
    eta_seconds: Annotated[Finite | None, Field(ge=0, description="Seconds to go, as the trainer estimates.")] = None
    tokens_per_second: Annotated[Finite | None, Field(ge=0, description="Training throughput.")] = None


class Inputs(Resource):
    """What a run's references stood for when its attempts began; retries read the very same."""

    model: Annotated[Artifact | None, Field(description="The model.")] = None
    opponent: Annotated[Artifact | None, Field(description="The model it is compared with.")] = None
    pool: Annotated[tuple[Artifact, ...], Field(max_length=8, description="More models, in the order of the spec.")] = ()
    datasets: Annotated[dict[str, Artifact], Field(max_length=16, description="The datasets by name.")] = {}
    rewards: Annotated[dict[str, Artifact], Field(max_length=8, description="The rewards by name.")] = {}


class Attempt(Resource):
    """One try of a run."""

    number: Annotated[int, Field(ge=1, description="1 for the first.")]
    job: Annotated[ObjectName, Field(description="Name of the Job.")]
    job_uid: Annotated[str | None, Field(max_length=64, description="UID of the Job, once it was seen.")] = None
    image_id: Annotated[
        str | None, Field(max_length=512, description="Image that its first pod ran, with the digest the node knows it by.")
    ] = None
    revision: Annotated[int, Field(ge=0, description="metadata.generation it was made from.")] = 0
    spec_hash: Annotated[str, Field(max_length=64, description="Hash of the spec (without `suspend`) it was made from.")] = ""
    retry_token: Annotated[str | None, Field(max_length=256, description="Value of the annotation modelflywheel.dev/retry it heeds.")] = (
        None
    )
    start_time: Annotated[Time | None, Field(description="When its pod started.")] = None
    end_time: Annotated[Time | None, Field(description="When it ended.")] = None
    exit_code: Annotated[int | None, Field(description="Exit code of the trainer: 0, 64, 65, 75 or 137.")] = None
    reason: Annotated[str | None, Field(max_length=63, description="Why it ended.")] = None
    message: Annotated[str | None, Field(max_length=4096, description="What the trainer or the kubelet said.")] = None
    retryable: Annotated[bool | None, Field(description="Whether the same attempt may pass when tried again.")] = None
    counted: Annotated[
        bool, Field(description="Whether it used up one of `retry.limit`; evictions, node losses and deleted Jobs don't.")
    ] = False
    gpu_seconds: Annotated[Finite, Field(ge=0, description="GPUs × seconds of its pods.")] = 0


TrainingPhase = Literal["Pending", "Running", "Retrying", "Suspended", "Succeeded", "Failed"]


class TrainingRunStatus(Status):
    """Observed state of a TrainingRun."""

    phase: Annotated[TrainingPhase, Field(description="For people; decisions read the conditions.")] = "Pending"
    progress: Annotated[Progress | None, Field(description="How far the running attempt is.")] = None
    metrics: Metrics = {}
    inputs: Annotated[Inputs | None, Field(description="What its references stand for; read once, when its attempts begin.")] = None
    artifact: Annotated[Artifact | None, Field(description="What the run made.")] = None
    attempts: Annotated[tuple[Attempt, ...], Field(max_length=128, description="Every try, oldest first.")] = ()
    start_time: Annotated[Time | None, Field(description="When the first attempt was created.")] = None
    completion_time: Annotated[Time | None, Field(description="When the run ended.")] = None
    next_retry_time: Annotated[Time | None, Field(description="When the next attempt starts.")] = None
    gpu_seconds: Annotated[Finite, Field(ge=0, description="GPUs × seconds over all attempts.")] = 0


class TrainingRun(Resource):
    """One run of one training method: reads a model and data, leaves one artifact with a digest."""

    metadata: Metadata
    spec: TrainingRunSpec
    status: TrainingRunStatus = TrainingRunStatus()
