"""Adjustment by the pre-period, and ratios of two totals."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.stats.contrast import contrast
from flywheel.stats.cuped import Stratified, adjusted, explained
from flywheel.stats.moments import Moments, PairMoments
from flywheel.stats.ratio import ratio, with_one_event

LOOKS = json.loads((Path(__file__).parent / "golden" / "looks.json").read_text())


def pair(case: dict[str, Any]) -> PairMoments:
    return PairMoments(Moments(*case["y"]), Moments(*case["x"]), case["cross"])


def pairs_of(users: list[tuple[int, int]]) -> PairMoments:
    ys, xs = [y for y, _ in users], [x for _, x in users]
    y, x = (Moments(len(v), sum(v), sum(a * a for a in v)) for v in (ys, xs))
    return PairMoments(y, x, sum(a * b for a, b in users))


people = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=5, max_size=40)


@pytest.mark.parametrize("case", LOOKS["adjusted"])
def test_the_adjusted_difference_is_that_of_least_squares_on_users(case: dict[str, Any]) -> None:
    slices = [Stratified(Moments(*s["all"]), pair(s)) for s in case["slices"]]
    found = adjusted(slices[0], slices[1])
    assert found is not None
    difference = contrast(*found, 1)
    assert difference.estimate == pytest.approx(case["difference"], rel=1e-9)
    assert difference.standard_error == pytest.approx(case["standardError"], rel=1e-9)
    plain = contrast(slices[0].all_users, slices[1].all_users, 1)
    assert difference.standard_error < plain.standard_error
    assert 0 < explained(slices[0].known) < 1


@pytest.mark.parametrize("case", LOOKS["ratios"])
def test_a_ratios_error_is_that_of_linearised_users(case: dict[str, Any]) -> None:
    found = ratio(pair(case))
    assert found.mean == pytest.approx(case["ratio"], rel=1e-12)
    assert math.sqrt(found.variance / found.n) == pytest.approx(case["standardError"], rel=1e-9)


@given(people, people)
def test_the_order_of_the_slices_only_flips_the_sign(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    control, candidate = (Stratified(pairs_of(users).y, pairs_of(users)) for users in (a, b))
    there, back = adjusted(control, candidate), adjusted(candidate, control)
    assert (there is None) == (back is None)
    if there and back:
        assert contrast(*there, 1).estimate == pytest.approx(-contrast(*back, 1).estimate, abs=1e-9)


@given(people)
def test_equal_slices_stay_equal(users: list[tuple[int, int]]) -> None:
    same = Stratified(pairs_of(users).y, pairs_of(users))
    if found := adjusted(same, same):
        assert contrast(*found, 1).estimate == 0


@given(people, st.integers(1, 50))
def test_the_unit_of_the_pre_period_changes_nothing(users: list[tuple[int, int]], unit: int) -> None:
    half = len(users) // 2
    found = []
    for scale in (1, unit):
        parts = [pairs_of([(y, x * scale) for y, x in part]) for part in (users[:half], users[half:])]
        found.append(adjusted(*(Stratified(p.y, p) for p in parts)))
    assert (found[0] is None) == (found[1] is None)
    if found[0] and found[1]:
        assert contrast(*found[0], 1).estimate == pytest.approx(contrast(*found[1], 1).estimate, abs=1e-9)


def test_nothing_is_adjusted_by_a_pre_period_in_which_all_did_the_same_or_with_one_user_in_a_stratum() -> None:
    flat = pairs_of([(y, 3) for y in range(6)])
    assert adjusted(Stratified(flat.y, flat), Stratified(flat.y, flat)) is None
    known = pairs_of([(y, y % 3) for y in range(6)])
    one_new = known.y.merge(Moments(1, 2, 4))
    assert adjusted(Stratified(one_new, known), Stratified(one_new, known)) is None


def test_more_known_users_than_users_are_refused() -> None:
    with pytest.raises(ValueError, match="known: expected at most 2 users, got 3"):
        Stratified(Moments(2, 1, 1), pairs_of([(1, 1)] * 3))


def test_a_ratio_without_denominators_is_refused() -> None:
    with pytest.raises(ValueError, match="denominator"):
        ratio(pairs_of([(0, 0), (0, 0)]))


def test_a_ratio_without_events_still_has_an_error_after_the_adjustment_of_rare_events() -> None:
    quiet = pairs_of([(0, 4), (0, 6), (0, 5)] * 50)
    assert ratio(quiet).variance == 0
    assert ratio(with_one_event(quiet)).variance > 0


@pytest.mark.parametrize("cross", [1e6, float("nan"), "7"])
def test_products_that_no_users_have_are_refused(cross: Any) -> None:
    with pytest.raises(ValueError, match="cross"):
        PairMoments(Moments(4, 4, 6), Moments(4, 8, 20), cross)
