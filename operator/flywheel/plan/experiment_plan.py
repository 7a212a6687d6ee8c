"""What a Rollout's spec plans for its users, day by day, and the assumptions without which it can't be sized. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from flywheel.api.base import parse_duration
from flywheel.api.rollout import RolloutSpec
from flywheel.stats.sizing import Base

# Of users in 24 h; a guess for want of better, and said to be one. Counts of events: a Poisson count that varies half as much again.
TYPICAL_MEANS = {"breadth": 0.5, "depth": 3.0, "errors": 0.02, "fallbacks": 0.005, "thumbs_up": 0.06, "thumbs_down": 0.03}
TYPICAL_DEPTH_CV = 1.5
SPREAD_OF_COUNTS = 1.5


def bases(spec: RolloutSpec, means: Mapping[str, float], depth_cv: float, lifts: Mapping[str, float], explained: float) -> dict[str, Base]:
    """The assumptions about each metric of the spec. Raises ValueError for a metric that the spec hasn't, or a share above 1."""
    names = [metric.name for metric in spec.metrics]
    if unknown := sorted({*means, *lifts} - set(names)):
        raise ValueError(f"{unknown[0]} is no metric of the plan; it has {', '.join(names)}")
    found: dict[str, Base] = {}
    for metric in spec.metrics:
        mean = means.get(metric.name, TYPICAL_MEANS[metric.name])
        if metric.name == "breadth" and not 0 < mean < 1:
            raise ValueError(f"breadth is the share of users who go on, so between 0 and 1, not {mean:g}")
        relative = metric.absolute_margin is None
        found[metric.name] = Base(
            mean, _cv(metric.name, mean, depth_cv), lifts.get(metric.name, 0.0), explained if relative and spec.analysis.cuped else 0.0
        )
    return found


def _cv(name: str, mean: float, depth_cv: float) -> float:
    if name == "breadth":
        return math.sqrt((1 - mean) / mean)
    return depth_cv if name == "depth" else math.sqrt(SPREAD_OF_COUNTS / max(mean, 1e-9))


def users_a_day(spec: RolloutSpec, new_users_a_day: float) -> list[float]:
    """Users of a slice who mature on each day from the window's start to the verdict; every user counts on his first visit, once."""
    analysis = spec.analysis
    window, burn_in = (parse_duration(d).total_seconds() / 86400 for d in (analysis.window, analysis.burn_in))
    horizon = parse_duration(analysis.horizon).total_seconds() / 86400
    spans, start = [], 0.0
    for step in spec.traffic.steps:
        end = start + parse_duration(step.duration).total_seconds() / 86400 if step.duration else window
        spans.append((start, min(end, window), step.weight_percent / 100))
        start = min(end, window)
    spans[-1] = (spans[-1][0], window, spans[-1][2])  # the last step lasts to the verdict
    days = max(1, math.ceil(window + horizon - 1e-9))
    edges = [(min(day - horizon, window), min(day + 1 - horizon, window)) for day in range(days - 1)] + [
        (min(days - 1 - horizon, window), window)
    ]
    return [sum(_overlap(low, high, max(a, burn_in), b) * weight * new_users_a_day for a, b, weight in spans) for low, high in edges]


def _overlap(low: float, high: float, start: float, end: float) -> float:
    return max(0.0, min(high, end) - max(low, start))
