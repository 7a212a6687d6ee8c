"""What a lap has cost: GPU and CPU time of its runs, and money by the operator's price table."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from flywheel.api.base import Finite, Name, Resource

Seconds = Annotated[Finite, Field(ge=0, description="Seconds, times how many were held.")]
Amount = Annotated[Finite | None, Field(ge=0, description="Price in `currency`; absent when a resource that was used has no price.")]


class StageCost(Resource):
    """What one stage has cost."""

    name: Annotated[Name, Field(description="The stage.")]
    gpu_seconds: Annotated[Seconds, Field(description="GPUs × seconds of its runs.")] = 0
    cpu_seconds: Annotated[Seconds, Field(description="CPUs asked for × seconds of its ended attempts.")] = 0
    amount: Amount = None


class Cost(Resource):
    """What a lap's runs have cost; serving is not in it."""

    currency: Annotated[str | None, Field(max_length=16, description="Currency of the price table; absent when no prices are set.")] = None
    amount: Amount = None
    gpu_seconds: Annotated[Seconds, Field(description="GPUs × seconds of all runs.")] = 0
    cpu_seconds: Annotated[Seconds, Field(description="CPUs asked for × seconds of all ended attempts.")] = 0
    stages: Annotated[
        tuple[StageCost, ...],
        Field(
            max_length=24,
            description="By stage.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
