"""Rules of decision over many experiments at once: the operator's verdict, and fixed thresholds as other controllers use them.

The operator's rule is written here a second time, on arrays, because `assess` takes one look at a time. So every cell is checked:
`replayed` decides some experiments by `assess` itself, look by look, and the bench fails on any difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dev.bench.verdict_world import HOURS, LOOKS, METRICS, Floats, Ints, Trajectories
from flywheel.stats.group_sequential import boundaries
from flywheel.stats.moments import PairMoments
from flywheel.stats.sample_ratio import CONCENTRATION
from flywheel.stats.sequences import mixture_rho
from flywheel.stats.verdict import (
    AlwaysValid,
    AnalysisPlan,
    Evidence,
    FixedHorizon,
    GroupSequential,
    Measured,
    MetricPlan,
    Moments,
    Outcome,
    assess,
)

PROMOTE, ROLLBACK, INCONCLUSIVE, HOLD = 0, 1, 2, 3
NAMES = {Outcome.PROMOTE: PROMOTE, Outcome.ROLLBACK: ROLLBACK, Outcome.INCONCLUSIVE: INCONCLUSIVE, Outcome.HOLD: HOLD}

PLAN = AnalysisPlan(
    metrics=(
        MetricPlan("breadth", "Success", "Increase", margin=0.05),
        MetricPlan("depth", "Success", "Increase", margin=0.05),
        MetricPlan("errors", "Guardrail", "Decrease", absolute_margin=0.05),
        MetricPlan("fallbacks", "Guardrail", "Decrease", absolute_margin=0.05),
        MetricPlan("thumbs_down", "Guardrail", "Decrease", absolute_margin=0.05),
        MetricPlan("thumbs_up", "Guardrail", "Increase", absolute_margin=0.05),
    ),
    sample_ratio_at_end=True,
)


@dataclass
class Decisions:
    """Outcome and hour of each experiment."""

    outcome: NDArray[np.int64]
    hour: NDArray[np.int64]


@dataclass
class _Numbers:
    """Of one metric at every look: contrast of superiority, of non-inferiority and of harm, each with its standard error."""

    better: tuple[Floats, Floats]
    no_worse: tuple[Floats, Floats]
    harm: tuple[Floats, Floats]


def _slice(n: Ints, total: Floats, squares: Floats, *, rare: bool) -> tuple[Floats, Floats, Floats]:
    """(n, mean, variance), with one event more for rare events."""
    users = np.asarray(n + 2 if rare else n, np.float64)
    total, squares = (total + 1, squares + 1) if rare else (total, squares)
    mean = total / np.maximum(users, 1)
    spread = squares - total * mean
    variance = np.where(spread > 1e-12 * squares, spread, 0.0) / np.maximum(users - 1, 1)
    return users, np.asarray(mean, np.float64), np.asarray(variance, np.float64)


def _adjusted(t: Trajectories, metric: str) -> tuple[tuple[Floats, Floats, Floats], ...]:
    """CUPED on arrays; see stats/cuped.py."""
    at = 2 * len(METRICS) + 1 + 5 * ("breadth", "depth").index(metric)
    parts = []
    for side in (0, 1):
        known = t.sums[side][..., 2 * len(METRICS)]
        y, y2, x, x2, xy = (t.sums[side][..., at + i] for i in range(5))
        total, squares = t.total(side, metric)
        free = np.maximum(known - 1, 1)
        k = np.maximum(known, 1)
        var_y, var_x, cov = (y2 - y * y / k) / free, (x2 - x * x / k) / free, (xy - x * y / k) / free
        parts.append((t.n[side].astype(float), known, y / k, x, var_y, var_x, cov, total - y, squares - y2))
    both = sum(p[1] for p in parts)
    share = both / np.maximum(sum(p[0] for p in parts), 1)
    x_mean = sum(p[3] for p in parts) / np.maximum(both, 1)
    slope = sum((p[1] - 1) * p[6] for p in parts) / np.maximum(sum((p[1] - 1) * p[5] for p in parts), 1e-12)
    found = []
    for n, known, y_mean, x, var_y, var_x, cov, new_total, new_squares in parts:
        k, new = np.maximum(known, 1), np.maximum(n - known, 1)
        mean = share * (y_mean - slope * (x / k - x_mean)) + (1 - share) * new_total / new
        left = np.maximum(0.0, var_y - 2 * slope * cov + slope**2 * var_x)
        new_variance = (new_squares - new_total**2 / new) / np.maximum(new - 1, 1)
        found.append((n, mean, n * (share**2 * left / k + (1 - share) ** 2 * new_variance / new)))
    return tuple(found)


def _numbers(plan: AnalysisPlan, metric: MetricPlan, t: Trajectories) -> _Numbers:
    rare = metric.absolute_margin is not None
    if plan.cuped and not rare:
        control, candidate = _adjusted(t, metric.name)
    else:
        control, candidate = (_slice(t.n[side], *t.total(side, metric.name), rare=rare) for side in (0, 1))

    def contrast(margin: float, absolute: float) -> tuple[Floats, Floats]:
        ratio = 1.0 - metric.good * margin
        estimate = metric.good * (candidate[1] - (ratio * control[1] - metric.good * absolute))
        error = np.sqrt(candidate[2] / np.maximum(candidate[0], 1) + ratio * ratio * control[2] / np.maximum(control[0], 1))
        return estimate, error

    return _Numbers(contrast(0.0, 0.0), contrast(*metric.promotion_limit), contrast(*metric.harm_limit))


def _one_sided(users: Floats, alpha: float, rho: float) -> Floats:
    information = np.maximum(users, 1) * rho**2
    return np.sqrt(2 * (1 + 1 / information) * np.log1p(np.sqrt(information + 1) / (2 * alpha)))


_LGAMMA = np.array([math.lgamma(CONCENTRATION / 2 + n) for n in range(200_000)])


def _sample_ratio(t: Trajectories, plan: AnalysisPlan) -> Floats:
    """p at every look, as _ratio_p of the verdict."""
    a, b = t.assigned
    n = a + b
    whole = np.array([math.lgamma(CONCENTRATION + k) for k in range(int(n.max()) + 1)])
    factor = math.lgamma(CONCENTRATION) - whole[n] + _LGAMMA[a] + _LGAMMA[b] - 2 * _LGAMMA[0] + n * math.log(2)
    p = np.exp(np.minimum(0.0, -factor))
    if not plan.sample_ratio_at_end:
        return np.asarray(p, np.float64)
    z = np.abs(a[:, -1] - b[:, -1]) / np.sqrt(2 * np.maximum(n[:, -1], 1))
    p[:, -1] = np.minimum(p[:, -1], [math.erfc(v) for v in z])
    return np.asarray(np.minimum(1.0, 2 * p), np.float64)


def decide(plan: AnalysisPlan, t: Trajectories) -> Decisions:
    """The operator's verdict on every experiment."""
    users = (t.n[0] + t.n[1]).astype(float)
    enough = np.minimum(t.n[0], t.n[1]) >= plan.minimum_users
    sound = _sample_ratio(t, plan) >= plan.sample_ratio_alpha
    numbers = {m.name: _numbers(plan, m, t) for m in plan.metrics}
    level = plan.harm_alpha / len(plan.metrics)
    reach = _one_sided(users, level, mixture_rho(2 * level, 2.0 * (plan.harm_optimize_users or plan.minimum_users)))
    harmed = np.zeros(users.shape, bool)
    for one in numbers.values():
        harmed |= one.harm[0] + reach * one.harm[1] < 0
    promoted, last = _promotions(plan, t, users, enough, numbers)
    outcome, hour = np.full(len(users), INCONCLUSIVE), last + 1
    events = (harmed & enough & sound, promoted & enough & sound)
    first = [np.where(e.any(1), e.argmax(1), LOOKS) for e in events]
    outcome[first[1] <= last] = PROMOTE
    hour = np.where(first[1] <= last, first[1] + 1, hour)
    rolled = (first[0] <= last) & (first[0] < LOOKS) & (first[0] <= np.where(first[1] <= last, first[1], LOOKS))
    outcome[rolled], hour = ROLLBACK, np.where(rolled, first[0] + 1, hour)
    if plan.novelty_alpha is not None:
        outcome[(outcome == PROMOTE) & _worn_off(plan, t, numbers)] = INCONCLUSIVE
    held = (outcome == INCONCLUSIVE) & ~sound[np.arange(len(users)), last]
    outcome[held] = HOLD
    return Decisions(outcome, hour)


