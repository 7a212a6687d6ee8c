"""Freeze golden values of looks, adjustment and ratios into looks.json. Not run by the tests, which need neither numpy nor scipy.

python -m venv /tmp/golden && /tmp/golden/bin/pip install scipy==1.17.1
/tmp/golden/bin/python tests/stats/golden/freeze_looks.py

Boundaries: by root search on scipy's multivariate normal (Genz' quasi-Monte-Carlo integration), not by recursion. Adjustment: by least
squares on users. Ratios: by the linearised values of users.
"""

import json
import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.stats import multivariate_normal, norm


def spent(t, alpha, spending):
    if spending == "Pocock":
        return alpha * math.log(1 + (math.e - 1) * min(1, t))
    return 2 * norm.sf(norm.isf(alpha / 2) / math.sqrt(min(1, t)))


def boundaries():
    for fractions, alpha, spending, last in [
        ([0.2, 0.4, 0.6, 0.8, 1.0], 0.025, "OBrienFleming", False),
        ([0.2, 0.4, 0.6, 0.8, 1.0], 0.0125, "Pocock", False),
        ([0.5, 1.0], 0.025, "OBrienFleming", False),
        ([0.31, 0.42, 0.9], 0.025, "OBrienFleming", True),
        ([0.25, 0.5, 0.93], 0.0125, "Pocock", True),
        ([0.45, 0.8, 1.13], 0.025, "Pocock", False),
    ]:
        bounds = []
        for k, t in enumerate(fractions):
            target = 1 - (alpha if last and k == len(fractions) - 1 else spent(t, alpha, spending))
            bounds.append(solve(fractions[: k + 1], bounds, target))
        yield {"fractions": fractions, "alpha": alpha, "spending": spending, "last": last, "bounds": bounds}


def solve(fractions, before, target):
    return brentq(lambda bound: below(fractions, [*before, bound]) - target, 1.0, 6.0, xtol=1e-5)


def below(fractions, bounds):
    if len(bounds) == 1:
        return float(norm.cdf(bounds[0]))
    t = np.array(fractions)
    correlation = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    return float(multivariate_normal.cdf(bounds, cov=correlation, abseps=1e-6, releps=1e-6, maxpts=200_000, rng=np.random.default_rng(1)))


def people(seed, n, lift, known_share):
    """Users: known or not, covariate, metric."""
    rng = np.random.default_rng(seed)
    taste = rng.gamma(1.2, 1.0, n)
    known = rng.random(n) < known_share
    return known, rng.poisson(3 * taste), rng.poisson(2 * taste * (1 + lift))


def adjusted():
    for seed, sizes, lift, share in [(1, (400, 430), 0.1, 0.6), (2, (900, 850), -0.05, 0.3), (3, (300, 300), 0.0, 1.0)]:
        slices = [people(seed * 10 + side, n, lift * side, share) for side, n in enumerate(sizes)]
        known = [(x[k], y[k]) for k, x, y in slices]
        rows = [(1.0, float(side), float(x)) for side, (xs, _) in enumerate(known) for x in xs]
        outcome = np.concatenate([ys for _, ys in known]).astype(float)
        _, effect, slope = np.linalg.lstsq(np.array(rows), outcome, rcond=None)[0]
        weight = sum(len(x) for x, _ in known) / sum(sizes)
        left = [np.var(y - slope * x, ddof=1) / len(y) for x, y in known]
        new = [y[~k] for k, _, y in slices]
        difference, squared_error = weight * effect, weight**2 * sum(left)
        if share < 1:
            difference += (1 - weight) * (new[1].mean() - new[0].mean())
            squared_error += (1 - weight) ** 2 * sum(np.var(y, ddof=1) / len(y) for y in new)
        moments = [{"all": three(y), "y": three(y[k]), "x": three(x[k]), "cross": int((x[k] * y[k]).sum())} for k, x, y in slices]
        yield {"slices": moments, "difference": float(difference), "standardError": math.sqrt(squared_error)}


def ratios():
    for seed, n in [(5, 250), (6, 2000)]:
        _, messages, _ = people(seed, n, 0.0, 1.0)
        messages = messages + 1
        thumbs = np.random.default_rng(seed + 1).binomial(messages, 0.04)
        value = thumbs.sum() / messages.sum()
        error = math.sqrt(np.var((thumbs - value * messages) / messages.mean(), ddof=1) / n)
        yield {
            "y": three(thumbs),
            "x": three(messages),
            "cross": int((thumbs * messages).sum()),
            "ratio": float(value),
            "standardError": error,
        }


def three(values):
    return [len(values), int(values.sum()), int((values**2).sum())]


if __name__ == "__main__":
    frozen = {"from": {name: version(name) for name in ("scipy", "numpy")}}
    frozen |= {part.__name__: list(part()) for part in (boundaries, adjusted, ratios)}
    Path(__file__).with_name("looks.json").write_text(json.dumps(frozen, indent=1) + "\n")
