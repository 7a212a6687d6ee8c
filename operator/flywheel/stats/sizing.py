"""Has a plan a chance? The probability that it promotes a candidate with a hoped-for lift, and the users it needs.

Normal approximation, tests taken as independent (they are positively correlated where one effect moves several metrics, which makes the
chance larger than said here). With a few looks the chance is that of crossing at any of them; with always-valid sequences that of being
beyond at the last look, which is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from flywheel.stats.analysis import AnalysisPlan, MetricPlan
from flywheel.stats.group_sequential import boundaries, crossing_probabilities, upper_tail
from flywheel.stats.methods import AlwaysValid, GroupSequential
from flywheel.stats.moments import check_number
from flywheel.stats.sequences import one_sided_multiplier

MAX_USERS = 10**9


@dataclass(frozen=True, slots=True)
class Base:
    """What users of the control do, by assumption: mean of a metric and its coefficient of variation (standard deviation / mean).

    `explained`: share of the variance that the pre-period takes away (CUPED). `lift`: relative effect of the candidate that one hopes for.
    Raises ValueError.
    """

    mean: float
    cv: float
    lift: float = 0.0
    explained: float = 0.0

    def __post_init__(self) -> None:
        check_number("mean", self.mean, 1e-9, 1e9)
        check_number("cv", self.cv, 1e-6, 1e6)
        check_number("lift", self.lift, -1.0, 1e3)
        check_number("explained", self.explained, 0.0, 0.999)

    @property
    def deviation(self) -> float:
        """Standard deviation a user, in the metric's unit, after adjustment."""
        return self.mean * self.cv * math.sqrt(1 - self.explained)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One thing that must be shown for a promotion, and the probability of showing it."""

    metric: str
    what: Literal["better", "no worse"]
    effect: float  # true value of the contrast, in the metric's unit: the lift, or lift plus margin
    deviation: float  # standard deviation a user, in the metric's unit
    level: float
    chance: float


def requirements(plan: AnalysisPlan, bases: Mapping[str, Base], users: int) -> tuple[Requirement, ...]:
    """What a promotion needs, with `users` matured users a slice: the lifted Success metrics better, all the rest no worse.

    Raises ValueError if nothing is lifted, or a metric has no base.
    """
    if missing := [m.name for m in plan.metrics if m.name not in bases]:
        raise ValueError(f"metrics: no assumption about {', '.join(missing)}")
    success = [m.name for m in plan.metrics if m.role == "Success"]
    lifted = [m.name for m in plan.metrics if m.name in success and m.good * bases[m.name].lift > 0]
    if not lifted:
        raise ValueError("lift: no Success metric has one in its good direction, so there is nothing to prove")
    found = []
    for metric in plan.metrics:
        proven, base = metric.name in lifted, bases[metric.name]
        level = plan.alpha / len(success) if proven else plan.alpha
        effect = _effect(metric, base, proven=proven)
        found.append(
            Requirement(
                metric=metric.name,
                what="better" if proven else "no worse",
                effect=effect,
                deviation=base.deviation,
                level=level,
                chance=chance(plan, effect, base.deviation, level, users),
            )
        )
    return tuple(found)


def promotion_chance(parts: tuple[Requirement, ...]) -> float:
    """Of any lifted metric being better (the other lifted ones are then no worse, or nearly always so) and all the rest no worse."""
    missed = math.prod(1 - p.chance for p in parts if p.what == "better")
    return (1 - missed) * math.prod(p.chance for p in parts if p.what == "no worse")


def users_needed(plan: AnalysisPlan, bases: Mapping[str, Base], wanted: float) -> int | None:
    """Matured users a slice at which a promotion has the wanted chance; None if a billion aren't enough."""
    check_number("power", wanted, 0.5, 0.9999)
    return _least(lambda n: promotion_chance(requirements(plan, bases, n)) >= wanted)


def users_needed_for(plan: AnalysisPlan, part: Requirement, wanted: float) -> int | None:
    """The same for one requirement alone."""
    check_number("power", wanted, 0.5, 0.9999)
    return _least(lambda n: chance(plan, part.effect, part.deviation, part.level, n) >= wanted)


def _effect(metric: MetricPlan, base: Base, *, proven: bool) -> float:
    gain = metric.good * base.lift * base.mean
    if proven:
        return gain
    limit = metric.promotion_limit
    return gain + limit.absolute_margin + limit.margin * base.mean


def chance(plan: AnalysisPlan, effect: float, deviation: float, level: float, users: int) -> float:
    """Of a contrast with this true value to be shown above 0 at a level, with `users` a slice at the window's end."""
    if users < plan.minimum_users:
        return 0.0
    drift = effect / (deviation * math.sqrt(2 / users))
    drift = max(-50.0, min(50.0, drift))
    match plan.method:
        case GroupSequential(users=planned, looks=looks, spending=spending):
            share = round(min(1.0, users / planned), 2)
            steps = [k / looks for k in range(1, looks + 1) if k / looks < share - 0.5 / looks]
            fractions = [*steps, max(share, 0.01)]
            bounds = boundaries(fractions, level, spending, last=True)
            # The drift is of information 1, and `users` are the share of it.
            return min(1.0, sum(crossing_probabilities(fractions, bounds, drift / math.sqrt(fractions[-1]))))
        case AlwaysValid(users=optimum):
            return upper_tail(one_sided_multiplier(2 * users, level, 2.0 * optimum, tuned_for=plan.alpha) - drift)
        case _:
            return upper_tail(_z(level) - drift)


def _z(level: float) -> float:
    return boundaries([1.0], level, "OBrienFleming")[0]


def _least(enough: Callable[[int], bool]) -> int | None:
    """The smallest number of users that is enough, to three digits."""
    low, high = 1, 1024
    while not enough(high):
        low, high = high, high * 2
        if high > MAX_USERS:
            return None
    while high - low > max(1, high // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
