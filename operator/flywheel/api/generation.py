"""Generation: one lap from conversations to a verdict, and its record."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from flywheel.api.base import SCHEMALESS, Digest, Duration, Finite, Metadata, Name, ObjectName, PositiveDuration, Resource, Status, Time
from flywheel.api.cel import rule, rules
from flywheel.api.common import Artifact, ModelRef
from flywheel.api.cost import Cost
from flywheel.api.generation_record import MAX_EARLIER, EarlierRecord, GenerationRecord
from flywheel.api.inputs import DEFAULT_MODELS, EXTENDS, MAKES_MODEL, lap_rules, template_rules
from flywheel.api.reward_model import RewardModelTemplate
from flywheel.api.rollout import RolloutTemplate
from flywheel.api.training_run import DatasetInput, Metrics, TrainingTemplate

MAX_QUARANTINED = 100  # far more laps than the age limit of Curate leaves turns of
MAX_APPROVALS = 64
ROLLOUT = "rollout"  # what an approval of the whole lap is called, among those of stages

CachePolicy = Literal["Auto", "Always", "Never"]
Baseline = Literal["Absolute", "Parent", "Champion"]


class Gate(Resource):
    """A limit on a metric of a stage. A missing metric fails."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            rule(
                "!self.metric.matches('_rate|^accuracy') || (self.value >= -1.0 && self.value <= 1.0)",
                "the value of {self.metric} is not a share between 0 and 1; write 0.65 for 65 %",
                at=".value",
            )
        )
    }

    metric: Annotated[
        str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9_.]*$", description="A metric of the stage's run.")
    ]
    operator: Annotated[
        Literal["GreaterThan", "GreaterThanOrEqual", "LessThan", "LessThanOrEqual"],
        Field(description="How the metric must compare with `value`."),
    ]
    value: Annotated[Finite, Field(description="The limit; of a difference, if there is a `baseline`.")]
    baseline: Annotated[
        Baseline,
        Field(
            description="What the metric is compared with. Absolute: `value` itself. Parent, Champion: the same metric of the stage of the "
            "same name in the record of the champion at the lap's start, or of today's; then `value` limits the difference (ours minus "
            "theirs)."
        ),
    ] = "Absolute"
    on_failure: Annotated[
        Literal["Reject", "Hold", "Warn"], Field(description="Reject ends the lap; Hold waits for a person; Warn says it and goes on.")
    ] = "Reject"
    message: Annotated[str, Field(max_length=256, description="What a failure means, for the person who reads it.")] = ""


class StageRetry(Resource):
    """Another try of a stage whose run has failed for good by its own `retry`, in a way that another try may mend."""

    limit: Annotated[int, Field(ge=1, le=20, description="How many more tries a stage gets.")] = 1
    backoff: Annotated[Duration, Field(description="Wait before the first of them; doubled each time, at most 1h.")] = "1m"


class ApprovalRequest(Resource):
    """A person must approve before the lap goes on: one with the right `approve` on generations."""

    message: Annotated[str, Field(max_length=256, description="What that person should look at.")] = ""


