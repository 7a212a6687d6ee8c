"""Users of simulated rollouts, as sums by hour and slice: what the collector would have exported.

Users are drawn one by one (no normal approximation), a million of each kind; an hour's sums are those of blocks of 1, 2, 4 and so on to
128 of them, picked at random with replacement. So sums have the skewness, the zeros and the correlations of users, at the price of
numpy's look-ups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS = ("breadth", "depth", "errors", "fallbacks", "thumbs_down", "thumbs_up")
RARE_MEANS = {
    "errors": 0.02,
    "fallbacks": 0.005,
    "thumbs_down": 0.03,
    "thumbs_up": 0.06,
}  # a user in 24 h; every fourth user has four times
ENGAGED_DEPTH = 6.0  # mean turns after the first, of a user who takes one
HOURS, HORIZON = 168, 24  # of enrolment; until a user matures
LOOKS = HOURS + HORIZON
BLOCK_BITS = 8
KNOWN_SHARE = 0.6  # of users with a pre-period, where it matters
DAY_LEVELS = tuple(NormalDist().inv_cdf((i + 0.5) / 7) for i in range(7))  # of seven equally likely days, in standard deviations


@dataclass(frozen=True)
class Kind:
    """What users of one kind do under one model: share that goes on, CV of depth, and relative effects of the model."""

    breadth: float = 0.5
    cv: float = 1.5
    breadth_lift: float = 0.0
    depth_lift: float = 0.0  # of the turns of those who go on
    errors_factor: float = 1.0
    depth_factor: float = 1.0  # of heavy and light users
    pre_correlation: float | None = None  # of the latent engagement before and after; None: nobody has a pre-period


@lru_cache(maxsize=64)
def _shape(kind: Kind) -> tuple[float, float, float]:
    """(mu, sigma, scale) of depth = 1 + floor(scale * lognormal) of engaged users: their mean, and the CV of all users without effects."""
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / 20000) for i in range(20000)])
    mean = ENGAGED_DEPTH * kind.depth_factor

    def solved(sigma: float, wanted: float) -> float:
        low, high = -5.0, 6.0
        for _ in range(40):
            mu = (low + high) / 2
            low, high = (low, mu) if 1 + np.floor(np.exp(mu + sigma * quantiles)).mean() > wanted else (mu, high)
        return (low + high) / 2

    low, high = 0.05, 2.5
    for _ in range(25):
        sigma = (low + high) / 2
        values = 1 + np.floor(np.exp(solved(sigma, mean) + sigma * quantiles))
        cv = math.sqrt((1 + values.var() / values.mean() ** 2) / kind.breadth - 1)
        low, high = (low, sigma) if cv > kind.cv else (sigma, high)
    sigma = (low + high) / 2
    mu = solved(sigma, mean)
    return mu, sigma, math.exp(solved(sigma, mean * (1 + kind.depth_lift)) - mu)


# Columns of a block's sums: for each metric total and squares (breadth's square is itself), then the pre-period's.
_COLUMNS = 2 * len(METRICS)
_PRE = 11  # known users; of breadth and depth: y, y2, x, x2, xy


def users(kind: Kind, count: int, rng: np.random.Generator) -> Floats:
    """One row a user: each metric's value and its square, then the pre-period's sums if there is one."""
    mu, sigma, scale = _shape(replace(kind, errors_factor=1.0, breadth_lift=0.0, pre_correlation=None))
    share = kind.breadth * (1 + kind.breadth_lift)
    latent = rng.standard_normal((2, count))
    engaged = latent[0] < NormalDist().inv_cdf(share)
    depth = np.where(engaged, 1 + np.floor(scale * np.exp(mu + sigma * latent[1])), 0.0)
    values = [engaged.astype(float), depth]
    often = np.where(rng.random(count) < 0.25, 4.0, 1.0) / 1.75
    for name, mean in RARE_MEANS.items():
        values.append(rng.poisson(often * mean * (kind.errors_factor if name == "errors" else 1.0)).astype(float))
    columns = [column for value in values for column in (value, value * value)]
    if kind.pre_correlation is not None:
        rho = kind.pre_correlation
        before = rho * latent + math.sqrt(1 - rho * rho) * rng.standard_normal((2, count))
        known = rng.random(count) < KNOWN_SHARE
        x_breadth = (before[0] < NormalDist().inv_cdf(kind.breadth)).astype(float)
        x_depth = np.where(x_breadth > 0, 1 + np.floor(np.exp(mu + sigma * before[1])), 0.0)
        columns.append(known.astype(float))
        for y, x in ((values[0], x_breadth), (values[1], x_depth)):
            columns += [known * y, known * y * y, known * x, known * x * x, known * x * y]
    return np.stack(columns, axis=1)


class Pool:
    """Sums of random blocks of users of one kind."""

    def __init__(self, kind: Kind, rng: np.random.Generator, size: int) -> None:
        drawn = users(kind, size, rng)
        self.width = drawn.shape[1]
        self.blocks = [drawn]
        for _ in range(BLOCK_BITS - 1):
            last = rng.permutation(self.blocks[-1])
            self.blocks.append(last[0::2] + last[1::2])

    def sums(self, counts: Ints, rng: np.random.Generator) -> Floats:
        """Sums over `counts` users each; the last axis is the columns."""
        found = np.zeros((*counts.shape, self.width))
        for bit, blocks in enumerate(self.blocks):
            top = bit == BLOCK_BITS - 1
            needed = counts >> bit if top else (counts >> bit) & 1
            for _ in range(int(needed.max(initial=0))):
                mask = needed > 0
                found[mask] += blocks[rng.integers(0, len(blocks), int(mask.sum()))]
                needed = needed - mask
        return found


class Fresh:
    """Sums over users that are drawn for each experiment anew: the check of Pool, and as slow as that."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.width = users(kind, 1, np.random.default_rng(0)).shape[1]

    def sums(self, counts: Ints, rng: np.random.Generator) -> Floats:
        """As Pool.sums."""
        drawn = users(self._kind, int(counts.sum()), rng)
        ends = np.concatenate([np.zeros((1, self.width)), drawn.cumsum(0)])[np.concatenate([[0], counts.ravel().cumsum()])]
        return np.asarray(np.round(np.diff(ends, axis=0)).reshape(*counts.shape, self.width), np.float64)