def _worn_off(plan: AnalysisPlan, t: Trajectories, numbers: dict[str, _Numbers]) -> NDArray[np.bool_]:
    """See vetoes.worn_off; at the last look, the only one of a fixed horizon."""
    worn = np.zeros(len(t.n[0]), bool)
    success = [m.name for m in plan.metrics if m.role == "Success"]
    scores = np.stack([numbers[name].better[0][:, -1] / numbers[name].better[1][:, -1] for name in success])
    best = scores.max(0) >= NormalDist().inv_cdf(1 - plan.alpha / len(success))
    assert plan.novelty_alpha is not None
    for i, name in enumerate(success):
        at = 2 * METRICS.index(name)
        parts = []
        for half in (0, 1):
            means = []
            for side in (0, 1):
                n, sums = t.early[side][:, 0], t.early[side][:, 1:]
                if half:
                    n, sums = t.n[side][:, -1] - n, t.sums[side][:, -1] - sums
                mean = sums[:, at] / n
                means.append((mean, (sums[:, at + 1] - n * mean**2) / (n - 1) / n))
            parts.append((means[1][0] - means[0][0], means[0][1] + means[1][1]))
        fall, error = parts[0][0] - parts[1][0], np.sqrt(parts[0][1] + parts[1][1])
        others = scores[i] >= NormalDist().inv_cdf(1 - plan.alpha)  # proven second, once the best one is (Holm for two)
        proven = best & others
        gone = parts[1][0] < NormalDist().inv_cdf(1 - plan.alpha) * np.sqrt(parts[1][1])
        worn |= proven & gone & (fall > NormalDist().inv_cdf(1 - plan.novelty_alpha) * error)
    return worn


