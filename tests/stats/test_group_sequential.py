"""Boundaries of a few looks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.stats.group_sequential import MAX_LOOKS, NEVER, Spending, boundaries, crossing_probabilities, spent

LOOKS = json.loads((Path(__file__).parent / "golden" / "looks.json").read_text())
FIVE = [0.2, 0.4, 0.6, 0.8, 1.0]


@pytest.mark.parametrize("case", LOOKS["boundaries"])
def test_boundaries_are_those_of_an_independent_integration(case: dict[str, Any]) -> None:
    found = boundaries(case["fractions"], case["alpha"], case["spending"], last=case["last"])
    assert found == pytest.approx(case["bounds"], abs=2e-3)  # quasi-Monte-Carlo there


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        ("OBrienFleming", (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
        ("Pocock", (2.4380, 2.4268, 2.4101, 2.3966, 2.3859)),
    ],
)
def test_boundaries_are_the_published_ones_of_lan_and_demets(spending: Spending, published: tuple[float, ...]) -> None:
    assert boundaries(FIVE, 0.025, spending) == pytest.approx(published, abs=2e-4)


@pytest.mark.parametrize(("looks", "published"), [(2, 0.042), (4, 0.063), (10, 0.097), (20, 0.124)])
def test_repeated_looks_at_one_bound_err_as_often_as_published(looks: int, published: float) -> None:
    crossed = sum(crossing_probabilities(range(1, looks + 1), [1.959964] * looks, 0.0))
    assert crossed == pytest.approx(published, abs=5e-4)  # Armitage, McPherson and Rowe's table, one side


@pytest.mark.parametrize("spending", ["OBrienFleming", "Pocock"])
def test_one_look_is_the_ordinary_test(spending: Spending) -> None:
    assert boundaries([1.0], 0.025, spending) == pytest.approx((1.959964,), abs=1e-5)
    assert boundaries([0.37], 0.025, spending, last=True) == pytest.approx((1.959964,), abs=1e-5)


def test_a_look_with_next_to_no_information_rejects_nothing() -> None:
    assert boundaries([0.01], 0.025, "OBrienFleming") == (NEVER,)


def test_a_look_that_learnt_next_to_nothing_since_the_last_one_is_still_safe() -> None:
    fractions = [0.5, 0.50001]
    assert sum(crossing_probabilities(fractions, boundaries(fractions, 0.025, "Pocock", last=True), 0.0)) <= 0.02501


increasing = st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True).map(lambda xs: [x / 50 for x in sorted(xs)])
spendings = st.sampled_from(["OBrienFleming", "Pocock"])


@settings(max_examples=25, deadline=None)
@given(increasing, spendings, st.sampled_from([0.025, 0.0125, 0.1]), st.booleans())
def test_whatever_the_looks_no_more_than_alpha_is_spent(fractions: list[float], spending: Spending, alpha: float, last: bool) -> None:
    crossed = sum(crossing_probabilities(fractions, boundaries(fractions, alpha, spending, last=last), 0.0))
    assert crossed <= alpha + 1e-6
    if last or fractions[-1] >= 1:
        assert crossed == pytest.approx(alpha, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(increasing, spendings)
def test_a_smaller_alpha_asks_for_more(fractions: list[float], spending: Spending) -> None:
    strict, lax = (boundaries(fractions, alpha, spending, last=True) for alpha in (0.01, 0.02))
    assert all(a >= b for a, b in zip(strict, lax, strict=True))


@given(st.floats(0, 1), st.floats(0, 1), spendings)
def test_spending_grows_with_information(a: float, b: float, spending: Spending) -> None:
    low, high = sorted((a, b))
    assert spent(low, 0.025, spending) <= spent(high, 0.025, spending) <= 0.025 + 1e-12


@pytest.mark.parametrize("fractions", [[], [0.5, 0.5], [0.6, 0.4], [0.0], [float("nan")], [i / 50 for i in range(1, MAX_LOOKS + 2)]])
def test_looks_that_are_none_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="fractions"):
        boundaries(fractions, 0.025, "Pocock")


def test_an_unknown_spending_is_refused() -> None:
    with pytest.raises(ValueError, match="expected OBrienFleming or Pocock, got 'Haybittle'"):
        boundaries([0.5], 0.025, "Haybittle")  # type: ignore[arg-type]