class Stage(Resource):
    """One step of the lap: a training run or a reward model, and its gates."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            rule(
                "!has(self.dependsOn) || !(self.name in self.dependsOn)",
                "stage '{self.name}' depends on itself; remove it from dependsOn",
                at=".dependsOn",
            ),
            rule(
                "has(self.run) != has(self.rewardModel)", "stage '{self.name}' needs either 'run' or 'rewardModel': one of them, not both"
            ),
            rule(
                "!has(self.run) || self.run.method != 'Reward'",
                "stage '{self.name}' trains a reward model by 'run'; write it as 'rewardModel' with 'training', so that it is validated "
                "before use",
                at=".run.method",
            ),
            rule(
                "!has(self.run) || self.run.method != 'GarbageCollect'",
                "stage '{self.name}' deletes from the store, which is no step of a lap; remove it and set the Flywheel's "
                "artifacts.retention",
                at=".run.method",
            ),
        )
    }

    name: Annotated[Name, Field(description="Name of the stage; others refer to it.")]
    run: Annotated[
        TrainingTemplate | None, Field(description="A training run.", json_schema_extra=rules(*template_rules(curate_by_default=True)))
    ] = None
    reward_model: Annotated[RewardModelTemplate | None, Field(description="A reward model.")] = None
    depends_on: Annotated[
        tuple[Name, ...], Field(max_length=16, description="Stages that must have passed, besides those its inputs name.")
    ] = ()
    gates: Annotated[tuple[Gate, ...], Field(max_length=32, description="Limits that must hold before the lap goes on.")] = ()
    retry: Annotated[
        StageRetry | None, Field(description="More tries of a stage that failed in a way that may pass. Absent: it ends the lap.")
    ] = None
    cache: Annotated[CachePolicy | None, Field(description="As the lap's `cache`, for this stage alone.")] = None
    approval: Annotated[
        ApprovalRequest | None, Field(description="A person must approve what the stage made, once its gates have passed.")
    ] = None


class StagePatch(Resource):
    """A change of one stage."""

    name: Annotated[Name, Field(description="The stage that is changed.")]
    patch: Annotated[
        dict[str, Any],
        Field(
            description="Fields of the stage, as in `stages`, merged over it: objects field by field, lists of named items by name, other "
            "lists as a whole; null takes a field away.",
            json_schema_extra=SCHEMALESS,
        ),
    ]


LAP_RULES = (
    *lap_rules(),
    rule(
        "!has(self.candidate) || !has(self.stages) || self.stages.size() == 0 || "
        f"({EXTENDS} && self.candidate in {list(DEFAULT_MODELS)!r}) || "
        f"self.stages.exists(s, s.name == self.candidate && has(s.run) && s.run.method in {list(MAKES_MODEL)!r})",
        f"candidate '{{self.candidate}}' is no stage that makes a model; name one whose method is among {', '.join(MAKES_MODEL)}",
        at=".candidate",
    ),
    rule(
        "!has(self.candidate) || !has(self.skip) || !(self.candidate in self.skip)",
        "candidate '{self.candidate}' is skipped; name another stage, or take it out of 'skip'",
        at=".candidate",
    ),
    rule(
        "!has(self.approval) || has(self.rollout)",
        "approval is asked for before the rollout, and there is none; add 'rollout', or give 'approval' to a stage",
        at=".approval",
    ),
    rule(
        f"!has(self.approval) || !has(self.stages) || !self.stages.exists(s, s.name == '{ROLLOUT}')",
        f"a stage is called '{ROLLOUT}', which is the name of the approval before the rollout; rename the stage",
        at=".stages",
    ),
)


class GenerationTemplate(Resource):
    """What one lap does; shared by Generation and a Flywheel's template."""

    model_config = Resource.model_config | {"json_schema_extra": rules(*LAP_RULES)}

    stages: Annotated[
        tuple[Stage, ...],
        Field(
            max_length=24,
            description="The lap. Default: curate, reward, judge, sample, sft, rl, evaluate, with the paper's gates.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    default_stages: Annotated[
        Literal["Replace", "Extend"],
        Field(
            description="What `stages` are to the default ones. Replace: they are the whole lap. Extend: they are added to the default "
            "ones; one of the same name takes its place."
        ),
    ] = "Replace"
    stage_patches: Annotated[
        tuple[StagePatch, ...],
        Field(
            max_length=24,
            description="Changes of single stages of the lap, such as more GPUs for a default one.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    skip: Annotated[
        tuple[Name, ...],
        Field(
            max_length=24,
            description="Stages that are left out. What needs one of them must be left out too, or changed.",
            json_schema_extra={"x-kubernetes-list-type": "set"},
        ),
    ] = ()
    cache: Annotated[
        CachePolicy,
        Field(
            description="Whether a stage takes over what an earlier run of this Flywheel has made of the same inputs, parameters and seed. "
            "Auto: only if the image is named by its digest, and the earlier run ran the same. Always: whatever the image was. Never: it "
            "runs."
        ),
    ] = "Auto"
    approval: Annotated[ApprovalRequest | None, Field(description="A person must approve the lap's model before it meets users.")] = None
    candidate: Annotated[Name | None, Field(description="The stage whose model meets users. Default: the last one that makes a model.")] = (
        None
    )
    rollout: Annotated[RolloutTemplate | None, Field(description="How the model meets users. Absent: the lap ends after its gates.")] = None
    deadline: Annotated[PositiveDuration | None, Field(description="Longest time the lap may take before its rollout.")] = None
    seed: Annotated[int, Field(ge=0, le=2_147_483_647, description="Seed of stages that set none (0).")] = 0
    record: Annotated[
        bool,
        Field(description="Once the lap is decided, a run of method Record writes its record and model card into the artifact store."),
    ] = True


class Approval(Resource):
    """A person's word on what a stage made. The chart's admission policy sees to it that it is his own and that he may give it."""

    stage: Annotated[Name, Field(description="The stage, or `rollout`: the lap's model before it meets users.")]
    digest: Annotated[Digest, Field(description="Digest of what was judged: the stage's artifact, or the lap's model. Of nothing else.")]
    decision: Annotated[Literal["Approve", "Reject"], Field(description="Approve: the lap goes on. Reject: it ends.")]
    by: Annotated[str, Field(min_length=1, max_length=512, description="Name of the user who says so, as the API server knows him.")]
    comment: Annotated[str, Field(max_length=1024, description="Why.")] = ""
    time: Annotated[Time | None, Field(description="When, by his own clock.", json_schema_extra={"maxLength": 40})] = None


class GenerationSpec(GenerationTemplate):
    """Desired state of a Generation."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            *LAP_RULES,
            rule(
                "self.flywheel == oldSelf.flywheel",
                "flywheel can't be changed from '{oldSelf.flywheel}' to '{self.flywheel}'; create another Generation",
                at=".flywheel",
            ),
            rule(
                "!has(self.base) || !(self.base.type in ['Stage', 'Base', 'Champion'])",
                "base.type {self.base.type} has no meaning here; use type Uri, TrainingRun or Generation",
                at=".base.type",
            ),
            rule(
                "!has(self.sources) || !self.sources.exists(d, d.from.type == 'Stage')",
                "sources has one from Stage, but no stage has run before them; use type Uri, TrainingRun or Conversations",
                at=".sources",
            ),
        )
    }

    flywheel: Annotated[Name, Field(description="The Flywheel it belongs to: its users, champion and service.")]
    base: Annotated[ModelRef | None, Field(description="Checkpoint that SFT starts from. Default: the Flywheel's.")] = None
    sources: Annotated[
        tuple[DatasetInput, ...],
        Field(
            max_length=8,
            description="Data for a Curate stage that names none. Default: the Flywheel's conversations.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    suspend: Annotated[bool, Field(description="True starts nothing new and pauses what runs.")] = False
    approvals: Annotated[
        tuple[Approval, ...],
        Field(
            max_length=MAX_APPROVALS,
            description="What people said of the lap's results (`kubectl flywheel approve`). No edit of the lap.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["stage", "digest"]},
        ),
    ] = ()
    ttl_after_finished: Annotated[
        PositiveDuration | None,
        Field(
            description="How long after its end a Generation made by hand is kept. Longer while its rollout is watched, its model is the "
            "champion, or it alone remembers whom users rejected. Default: for good. Laps of a Flywheel go by its historyLimits."
        ),
    ] = None


class GateResult(Resource):
    """What a gate said."""

    metric: Annotated[str, Field(max_length=63, description="The metric.")]
    operator: Annotated[str, Field(max_length=32, description="How it had to compare.")]
    limit: Annotated[Finite, Field(description="The limit.")]
    value: Annotated[Finite | None, Field(description="What was measured; absent if the stage did not report it.")] = None
    baseline: Annotated[Baseline, Field(description="What it was compared with.")] = "Absolute"
    baseline_generation: Annotated[Name | None, Field(description="The generation whose record has the baseline.")] = None
    baseline_value: Annotated[Finite | None, Field(description="What that one had measured; absent if there is no such record.")] = None
    passed: Annotated[bool, Field(description="Whether it held.")]
    on_failure: Annotated[Literal["Reject", "Hold", "Warn"], Field(description="What its failure does.")]
    message: Annotated[str, Field(max_length=1024, description="The comparison in words.")] = ""


class StageStatus(Resource):
    """One stage."""

    name: Annotated[Name, Field(description="The stage.")]
    phase: Annotated[
        Literal["Waiting", "Running", "Retrying", "Suspended", "AwaitingApproval", "Passed", "Skipped", "Failed", "Held", "Rejected"],
        Field(description="Where it is."),
    ] = "Waiting"
    kind: Annotated[Literal["TrainingRun", "RewardModel"], Field(description="What runs it.")]
    child: Annotated[
        ObjectName | None, Field(description="Name of the object that runs it; with `reusedFrom`, of the one that would have.")
    ] = None
    reused_from: Annotated[ObjectName | None, Field(description="The earlier TrainingRun whose result was taken over.")] = None
    retries: Annotated[int, Field(ge=0, description="Tries beyond the first, by the stage's `retry`.")] = 0
    next_retry_time: Annotated[Time | None, Field(description="When the next of them begins.")] = None
    retry: Annotated[str | None, Field(max_length=400, description="Retry annotation that its child was last given by this stage.")] = None
    rerun: Annotated[
        str | None, Field(max_length=256, description="Retry annotation that asked for it to run again although it had ended well.")
    ] = None
    artifact: Annotated[Artifact | None, Field(description="What it made.")] = None
    metrics: Metrics = {}
    gates: Annotated[tuple[GateResult, ...], Field(max_length=32, description="What its gates said.")] = ()
    percent: Annotated[Finite | None, Field(ge=0, le=100, description="How far it is.")] = None
    eta_seconds: Annotated[Finite | None, Field(ge=0, description="Seconds to go.")] = None
    start_time: Annotated[Time | None, Field(description="When it started.")] = None
    completion_time: Annotated[Time | None, Field(description="When it ended.")] = None
    message: Annotated[str | None, Field(max_length=4096, description="Why it is where it is.")] = None


class ApprovalRecord(Resource):
    """An approval, or a refusal, that the lap has gone by."""

    stage: Annotated[Name, Field(description="The stage, or `rollout`.")]
    digest: Annotated[str, Field(max_length=71, description="Digest of what was judged.")]
    decision: Annotated[Literal["Approve", "Reject"], Field(description="What was said.")]
    by: Annotated[str, Field(max_length=512, description="Who said it.")]
    comment: Annotated[str, Field(max_length=1024, description="Why.")] = ""
    time: Annotated[Time, Field(description="When the operator took note of it.")]


class Champion(Resource):
    """What served users when something was decided."""

    generation: Annotated[Name, Field(description="Its generation.")]
    uri: Annotated[str, Field(max_length=1024, description="Where its model lies.")]
    digest: Annotated[str, Field(max_length=71, description="Its content digest.")]


class GenerationDecision(Resource):
    """How the lap ended."""

    verdict: Annotated[
        Literal["Promoted", "RolledBack", "Inconclusive", "Rejected", "Held", "Failed", "Completed"],
        Field(description="How the lap ended."),
    ]
    reason: Annotated[str, Field(max_length=63, description="Why, in one word.")]
    message: Annotated[str, Field(max_length=4096, description="Why, with numbers.")]
    stage: Annotated[Name | None, Field(description="The stage that decided it.")] = None
    time: Annotated[Time, Field(description="When.")]
    revision: Annotated[int, Field(description="metadata.generation it was decided about.")]


GenerationPhase = Literal[
    "Pending",
    "Training",
    "AwaitingApproval",
    "Suspended",
    "RollingOut",
    "Promoted",
    "RolledBack",
    "Inconclusive",
    "Rejected",
    "Held",
    "Failed",
    "Completed",
]
TERMINAL_GENERATION_PHASES: tuple[GenerationPhase, ...] = (
    "Promoted",
    "RolledBack",
    "Inconclusive",
    "Rejected",
    "Held",
    "Failed",
    "Completed",
)


class GenerationStatus(Status):
    """Observed state of a Generation."""

    phase: Annotated[GenerationPhase, Field(description="For people; decisions read the conditions.")] = "Pending"
    revision: Annotated[int | None, Field(ge=0, description="metadata.generation this lap runs by; later edits wait for its end.")] = None
    retry: Annotated[str | None, Field(max_length=256, description="Value of the retry annotation this lap was started by.")] = None
    snapshot: Annotated[ObjectName | None, Field(description="ControllerRevision that holds the spec as it was at the start.")] = None
    parent: Annotated[Champion | None, Field(description="The champion when the lap started.")] = None
    opponent: Annotated[Champion | None, Field(description="The champion that the stages compare with.")] = None
    quarantined: Annotated[
        tuple[Name, ...],
        Field(
            max_length=MAX_QUARANTINED,
            description="Generations that users had rejected when the lap first began (the newest, if there are more): Curate leaves their "
            "turns out of the Flywheel's conversations, unless its `includeGenerations` names them.",
        ),
    ] = ()
    stages: Annotated[
        tuple[StageStatus, ...],
        Field(
            max_length=24,
            description="The stages.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    retry_stage: Annotated[
        Name | None, Field(description="The one stage that `retry` is about, with what depends on it. Absent: all that had failed.")
    ] = None
    approvals: Annotated[
        tuple[ApprovalRecord, ...], Field(max_length=MAX_APPROVALS, description="The words of people that the lap has gone by.")
    ] = ()
    current_stage: Annotated[str | None, Field(max_length=253, description="What runs now.")] = None
    percent: Annotated[Finite | None, Field(ge=0, le=100, description="Share of the stages done.")] = None
    model: Annotated[Artifact | None, Field(description="The model of this generation.")] = None
    rollout: Annotated[ObjectName | None, Field(description="The Rollout that asks the users.")] = None
    decision: Annotated[GenerationDecision | None, Field(description="How the lap ended; made once for a revision.")] = None
    start_time: Annotated[Time | None, Field(description="When the lap started.")] = None
    completion_time: Annotated[Time | None, Field(description="When it ended.")] = None
    gpu_seconds: Annotated[Finite, Field(ge=0, description="GPUs × seconds of its runs.")] = 0
    cost: Annotated[Cost | None, Field(description="What its runs have cost so far, by stage.")] = None
    record: Annotated[
        GenerationRecord | None,
        # Kept as it was written: a later version of the CRD must not prune what it no longer knows.
        Field(description="The lap as it was when it was decided; never changed.", json_schema_extra=SCHEMALESS),
    ] = None
    record_run: Annotated[ObjectName | None, Field(description="The TrainingRun that writes the record into the store.")] = None
    record_artifact: Annotated[Artifact | None, Field(description="Where generation.json and the model card lie.")] = None
    earlier_records: Annotated[
        tuple[EarlierRecord, ...], Field(max_length=MAX_EARLIER, description="Records of this lap before it was started again.")
    ] = ()
    summary: Annotated[str | None, Field(max_length=256, description="One line for `kubectl get`.")] = None


class Generation(Resource):
    """One lap of the flywheel: from conversations to a model that users chose or refused."""

    metadata: Metadata
    spec: GenerationSpec
    status: GenerationStatus = GenerationStatus()
