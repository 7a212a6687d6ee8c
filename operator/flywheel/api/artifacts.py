"""How long what runs have made stays in the store, and what was collected last."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flywheel.api.base import SCHEMALESS, ObjectName, PositiveDuration, Resource, Time
from flywheel.api.cel import rule, rules
from flywheel.api.common import Artifact
from flywheel.api.training_run import Metrics

MAX_RELEASED = 2000  # as many laps as the history limits can keep
SHORTEST_GRACE = "1h"


class Retention(Resource):
    """What is deleted from the store, and when."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            rule(
                f"!self.grace.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') || duration(self.grace) >= duration('{SHORTEST_GRACE}')",
                f"grace {{self.grace}} is shorter than {SHORTEST_GRACE}: a run that is writing could lose what it made; lengthen it",
                at=".grace",
            )
        )
    }

    policy: Annotated[
        Literal["None", "Delete"],
        Field(
            description="Delete: after each lap, artifacts and checkpoints of this Flywheel's runs that nothing refers to any more are "
            "deleted from the store. None: nothing is, unless somebody asks for it."
        ),
    ] = "None"
    grace: Annotated[PositiveDuration, Field(description="What is younger is never deleted.")] = "168h"
    keep_champions: Annotated[int, Field(ge=0, le=50, description="Earlier champions whose models stay, newest first.")] = 10
    keep_rejected: Annotated[
        int | None,
        Field(
            ge=0,
            le=1000,
            description="Laps that ended otherwise than promoted and still exist, newest first, whose artifacts stay. Default: all.",
        ),
    ] = None


class Artifacts(Resource):
    """What runs have made."""

    retention: Annotated[Retention, Field(description="How long it stays.")] = Retention()


class Collection(Resource):
    """A garbage collection of the store."""

    model_config = Resource.model_config | {"json_schema_extra": SCHEMALESS}  # the operator's alone; a CRD has a size

    name: Annotated[ObjectName, Field(description="The TrainingRun that does it.")]
    time: Annotated[Time, Field(description="When it was decided; nothing younger than this less the grace is touched.")]
    grace_seconds: Annotated[int, Field(ge=0, description="The grace.")]
    dry_run: Annotated[bool, Field(description="True: it only lists what would go.")]
    asked: Annotated[
        str | None, Field(max_length=256, description="Value of the annotation modelflywheel.dev/collect-garbage that was heeded last.")
    ] = None
    after: Annotated[str | None, Field(max_length=256, description="The last lap whose end was followed by a collection.")] = None
    phase: Annotated[Literal["Running", "Done", "Failed"], Field(description="Where it is.")] = "Running"
    message: Annotated[str | None, Field(max_length=1024, description="Why it failed.")] = None
    metrics: Metrics = {}
    report: Annotated[Artifact | None, Field(description="The whole list of what went or would go (report.json).")] = None
    completion_time: Annotated[Time | None, Field(description="When it ended.")] = None
