"""What a Flywheel remembers of its generations after their objects are gone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from flywheel.api.base import SCHEMALESS, Finite, Name, ObjectName, Resource, Time

MAX_ENTRIES = 200
MAX_SHARES = 24


class Share(Resource):
    """From when on how many users were sent to a candidate."""

    since: Annotated[Time, Field(description="From when on.")]
    percent: Annotated[int, Field(ge=0, le=100, description="Percent of users.")]


class LineageEntry(Resource):
    """One generation: where it came from, how it ended, when users met it."""

    # Kept as it was written: a later version of the CRD must not prune what is remembered.
    model_config = Resource.model_config | {"json_schema_extra": SCHEMALESS}

    generation: Annotated[Name, Field(description="Its name.")]
    parent: Annotated[Name | None, Field(description="The champion when its lap started.")] = None
    digest: Annotated[str | None, Field(max_length=71, description="Digest of its model.")] = None
    verdict: Annotated[str | None, Field(max_length=16, description="How its lap ended.")] = None
    reason: Annotated[str | None, Field(max_length=63, description="Why, in one word.")] = None
    start_time: Annotated[Time | None, Field(description="When its lap started.")] = None
    decision_time: Annotated[Time | None, Field(description="When its lap was decided.")] = None
    served_from: Annotated[Time | None, Field(description="When it became champion.")] = None
    served_until: Annotated[Time | None, Field(description="When another became champion.")] = None
    rollout: Annotated[ObjectName | None, Field(description="The Rollout that asked users about it.")] = None
    baseline: Annotated[Name | None, Field(description="What it was compared with there.")] = None
    shares: Annotated[
        tuple[Share, ...], Field(max_length=MAX_SHARES, description="How many users met it as a candidate, oldest first.")
    ] = ()
    gpu_seconds: Annotated[Finite | None, Field(ge=0, description="GPUs × seconds of its runs.")] = None
    cost: Annotated[Finite | None, Field(ge=0, description="What its runs cost.")] = None
    currency: Annotated[str | None, Field(max_length=16, description="Currency of `cost`.")] = None
    record_uri: Annotated[str | None, Field(max_length=1024, description="Where its generation.json and model card lie.")] = None
    record_digest: Annotated[str | None, Field(max_length=71, description="Digest of that artifact.")] = None