def _promotions(plan: AnalysisPlan, t: Trajectories, users: Floats, enough: NDArray[np.bool_], numbers: dict[str, _Numbers]):  # type: ignore[no-untyped-def]
    """Looks at which the numbers allow a promotion, and the last look of each experiment."""
    runs = len(users)
    last = np.full(runs, LOOKS - 1)
    success = [m.name for m in plan.metrics if m.role == "Success"]
    levels = [plan.alpha / (len(success) - rank) for rank in range(len(success))]
    match plan.method:
        case FixedHorizon():
            critical = {level: np.full(users.shape, NormalDist().inv_cdf(1 - level)) for level in {*levels, plan.alpha}}
            due = np.zeros(users.shape, bool)
            due[:, -1] = True
        case AlwaysValid(users=optimum):
            rho = mixture_rho(2 * plan.alpha, 2.0 * optimum)
            critical = {level: _one_sided(users, level, rho) for level in {*levels, plan.alpha}}
            due = np.ones(users.shape, bool)
        case GroupSequential():
            critical, due, last = _group_sequential(plan.method, t, enough, {*levels, plan.alpha})
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = {name: np.where(one.better[1] > 0, one.better[0] / one.better[1], 0.0) for name, one in numbers.items()}
        bounds = {name: np.where(one.no_worse[1] > 0, one.no_worse[0] / one.no_worse[1], 0.0) for name, one in numbers.items()}
    order = sorted(success)
    stacked = np.stack([scores[name] for name in order])
    ranked = -np.sort(-stacked, axis=0)
    rejected, going = np.zeros(users.shape, np.int64), np.ones(users.shape, bool)
    for rank, level in enumerate(levels):
        going = going & (ranked[rank] >= critical[level])
        rejected += going
    threshold = np.where(rejected > 0, np.take_along_axis(ranked, np.maximum(rejected - 1, 0)[None], 0)[0], np.inf)
    fine = due & (rejected > 0)
    for name in numbers:
        shown = bounds[name] >= critical[plan.alpha]
        fine &= (shown | (scores[name] >= threshold)) if name in success else shown
    return fine, last


def _group_sequential(method: GroupSequential, t: Trajectories, enough: NDArray[np.bool_], levels: set[float]):  # type: ignore[no-untyped-def]
    """Critical values at the looks that are due, inf elsewhere; by experiment, as each has its own information."""
    a, b = (n.astype(float) for n in t.n)
    with np.errstate(invalid="ignore", divide="ignore"):
        information = np.where(enough, 2 * a * b / np.maximum(a + b, 1), 0.0) / method.users
    fractions = np.round(information, 2)
    runs, looks = fractions.shape
    critical = {level: np.full((runs, looks), np.inf) for level in levels}
    due, last = np.zeros((runs, looks), bool), np.full(runs, looks - 1)
    for run in range(runs):
        made: list[float] = []
        at = 0
        while True:
            before = made[-1] if made else 0.0
            planned = [k / method.looks for k in range(1, method.looks + 1) if k / method.looks > before + 0.5 / method.looks]
            target = min(planned[0], 1.0) if planned else 1.0
            at = max(at, int(np.searchsorted(fractions[run], target - 1e-12)))
            final = at >= looks - 1 or fractions[run, min(at, looks - 1)] >= 1.0
            at = min(at, looks - 1)
            made.append(max(float(fractions[run, at]), before + 0.01))
            due[run, at] = True
            for level in levels:
                critical[level][run, at] = boundaries(made, level, method.spending, last=final)[-1]
            if final:
                last[run] = at
                break
            at += 1
    return critical, due, last


