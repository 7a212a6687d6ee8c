"""The verdict at the demo's size, on simulated users (dev/bench/verdict_demo.py prints more); bands are wide, runs few and seeded."""

from __future__ import annotations

import pytest

from dev.bench.verdict_demo import SCENARIOS, simulate
from flywheel.stats.verdict import Outcome

RUNS = 200


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name.startswith("A/A")])
def test_a_model_that_changes_nothing_is_rarely_promoted_or_rolled_back(name: str) -> None:
    tally = simulate(SCENARIOS[name], RUNS, seed=11)
    assert tally.share(Outcome.PROMOTE) <= 0.05
    assert tally.share(Outcome.ROLLBACK) <= 0.04
    assert tally.share(Outcome.HOLD) <= 0.01


def test_a_model_that_users_like_better_is_promoted() -> None:
    assert simulate(SCENARIOS["30 % -> 50 % (promote)"], RUNS, seed=12).share(Outcome.PROMOTE) >= 0.95


def test_a_model_that_users_like_less_is_rolled_back_well_before_the_window_ends() -> None:
    tally = simulate(SCENARIOS["55 % -> 30 % (roll back)"], RUNS, seed=13)
    assert tally.share(Outcome.ROLLBACK) >= 0.95
    assert sorted(tally.rollback_seconds)[len(tally.rollback_seconds) // 2] <= 100


def test_a_slightly_worse_model_is_never_promoted() -> None:
    assert simulate(SCENARIOS["55 % -> 45 % (never promote)"], 100, seed=14).share(Outcome.PROMOTE) == 0


def test_a_model_that_fails_its_users_is_rolled_back() -> None:
    assert simulate(SCENARIOS["errors 0.2 % -> 20 % (roll back)"], 100, seed=15).share(Outcome.ROLLBACK) >= 0.95


def test_a_lift_among_lost_users_is_held_rather_than_promoted() -> None:
    tally = simulate(SCENARIOS["30 % -> 50 %, a third uncounted (hold)"], 100, seed=16)
    assert tally.share(Outcome.HOLD) >= 0.8
