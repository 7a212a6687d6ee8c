"""Flywheel: the endless loop of one model, and the service its users talk to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flywheel.api.artifacts import MAX_RELEASED, Artifacts, Collection
from flywheel.api.base import DURATION, Digest, Finite, Image, Metadata, Name, ObjectName, PositiveDuration, Resource, Status, Time, Uri
from flywheel.api.cel import mend, quote, rule, rules
from flywheel.api.common import NOT_BUILTIN, Serving, Storage
from flywheel.api.generation import GenerationTemplate
from flywheel.api.lineage import MAX_ENTRIES, LineageEntry
from flywheel.api.rollout import ArmStatus, Assignment


class InitialModel(Resource):
    """A model by content."""

    model_config = Resource.model_config | {"json_schema_extra": rules(NOT_BUILTIN)}

    uri: Annotated[Uri, Field(description="Directory of the model.")]
    digest: Annotated[Digest, Field(description="Content digest of the model.")]


class Adoption(Resource):
    """A vLLM Deployment that somebody runs already, as the arm of the first champion."""

    deployment: Annotated[
        ObjectName, Field(description="A Deployment of this namespace. It is read, and never changed, scaled or deleted.")
    ]
    port: Annotated[int, Field(ge=1, le=65535, description="Port on which its pods answer the OpenAI API.")] = 8000


class Router(Resource):
    """The Envoy router in front of the arms."""

    replicas: Annotated[int, Field(ge=1, le=64, description="Router pods.")] = 1
    image: Annotated[Image | None, Field(description="Envoy image. Default: the operator's setting.")] = None
    assignment: Annotated[Assignment, Field(description="How users are recognised.")] = Assignment()


class Engagement(Resource):
    """The engagement collector."""

    image: Annotated[Image | None, Field(description="Collector image. Default: the operator's setting.")] = None
    conversation_idle: Annotated[PositiveDuration, Field(description="Silence after which a conversation is over and is kept.")] = "5m"


class Trigger(Resource):
    """What starts the next lap."""

    schedule: Annotated[
        str | None,
        Field(
            max_length=128,
            pattern=r"^[-0-9A-Za-z*,/?#]+( [-0-9A-Za-z*,/?#]+){4}$",
            description="A cron expression of five fields, such as `0 3 * * 1`.",
            json_schema_extra=mend("is not a cron expression; write five fields (minute, hour, day, month, weekday), such as '0 3 * * 1'"),
        ),
    ] = None
    time_zone: Annotated[
        str,
        Field(
            max_length=64,
            pattern=r"^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$",
            description="Time zone of the schedule, by its IANA name.",
            json_schema_extra=mend("is not a time zone; write its IANA name, such as UTC or Europe/Berlin"),
        ),
    ] = "UTC"
    new_conversations: Annotated[
        int | None, Field(ge=1, le=1_000_000_000, description="Start when so many conversations were kept since the last lap began.")
    ] = None
    starting_deadline: Annotated[
        PositiveDuration | None,
        Field(
            description="How late a lap may start after its time in the schedule; what was missed by more is skipped. Absent: however "
            "late, and never more than one for all the times that were missed."
        ),
    ] = None


class Backoff(Resource):
    """How laps that end badly delay the next one."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            rule(
                f"!self.base.matches({quote(DURATION)}) || !self.max.matches({quote(DURATION)}) || "
                "duration(self.base) <= duration(self.max)",
                "backoff.base {self.base} is longer than backoff.max {self.max}; raise max or lower base",
                at=".base",
            )
        )
    }

    after: Annotated[int, Field(ge=1, le=1000, description="Laps in a row that may end badly before the next one is delayed.")] = 3
    base: Annotated[
        PositiveDuration, Field(description="The first delay, from the end of the last lap; doubled with each further one.")
    ] = "1h"
    max: Annotated[PositiveDuration, Field(description="The longest delay.")] = "24h"


class HistoryLimits(Resource):
    """How many finished Generations stay."""

    successful: Annotated[int, Field(ge=1, le=1000, description="Promoted ones.")] = 10
    failed: Annotated[
        int, Field(ge=0, le=1000, description="All others; one that users rejected stays until a later lap has it in quarantine.")
    ] = 10