def replayed(plan: AnalysisPlan, t: Trajectories, run: int) -> tuple[int, int]:
    """One experiment decided by the operator's own function, look by look: outcome and hour."""
    looks: tuple[float, ...] = ()
    start = max(0, int(np.searchsorted(np.minimum(t.n[0][run], t.n[1][run]), plan.minimum_users)) - 1)
    for look in range(start, LOOKS):
        evidence = Evidence(
            (int(t.assigned[0][run, look]), int(t.assigned[1][run, look])), _measured(plan, t, run, look), look == LOOKS - 1, looks
        )
        found = assess(plan, evidence)
        if found.look is not None:
            looks = (*looks, found.look)
        if found.outcome in (Outcome.CONTINUE, Outcome.HOLD) and look < LOOKS - 1:
            continue
        return NAMES[found.outcome], look + 1
    raise AssertionError("the last look decides")


def _measured(plan: AnalysisPlan, t: Trajectories, run: int, look: int) -> dict[str, Measured]:
    found = {}
    for i, name in enumerate(METRICS):
        slices = [Moments(int(t.n[s][run, look]), *(float(v) for v in t.sums[s][run, look, 2 * i : 2 * i + 2])) for s in (0, 1)]
        known = None
        if plan.cuped and i < 2:
            at = 2 * len(METRICS)
            pairs = []
            for s in (0, 1):
                n, (y, y2, x, x2, xy) = (
                    int(t.sums[s][run, look, at]),
                    (float(v) for v in t.sums[s][run, look, at + 1 + 5 * i : at + 6 + 5 * i]),
                )
                pairs.append(PairMoments(Moments(n, y, y2), Moments(n, x, x2), xy))
            known = (pairs[0], pairs[1])
        segments: tuple[tuple[str, Moments, Moments], ...] = ()
        if plan.novelty_alpha is not None and look == LOOKS - 1:
            early = [Moments(int(e[run, 0]), *(float(v) for v in e[run, 1 + 2 * i : 3 + 2 * i])) for e in t.early]
            late = [Moments(s.n - e.n, s.total - e.total, s.total_squares - e.total_squares) for s, e in zip(slices, early, strict=True)]
            segments = (("early", early[0], early[1]), ("late", late[0], late[1]))
        found[name] = Measured(slices[0], slices[1], known=known, segments=segments)
    return found


# ------------------------------------------------------------------------------------------------ fixed thresholds


@dataclass(frozen=True)
class Thresholds:
    """Hourly checks of the last hour's users: breadth and depth of the candidate at least 1 - tolerance of the control's.

    Ends well after `passes` checks that passed, badly at the first one over `failures` that failed.
    """

    tolerance: float
    passes: int
    failures: int
    counts_failed: bool  # whether a failed check, too, brings the end nearer


ARGO = Thresholds(tolerance=0.05, passes=24, failures=0, counts_failed=True)  # failureLimit 0 is Argo's default; 24 measurements
FLAGGER = Thresholds(tolerance=0.05, passes=5, failures=4, counts_failed=False)  # threshold 5, stepWeight 10, maxWeight 50: its examples


def check(rule: Thresholds, t: Trajectories) -> Decisions:
    """Decide by thresholds, from the first hour that has users with a day behind them (or as good as: such rules know no horizon)."""
    a, b = (h[:, HOURS // 7 :, :] for h in t.hourly)
    hours = a.shape[1]
    ok = np.ones((len(a), hours), bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        for column in (1, 2):
            control, candidate = a[..., column] / a[..., 0], b[..., column] / b[..., 0]
            ok &= ~(candidate < (1 - rule.tolerance) * control)
    failed = (~ok).cumsum(1)
    passed = np.broadcast_to(np.arange(1, hours + 1), (len(a), hours)) if rule.counts_failed else ok.cumsum(1)
    bad, good = failed > rule.failures, passed >= rule.passes
    first_bad, first_good = (np.where(e.any(1), e.argmax(1), hours) for e in (bad, good))
    outcome = np.where(first_bad <= first_good, ROLLBACK, PROMOTE)
    undecided = np.minimum(first_bad, first_good) == hours
    return Decisions(np.where(undecided, INCONCLUSIVE, outcome), np.minimum(first_bad, first_good) + 1)


def tuned(rule: Thresholds, harmless: Trajectories, share: float) -> Thresholds:
    """The rule with the tolerance at which `share` of harmless candidates are rolled back."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        rolled = (check(replace(rule, tolerance=middle), harmless).outcome == ROLLBACK).mean()
        low, high = (middle, high) if rolled > share else (low, middle)
    return replace(rule, tolerance=high)
