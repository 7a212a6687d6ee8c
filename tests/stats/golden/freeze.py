"""Freeze golden values of independent libraries into golden.json. Not run by the tests, which need none of these libraries.

python -m venv /tmp/golden && /tmp/golden/bin/pip install gbstats==0.8.0 statsmodels==0.15.0 scipy==1.17.1
/tmp/golden/bin/python tests/stats/golden/freeze.py
"""

import json
import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gbstats.frequentist.tests import FrequentistConfig, SequentialConfig, SequentialTwoSidedTTest, TwoSidedTTest
from gbstats.models.statistics import SampleMeanStatistic
from scipy.optimize import brentq
from scipy.stats import dirichlet_multinomial, multinomial, norm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import normal_sample_size_one_tail
from statsmodels.stats.proportion import confint_proportions_2indep
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

MEANS = [  # control and candidate: (n, total, total_squares)
    ((387, 150.0, 150.0), (391, 201.0, 201.0)),
    ((387, 262.0, 510.0), (391, 377.0, 823.0)),
    ((10_080, 3024.5, 9801.25), (10_123, 3190.75, 10_544.5)),
    ((40_000, 81_234.0, 402_345.0), (39_870, 84_567.0, 431_234.0)),
    ((250, -12.5, 300.25), (1000, 40.0, 1210.0)),
]


def sample_ratio():
    for counts, expected, concentration in [
        ([430, 431], [1, 1], 100.0),
        ([500, 360], [1, 1], 100.0),
        ([5, 0], [1, 1], 1.0),
        ([100_800, 99_200], [1, 1], 100.0),
        ([900, 120, 80], [8, 1, 1], 50.0),
    ]:
        shares = np.array(expected) / sum(expected)
        n = sum(counts)
        log_factor = dirichlet_multinomial.logpmf(counts, concentration * shares, n) - multinomial.logpmf(counts, n, shares)
        p = min(1.0, math.exp(-log_factor))
        yield {"counts": counts, "expected": expected, "concentration": concentration, "p": p}


def two_sided_sequences():
    for control, candidate in MEANS:
        for alpha, users in [(0.05, 400), (0.00625, 20_000)]:
            config = SequentialConfig(difference_type="absolute", alpha=alpha, sequential_tuning_parameter=users)
            interval = SequentialTwoSidedTTest(statistic(control), statistic(candidate), config).confidence_interval
            yield {"control": control, "candidate": candidate, "alpha": alpha, "optimizeUsers": users, "interval": floats(interval)}


def one_sided_sequences():
    """The boundary of the half-normal mixture itself, of which eq. 134 is an upper bound."""
    for alpha in (0.025, 0.00625, 0.001):
        for information in (0.5, 5.0, 50.0, 5000.0):  # k = t rho^2
            yield {"alpha": alpha, "information": information, "multiplier": half_normal_boundary(alpha, information)}


def half_normal_boundary(alpha, k):
    """Solve 2 exp(x^2 / 2) Phi(x) / sqrt(k + 1) = 1 / alpha for x = multiplier * sqrt(k / (k + 1))."""
    x = brentq(lambda x: math.log(2 * alpha) + x * x / 2 + norm.logcdf(x) - math.log(k + 1) / 2, 0.0, 50.0)
    return x * math.sqrt((k + 1) / k)


def fixed_horizon():
    for control, candidate in MEANS:
        compared = CompareMeans(two_points(candidate), two_points(control))
        _, p = compared.ztest_ind(alternative="larger", usevar="unequal")
        interval = compared.zconfint_diff(alpha=0.05, usevar="unequal")
        yield {"control": control, "candidate": candidate, "p": float(p), "interval": floats(interval)}


def lifts():
    """The delta method's interval (gbstats), and Fieller's found by root search on the contrast."""
    for control, candidate in MEANS[:4]:
        config = FrequentistConfig(difference_type="relative", alpha=0.05)
        delta = TwoSidedTTest(statistic(control), statistic(candidate), config)
        numbers = {"lift": float(delta.point_estimate), "delta": floats(delta.confidence_interval)}
        yield {"control": control, "candidate": candidate, "fieller": fieller(statistic(control), statistic(candidate))} | numbers


def fieller(c, t):
    """The r - 1 at which (mean_T - r mean_C) is 1.96 standard errors above and below zero."""

    def score(r, target):
        return (t.mean - r * c.mean) / math.sqrt(t.variance / t.n + r * r * c.variance / c.n) - target

    z, ratio = norm.ppf(0.975), t.mean / c.mean
    return [brentq(score, -1.0, ratio, args=(z,)) - 1, brentq(score, ratio, 10.0, args=(-z,)) - 1]


def rare_events():
    for events_control, n_control, events_candidate, n_candidate in [(0, 400, 0, 410), (2, 387, 9, 391), (30, 5000, 44, 5100)]:
        interval = confint_proportions_2indep(
            events_candidate, n_candidate, events_control, n_control, method="agresti-caffo", compare="diff", alpha=0.05
        )
        yield {"control": [n_control, events_control], "candidate": [n_candidate, events_candidate], "interval": floats(interval)}


def holm():
    for p_values in [[0.001, 0.02], [0.012, 0.03], [0.013, 0.02], [0.04, 0.001, 0.012, 0.005], [0.006, 0.009, 0.02, 0.025]]:
        rejected = multipletests(p_values, alpha=0.025, method="holm")[0]
        yield {"pValues": p_values, "alpha": 0.025, "rejected": [bool(r) for r in rejected]}


def power():
    for baseline, lift, alpha, wanted in [(0.375, 0.4, 0.0125, 0.9), (0.3, 0.088, 0.025, 0.8), (0.05, -0.2, 0.025, 0.9)]:
        candidate = baseline * (1 + lift)
        sd = math.sqrt(baseline * (1 - baseline) + candidate * (1 - candidate))
        n = normal_sample_size_one_tail(baseline * lift, wanted, alpha, std_null=sd)
        yield {"baseline": baseline, "lift": lift, "alpha": alpha, "power": wanted, "users": math.ceil(n)}
    for cv, lift, alpha, wanted in [(1.5, 0.05, 0.025, 0.9), (3.0, 0.194, 0.0125, 0.8)]:
        n = normal_sample_size_one_tail(lift, wanted, alpha, std_null=cv * math.sqrt(2))
        yield {"cv": cv, "lift": lift, "alpha": alpha, "power": wanted, "users": math.ceil(n)}


def statistic(moments):
    n, total, total_squares = moments
    return SampleMeanStatistic(n=n, sum=total, sum_squares=total_squares)


def two_points(moments):
    """A weighted sample of two values that has these moments."""
    n, total, total_squares = moments
    sd = math.sqrt(total_squares / n - (total / n) ** 2)
    return DescrStatsW(np.array([total / n - sd, total / n + sd]), weights=np.array([n / 2, n / 2]))


def floats(values):
    return [float(v) for v in values]


if __name__ == "__main__":
    parts = (sample_ratio, two_sided_sequences, one_sided_sequences, fixed_horizon, lifts, rare_events, holm, power)
    golden = {"from": {name: version(name) for name in ("scipy", "statsmodels", "gbstats", "numpy")}}
    golden |= {part.__name__: list(part()) for part in parts}
    Path(__file__).with_name("golden.json").write_text(json.dumps(golden, indent=1) + "\n")
