"""Ways to reach a verdict other than one test of plain means at the window's end. Short texts: they stand in three CRDs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from flywheel.api.base import DURATION, Finite, Name, PositiveDuration, Resource
from flywheel.api.cel import Rule, mend, quote, rule, rules

MAX_PERIOD = "720h"  # the collector's limit
IS_DURATION = f"matches({quote(DURATION)})"
UsersPerSlice = Annotated[int, Field(ge=2, le=1_000_000_000)]


class GroupSequential(Resource):
    """A few tests that share alpha (Lan-DeMets)."""

    users_per_slice: Annotated[UsersPerSlice, Field(description="Matured users a slice at the last test; the window's end is one, too.")]
    looks: Annotated[int, Field(ge=2, le=10, description="Tests, at equal steps of users.")] = 5
    spending: Annotated[
        Literal["OBrienFleming", "Pocock"], Field(description="OBrienFleming keeps alpha for the last test; Pocock spends it evenly.")
    ] = "OBrienFleming"


class AlwaysValid(Resource):
    """A test at every interval."""

    users_per_slice: Annotated[UsersPerSlice, Field(description="Matured users a slice at which it is sharpest.")]


class Cuped(Resource):
    """Takes what users did before out of the comparison."""

    period: Annotated[
        PositiveDuration,
        Field(
            description="A user's pre-period, up to his exposure; at most 720h.",
            json_schema_extra=rules(
                rule(
                    f"!self.{IS_DURATION} || duration(self) <= duration({quote(MAX_PERIOD)})",
                    f"{{self}} is longer than {MAX_PERIOD} (30 days); shorten it",
                )
            ),
        ),
    ] = "168h"


class Novelty(Resource):
    """Compares the users of the window's halves."""

    alpha: Annotated[
        Finite,
        Field(
            gt=0,
            lt=0.5,
            description="Error rate of calling a lift smaller that is not.",
            json_schema_extra=mend("an error rate must be above 0 and below 0.5; write 0.05 for 5 %"),
        ),
    ] = 0.05


Segments = Annotated[
    tuple[Name, ...],
    Field(
        max_length=8,
        description="Values of header `x-flywheel-segment`, or `known`, `new` (by pre-period); proven harm to one stops a promotion.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    ),
]

METHOD_RULES: tuple[Rule, ...] = (
    rule(
        "(self.method == 'GroupSequential') == has(self.groupSequential) && (self.method == 'AlwaysValid') == has(self.alwaysValid)",
        "method {self.method} doesn't fit; set groupSequential or alwaysValid with the method of that name, and only then",
        at=".method",
    ),
    rule(
        "!has(self.groupSequential) || self.groupSequential.usersPerSlice >= self.minimumUsers",
        "usersPerSlice is below minimumUsers, so no test would be due; raise it",
        at=".groupSequential",
    ),
    rule(
        "!has(self.novelty) || self.method == 'FixedHorizon'",
        "novelty needs the whole window, and method {self.method} may end before; set FixedHorizon",
        at=".novelty",
    ),
    rule(
        "!has(self.segments) || !self.segments.exists(s, s in ['early', 'late'] || (s in ['known', 'new'] && !has(self.cuped)))",
        "segments 'known' and 'new' need cuped, and 'early' and 'late' belong to novelty; set these",
        at=".segments",
    ),
    rule(
        "!has(self.novelty) || !has(self.segments) || self.segments.size() <= 6",
        "with novelty there can be at most 6 segments; remove some",
        at=".segments",
    ),
    rule(
        f"!self.burnIn.{IS_DURATION} || !self.window.{IS_DURATION} || duration(self.burnIn) < duration(self.window)",
        "burnIn {self.burnIn} leaves nobody of window {self.window}; shorten it",
        at=".burnIn",
    ),
)