@dataclass(frozen=True)
class World:
    """Arrivals and effects of a cell. `users` expected a slice in the window."""

    control: Kind = Kind()
    candidate: Kind = Kind()
    users: int = 10_000
    lost: float = 0.0  # share of the candidate's users that is never counted
    day_sd: float = 0.0  # of a day's common factor on breadth
    ramp: bool = False  # 1-5-25-50 % with users who return, instead of even arrivals of new ones
    novelty: float = 0.0  # relative effect on breadth on the first day, halved every two days
    novelty_shared: bool = False  # of both slices, as of a service that has just opened


RAMP = ((0, 0.01), (1, 0.05), (24, 0.25), (48, 0.50))  # hour from which the weight holds
VISITS = {"heavy": (0.2, 1 / 6), "light": (0.8, 1 / 72)}  # share of users, visits an hour


def arrivals(world: World) -> dict[str, Floats]:
    """Expected first exposures a slice by hour, for each sort of user."""
    if not world.ramp:
        return {"all": np.full(LOOKS, world.users / HOURS)}
    found = {}
    for name, (share, rate) in VISITS.items():
        hours = np.arange(LOOKS)
        expected, before = np.zeros(LOOKS), 0.0
        for start, weight in RAMP:
            since = np.maximum(hours - start, 0)
            visiting = np.where(hours >= start, np.exp(-rate * since) - np.exp(-rate * (since + 1)), 0.0)
            expected, before = expected + (weight - before) * share * visiting, weight
        found[name] = expected
    total = sum(float(expected[:HOURS].sum()) for expected in found.values())
    return {name: expected * world.users / total for name, expected in found.items()}


@dataclass
class Trajectories:
    """Cumulative sums at hourly looks: first axis experiments, second looks (hour 1 to 192)."""

    assigned: tuple[Ints, Ints]
    n: tuple[Ints, Ints]  # matured
    sums: tuple[Floats, Floats]  # matured; last axis the columns
    hourly: tuple[Floats, Floats]  # n, breadth and depth of those who matured in the hour
    early: tuple[Floats, Floats] = field(repr=False, default=(np.zeros(0), np.zeros(0)))

    def total(self, slice_: int, metric: str) -> tuple[Floats, Floats]:
        """Totals and squares of a metric."""
        at = 2 * METRICS.index(metric)
        return self.sums[slice_][..., at], self.sums[slice_][..., at + 1]


