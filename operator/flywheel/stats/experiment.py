"""Experiments that never were, or were: evidence look by look, and what a plan makes of it.

A simulated one is drawn from assumptions by a normal approximation of each day's sums (days have hundreds of users); the decision is made
by the same `assess` as a real one's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from flywheel.stats.analysis import AnalysisPlan
from flywheel.stats.evidence import Evidence, Measured
from flywheel.stats.moments import Moments
from flywheel.stats.sizing import Base
from flywheel.stats.verdict import Assessment, Outcome, assess

SHARED = 0.7  # correlation of breadth's and depth's daily sums: depth of those who don't go on is zero


@dataclass(frozen=True, slots=True)
class Decided:
    """How an experiment ended: which look of it decided (from 1), and the assessment. The last one if none did."""

    look: int
    assessment: Assessment


def decide(plan: AnalysisPlan, looks: Iterable[Evidence]) -> Decided:
    """Look by look, as the operator does; group-sequential looks are remembered. Raises ValueError for no looks."""
    done: tuple[float, ...] = ()
    last: Decided | None = None
    for number, evidence in enumerate(looks, start=1):
        found = assess(plan, replace(evidence, looks=done))
        last = Decided(number, found)
        if found.look is not None:
            done = (*done, found.look)
        if found.outcome in (Outcome.PROMOTE, Outcome.ROLLBACK, Outcome.INCONCLUSIVE):
            return last
    if last is None:
        raise ValueError("looks: there are none to decide on")
    return last


def simulated(
    plan: AnalysisPlan, bases: Mapping[str, Base], users_a_day: Sequence[float], gauss: Callable[[], float]
) -> Iterator[Evidence]:
    """A look at the end of each day; `users_a_day` are those of a slice who mature that day, `gauss` draws standard normals."""
    totals = {m.name: ([0.0, 0.0], [0.0, 0.0]) for m in plan.metrics}
    matured = [0, 0]
    for day, expected in enumerate(users_a_day):
        for side in (0, 1):
            n = max(0, round(expected + math.sqrt(max(expected, 0.0)) * gauss()))
            matured[side] += n
            shared = gauss()
            for metric in plan.metrics:
                base = bases[metric.name]
                own = gauss() if metric.absolute_margin is not None else SHARED * shared + math.sqrt(1 - SHARED**2) * gauss()
                mean, deviation = base.mean * (1 + (base.lift if side else 0.0)), base.deviation
                totals[metric.name][0][side] += max(0.0, n * mean + math.sqrt(n) * deviation * own)
                totals[metric.name][1][side] += n * deviation * deviation
        metrics = {
            name: Measured(_moments(matured[0], total[0], spread[0]), _moments(matured[1], total[1], spread[1]))
            for name, (total, spread) in totals.items()
        }
        yield Evidence((matured[0], matured[1]), metrics, window_over=day == len(users_a_day) - 1)


def _moments(n: int, total: float, spread: float) -> Moments:
    return Moments(n, total, total * total / n + spread) if n else Moments(0, 0.0, 0.0)
