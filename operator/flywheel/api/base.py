"""What every kind is made of: the model base class, bounded scalar types, metadata and conditions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import durationpy  # Go durations; comes with the official client
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from flywheel.api.cel import mend, rule, rules
from flywheel.api.reasons import Reason

GROUP = "modelflywheel.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
MAX_NAME = 40  # of a user-named object: children append a role and a hash and stay below 63


class Resource(BaseModel):
    """Base of every API struct: camelCase on the wire, immutable in memory, unknown fields ignored on read.

    Unknown fields are ignored so that an older operator can read objects written for a newer one; the API server
    has already refused or pruned what its schema doesn't know.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def dump(self) -> dict[str, Any]:
        """The struct as it stands in YAML: camelCase, absent instead of null, JSON types only."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _utc(value: dt.datetime) -> dt.datetime:
    return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)


Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_NAME,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        json_schema_extra=mend("is not a name; write a-z, 0-9 and '-', with a letter or digit at both ends"),
    ),
]
ObjectName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        json_schema_extra=mend("is not the name of an object; write a-z, 0-9, '-' and '.', with a letter or digit at both ends"),
    ),
]
Text = Annotated[str, Field(max_length=1024)]
Message = Annotated[str, Field(max_length=32768)]
Image = Annotated[str, Field(min_length=1, max_length=512)]
Digest = Annotated[
    str,
    Field(
        max_length=71,
        pattern=r"^sha256:[0-9a-f]{64}$",
        json_schema_extra=mend("is not a digest; write sha256: and 64 hexadecimal digits, as in the artifact's manifest.json"),
    ),
]
Uri = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        # A scheme of the artifact stores, no spaces or control characters, never a parent directory.
        pattern=r"^(file:///|s3://|gs://|hf://|builtin:)[^\s\x00-\x1f\x7f]*$",
        json_schema_extra=mend("is not a URI of a store; begin with file:///, s3://, gs://, hf:// or builtin:, without spaces")
        | rules(rule("!self.matches('/[.][.](/|$)')", "'{self}' leads to a parent directory; give the full path without '..'")),
    ),
]
# In 24 characters never more than CEL can add up (292 years).
DURATION = r"^([0-9]{1,5}([.][0-9]{1,6})?h|[0-9]{1,7}([.][0-9]{1,6})?m|[0-9]{1,8}([.][0-9]{1,6})?m?s)+$"
MAX_DURATION = dt.timedelta(days=3650)  # so that no sum with a time, and no doubling, leaves the calendar
Duration = Annotated[
    str,
    Field(
        min_length=2,
        max_length=24,
        pattern=DURATION,
        description="A Go duration, such as `30s` or `168h`.",
        json_schema_extra=mend("is not a duration; write numbers with ms, s, m or h, such as 90s, 30m or 168h (7 days), at most 99999h"),
    ),
]
PositiveDuration = Annotated[
    Duration,
    Field(json_schema_extra=rules(rule("self.matches('[1-9]')", "'{self}' must be longer than zero, such as 30s"))),
]
Time = Annotated[
    dt.datetime,
    AfterValidator(_utc),
    PlainSerializer(lambda value: format_time(value), return_type=str, when_used="json"),
]


def format_time(value: dt.datetime) -> str:
    """RFC 3339 in UTC with microseconds (Kubernetes' MicroTime): the order of two decisions in one second is kept."""
    return value.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_duration(value: str) -> dt.timedelta:
    """A Go duration as a timedelta, more than ten years as ten. The schema's pattern has refused anything else before it gets here."""
    parsed: dt.timedelta = durationpy.from_str(value)
    return min(parsed, MAX_DURATION)


class OwnerReference(Resource):
    """A Kubernetes owner reference."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class Metadata(Resource):
    """The part of Kubernetes' ObjectMeta that decisions read."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()


class Condition(Resource):
    """A Kubernetes condition. One of each type; `reason` comes from one enum; `message` names value and limit."""

    type: Annotated[str, Field(max_length=63, description="What the condition is about, in CamelCase.")]
    status: Annotated[Literal["True", "False", "Unknown"], Field(description="Whether it holds.")]
    reason: Annotated[str, Field(max_length=63, description="Why, as one CamelCase word; each has a page in docs/reasons.md.")]
    message: Annotated[str, Field(max_length=4096, description="Why, in a sentence with the value and the limit.")] = ""
    observed_generation: Annotated[int, Field(description="The metadata.generation this was said about.")] = 0
    last_transition_time: Annotated[Time, Field(description="When `status` last changed.")]


def set_condition(
    conditions: Sequence[Condition],
    type_: str,
    status: bool | None,
    reason: Reason,
    message: str,
    *,
    generation: int,
    now: dt.datetime,
) -> tuple[Condition, ...]:
    """The conditions with one of them set; its transition time moves only when its status changes."""
    word: Literal["True", "False", "Unknown"] = "Unknown" if status is None else "True" if status else "False"
    old = next((c for c in conditions if c.type == type_), None)
    since = old.last_transition_time if old and old.status == word else now
    new = Condition(
        type=type_, status=word, reason=reason.value, message=message[:4096], observed_generation=generation, last_transition_time=since
    )
    return tuple(new if c.type == type_ else c for c in conditions) if old else (*conditions, new)


def get_condition(conditions: Sequence[Condition], type_: str) -> Condition | None:
    """The condition of a type, or None."""
    return next((c for c in conditions if c.type == type_), None)


class Status(Resource):
    """What every status has."""

    observed_generation: Annotated[int, Field(description="The metadata.generation this status was made from.")] = 0
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=32,
            description="The latest observations, one per type.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()


SCHEMALESS: dict[str, Any] = {"x-kubernetes-preserve-unknown-fields": True}