class Simulator:
    """Draws experiments of a world; pools are kept, as worlds share kinds of users. Without a pool's size every user is drawn anew."""

    def __init__(self, seed: int, pool_size: int | None) -> None:
        self._seed, self._size = seed, pool_size
        self._pools: dict[Kind, Pool | Fresh] = {}

    def pool(self, kind: Kind) -> Pool | Fresh:
        """The pool of a kind; the oldest are let go."""
        if kind not in self._pools:
            while len(self._pools) >= 32:
                self._pools.pop(next(iter(self._pools)))
            rng = np.random.default_rng([self._seed, *repr(kind).encode()])
            self._pools[kind] = Fresh(kind) if self._size is None else Pool(kind, rng, self._size)
        return self._pools[kind]

    def run(self, world: World, runs: int, rng: np.random.Generator) -> Trajectories:
        """`runs` experiments."""
        days = rng.integers(0, len(DAY_LEVELS), (runs, LOOKS // 24)) if world.day_sd else np.zeros((runs, LOOKS // 24), np.int64)
        slices = [self._slice(world, side, days, rng) for side in (0, 1)]
        assigned, n, sums, hourly = (tuple(s[i] for s in slices) for i in range(4))
        return Trajectories(assigned, n, sums, hourly, tuple(s[4] for s in slices))  # type: ignore[arg-type]

    def _slice(self, world: World, side: int, days: Ints, rng: np.random.Generator) -> tuple[Ints, Ints, Floats, Floats, Floats]:
        runs = len(days)
        arrived, exposed = np.zeros((runs, LOOKS), np.int64), None
        keep = 1 - world.lost if side else 1.0
        for name, expected in arrivals(world).items():
            counts = rng.poisson(expected * keep, (runs, LOOKS))
            sums = self._by_day(world, side, name, counts[:, :HOURS], days, rng)
            arrived, exposed = arrived + counts, sums if exposed is None else exposed + sums
        assert exposed is not None
        matured = np.zeros((runs, LOOKS, exposed.shape[-1]))
        matured[:, HORIZON:] = exposed
        n = np.zeros((runs, LOOKS), np.int64)
        n[:, HORIZON:] = arrived[:, :HOURS]
        hourly = np.concatenate([n[..., None], matured[..., [0, 2]]], axis=-1)
        early = np.concatenate([n[:, : HORIZON + HOURS // 2].sum(1)[:, None], matured[:, : HORIZON + HOURS // 2].sum(1)], axis=-1)
        return arrived.cumsum(1), n.cumsum(1), matured.cumsum(1), hourly, early

    def _by_day(self, world: World, side: int, name: str, counts: Ints, days: Ints, rng: np.random.Generator) -> Floats:
        parts = []
        for day in range(HOURS // 24):
            hours = counts[:, day * 24 : (day + 1) * 24]
            width = self.pool(self._kind(world, side, name, day, 0)).width
            part = np.zeros((*hours.shape, width))
            for level in np.unique(days[:, day]):
                chosen = days[:, day] == level
                part[chosen] = self.pool(self._kind(world, side, name, day, int(level))).sums(hours[chosen], rng)
            parts.append(part)
        return np.concatenate(parts, axis=1)

    def _kind(self, world: World, side: int, name: str, day: int, level: int) -> Kind:
        kind = world.candidate if side else world.control
        lift = 1 + kind.breadth_lift
        if world.day_sd:
            lift *= 1 + world.day_sd * DAY_LEVELS[level]
        if world.novelty and (side or world.novelty_shared):
            lift *= 1 + world.novelty * 0.5 ** ((day + 0.5) / 2)
        if name in VISITS:
            heavy = name == "heavy"
            kind = replace(kind, breadth=kind.breadth * (1.5 if heavy else 0.875), depth_factor=2.0 if heavy else 0.75)
        return replace(kind, breadth_lift=round(lift - 1, 9))