class FlywheelSpec(Resource):
    """Desired state of a Flywheel."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            rule(
                "self.storage.uri == oldSelf.storage.uri && self.storage.claimName == oldSelf.storage.claimName",
                "storage can't move from {oldSelf.storage.uri} on claim {oldSelf.storage.claimName}: models in service and kept "
                "conversations lie there; create another Flywheel",
                at=".storage",
            ),
            rule(
                "self.artifacts.retention.policy != 'Delete' || self.storage.uri.startsWith('file:///')",
                "artifacts.retention.policy Delete works on a claim only, not on {self.storage.uri}, which others may share; set it to "
                "None and give the bucket a lifecycle rule",
                at=".artifacts.retention.policy",
            ),
        )
    }

    base: Annotated[InitialModel, Field(description="Checkpoint that each lap starts from, and the first champion.")]
    adopt: Annotated[
        Adoption | None,
        Field(
            description="A Deployment that serves `base` already: it becomes the first champion as it runs, without a restart. Without "
            "effect once there is a champion."
        ),
    ] = None
    serving: Annotated[Serving, Field(description="How models are served.")] = Serving()
    storage: Annotated[Storage, Field(description="Where artifacts, logs and conversations live.")] = Storage()
    router: Annotated[Router, Field(description="The Envoy router in front of the arms.")] = Router()
    engagement: Annotated[Engagement, Field(description="The engagement collector.")] = Engagement()
    trigger: Annotated[Trigger, Field(description="What starts the next lap. Empty: laps are started by hand.")] = Trigger()
    concurrency_policy: Annotated[
        Literal["Forbid", "Replace"],
        Field(
            description="What happens when a lap is due while another runs. Forbid: it starts after that one's end. Replace: it starts, "
            "and one that this Flywheel has started and that still trains is deleted; a lap that users are asked about goes on to its end."
        ),
    ] = "Forbid"
    backoff: Annotated[Backoff, Field(description="How laps that end badly delay the next one; laps made by hand start at once.")] = (
        Backoff()
    )
    generation_template: Annotated[GenerationTemplate, Field(description="What each lap does.")] = GenerationTemplate()
    suspend: Annotated[bool, Field(description="True starts no lap; serving goes on.")] = False
    gpu_budget: Annotated[
        int | None,
        Field(
            ge=0,
            le=1_000_000,
            description="Most GPUs that this Flywheel's training runs hold at once; the others wait, oldest first.",
        ),
    ] = None
    artifacts: Annotated[Artifacts, Field(description="What runs have made, and how long it stays.")] = Artifacts()
    history_limits: Annotated[HistoryLimits, Field(description="How many finished Generations stay.")] = HistoryLimits()
    deletion_policy: Annotated[Literal["Retain", "Delete"], Field(description="Retain: serving goes on when the Flywheel is deleted.")] = (
        "Retain"
    )


class ChampionStatus(Resource):
    """What serves users now."""

    generation: Annotated[Name, Field(description="Its generation.")]
    uri: Annotated[str, Field(max_length=1024, description="Where its model lies.")]
    digest: Annotated[str, Field(max_length=71, description="Its content digest.")]
    arm: Annotated[ObjectName, Field(description="Its Deployment and Service.")]
    since: Annotated[Time, Field(description="Since when.")]
    adopted: Annotated[Adoption | None, Field(description="Whose pods they are, if the operator did not make them.")] = None


class CountedLaps(Resource):
    """How far the laps that ended badly have been counted."""

    until: Annotated[Time | None, Field(description="When the newest lap that was counted had ended.")] = None
    last_failure: Annotated[Time | None, Field(description="When the newest one that ended badly had.")] = None
    template: Annotated[str, Field(max_length=64, description="Hash of the template that they are counted for.")] = ""
    retry: Annotated[str | None, Field(max_length=256, description="Value of the retry annotation that they are counted since.")] = None


class FlywheelStatus(Status):
    """Observed state of a Flywheel."""

    phase: Annotated[Literal["Starting", "Serving", "Degraded"], Field(description="For people; decisions read the conditions.")] = (
        "Starting"
    )
    champion: Annotated[ChampionStatus | None, Field(description="What serves users now.")] = None
    previous: Annotated[tuple[ChampionStatus, ...], Field(max_length=50, description="Earlier champions, newest first.")] = ()
    lineage: Annotated[
        tuple[LineageEntry, ...],
        Field(
            max_length=MAX_ENTRIES,
            description="What is remembered of its generations, oldest first, also after their objects are gone. Above the bound, those "
            "that no user has met go first.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()
    collection: Annotated[Collection | None, Field(description="The last garbage collection of the store.")] = None
    released: Annotated[
        tuple[Name, ...],
        Field(max_length=MAX_RELEASED, description="Laps whose artifacts may have been collected; nothing of them is used again."),
    ] = ()
    arms: Annotated[tuple[ArmStatus, ...], Field(max_length=16, description="Every arm that has a Deployment.")] = ()
    active: Annotated[tuple[ObjectName, ...], Field(max_length=16, description="Laps that run now.")] = ()
    replacing: Annotated[
        tuple[ObjectName, ...], Field(max_length=16, description="Laps that the newest one replaces; deleted once it has begun.")
    ] = ()
    laps: Annotated[int, Field(ge=0, description="Laps this Flywheel has started.")] = 0
    last_lap_time: Annotated[Time | None, Field(description="When the last lap started.")] = None
    last_lap_conversations: Annotated[Finite | None, Field(ge=0, description="Conversations kept when the last lap started.")] = None
    last_lap: Annotated[ObjectName | None, Field(description="Name of the newest lap this Flywheel has started.")] = None
    next_lap_time: Annotated[Time | None, Field(description="When the next one starts by the schedule, or may start after a backoff.")] = (
        None
    )
    consecutive_failures: Annotated[
        int,
        Field(
            ge=0,
            description="Laps in a row that ended Rejected, RolledBack, Held or Failed; a promotion, an edit of the template or "
            "a retry begins anew.",
        ),
    ] = 0
    backoff_until: Annotated[Time | None, Field(description="No lap starts by itself before, because too many ended badly.")] = None
    counted: Annotated[CountedLaps | None, Field(description="How far the laps that ended badly have been counted.")] = None
    conversations: Annotated[Finite | None, Field(ge=0, description="Conversations kept so far.")] = None
    address: Annotated[str | None, Field(max_length=512, description="Where users' requests go.")] = None


class Flywheel(Resource):
    """A model in production that learns from its users, lap after lap."""

    metadata: Metadata
    spec: FlywheelSpec
    status: FlywheelStatus = FlywheelStatus()
