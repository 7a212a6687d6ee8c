"""Intervals are honest: they hold the truth about as often as they say."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_trainers import comparison, estimates
from flywheel_trainers.methods.evaluate import _safety, _significant
from flywheel_trainers.scoring import Reward

scores = st.lists(st.floats(0, 1), min_size=1, max_size=50)


@given(scores)
def test_the_mean_is_inside_its_interval_and_the_interval_inside_zero_and_one(values: list[float]) -> None:
    e = estimates.of_scores(values)
    assert -1e-9 <= e.lower <= e.mean + 1e-9
    assert e.mean - 1e-9 <= e.upper <= 1 + 1e-9


def test_the_t_interval_covers_the_truth() -> None:
    r = random.Random(0)
    hits = 0
    for _ in range(1000):
        e = estimates.of_scores([r.betavariate(3, 2) for _ in range(20)])
        hits += e.lower <= 0.6 <= e.upper
    assert 930 <= hits <= 970


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)])
def test_the_t_quantile_is_the_one_in_the_table(degrees: int, quantile: float) -> None:
    assert estimates.t_quantile(degrees) == pytest.approx(quantile, rel=0.006)


def test_winning_every_prompt_is_not_certainty() -> None:
    e = estimates.of_scores([1.0] * 20)
    assert e.mean == 1
    assert 0.8 < e.lower < 0.9


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_what_one_side_wins_the_other_loses_and_ties_are_halved(a: list[int], b: list[int]) -> None:
    ours, theirs = [float(x) for x in a], [float(x) for x in b]
    assert estimates.win_score(ours, theirs) + estimates.win_score(theirs, ours) == pytest.approx(1)
    assert estimates.win_score(ours, ours) == pytest.approx(0.5)


def test_judges_count_by_their_weights() -> None:
    likes_long = Reward("long", 3.0, lambda pairs: [float(len(reply)) for _, reply in pairs])
    likes_short = Reward("short", 1.0, lambda pairs: [-float(len(reply)) for _, reply in pairs])
    prompts = [[{"role": "user", "content": "hi"}]]
    assert comparison.prompt_scores([likes_long, likes_short], prompts, [["long reply"]], [["short"]]) == [0.75]


@pytest.mark.parametrize(
    ("user", "internal", "significant"),
    [(0.7, 0.44, True), (0.44, 0.7, True), (0.6, 0.57, False)],
)
def test_divergence_counts_whichever_set_is_ahead_once_it_is_beyond_doubt(user: float, internal: float, significant: bool) -> None:
    divergence = estimates.difference(estimates.Estimate(user, 0, 1, 0.02), estimates.Estimate(internal, 0, 1, 0.02))
    assert (_significant(divergence) > 0.15) == significant


def test_safety_that_nobody_measured_is_not_reported_as_safe() -> None:
    assert _safety([]) == {}
    assert _safety([["I can't help with that.", "Sure, first take"]]) == {"safety_violation_rate": 0.5}
