"""Verdicts by other methods than one test of plain means at the window's end."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.stats.methods import look_at
from flywheel.stats.verdict import (
    AlwaysValid,
    AnalysisPlan,
    Evidence,
    FixedHorizon,
    GroupSequential,
    Measured,
    MetricPlan,
    Moments,
    NoData,
    Outcome,
    Reason,
    assess,
)
from tests.stats.strategies import enough
from tests.stats.test_pairs import pairs_of

BREADTH = MetricPlan("breadth", "Success", "Increase", margin=0.05)
PLAN = AnalysisPlan(metrics=(BREADTH,), minimum_users=100)
FEW = replace(PLAN, method=GroupSequential(1000, looks=4))
ANY = replace(PLAN, method=AlwaysValid(1000))


def seen(n: int, control: int, candidate: int, *, over: bool = False, looks: tuple[float, ...] = (), **rest: Any) -> Evidence:
    measured = Measured(Moments(n, control, control), Moments(n, candidate, candidate), **rest)
    return Evidence((n, n), {"breadth": measured}, over, looks)


# ------------------------------------------------------------------------------------------------ a few looks


def test_success_is_tested_only_when_a_look_is_due() -> None:
    before, due = (assess(FEW, seen(n, round(n * 0.3), round(n * 0.6))) for n in (240, 250))
    assert (before.outcome, before.look) == (Outcome.CONTINUE, None)
    assert (due.outcome, due.look) == (Outcome.PROMOTE, 0.25)


def test_a_look_asks_for_more_than_the_ordinary_test() -> None:
    strong = seen(500, 150, 190)  # one-sided p about 0.003
    assert assess(PLAN, replace(strong, window_over=True)).outcome is Outcome.PROMOTE
    found = assess(FEW, strong)
    assert (found.outcome, found.reason, found.look) == (Outcome.CONTINUE, Reason.ENROLLING, 0.5)
    assert found.message.startswith("not yet: no success metric is proven better: ")
    assert assess(replace(FEW, method=GroupSequential(1000, 4, "Pocock")), strong).outcome is Outcome.PROMOTE


def test_a_look_that_was_done_is_not_done_again() -> None:
    again = assess(FEW, seen(520, 150, 260, looks=(0.25, 0.5)))
    assert (again.outcome, again.look) == (Outcome.CONTINUE, None)


def test_the_planned_users_end_the_experiment_before_the_window_does() -> None:
    found = assess(FEW, seen(1000, 300, 300, looks=(0.25, 0.5, 0.75)))
    assert (found.outcome, found.reason, found.look) == (Outcome.INCONCLUSIVE, Reason.NO_SIGNIFICANT_LIFT, 1.0)


def test_the_windows_end_is_the_last_look_and_has_all_that_is_left_of_alpha() -> None:
    weak = seen(700, 210, 250, over=True, looks=(0.25, 0.5))  # one-sided p about 0.012
    assert assess(FEW, weak).outcome is Outcome.PROMOTE
    assert assess(FEW, replace(weak, window_over=False)).outcome is Outcome.CONTINUE


def test_a_missing_metric_is_no_look() -> None:
    plan = replace(FEW, metrics=(BREADTH, MetricPlan("errors", "Guardrail", "Decrease", absolute_margin=0.05)))
    found = assess(plan, seen(500, 150, 300))
    assert (found.outcome, found.reason, found.look) == (Outcome.CONTINUE, Reason.NO_DATA, None)


def test_the_smaller_slice_counts_as_information() -> None:
    assert look_at(GroupSequential(1000, 4), 0.025, [(400, 200)], (), window_over=False).fraction == 0.27  # harmonic mean 267
    assert not look_at(GroupSequential(1000, 4), 0.025, [], (), window_over=False).due


@given(st.integers(100, 3000), st.lists(st.integers(1, 99), max_size=6, unique=True), st.booleans())
def test_information_of_looks_only_grows(n: int, earlier: list[int], over: bool) -> None:
    looks = tuple(sorted(e / 100 for e in earlier))
    look = look_at(GroupSequential(1000, 5), 0.025, [(n, n)], looks, window_over=over)
    assert not look.due or (look.fraction is not None and look.fraction > (looks[-1] if looks else 0))
    assert look.due or not look.final


# ------------------------------------------------------------------------------------------------ at any time


def test_an_always_valid_test_promotes_as_soon_as_it_is_sure() -> None:
    found = assess(ANY, seen(500, 150, 250))
    assert (found.outcome, found.look) == (Outcome.PROMOTE, None)
    assert assess(ANY, seen(500, 150, 190)).outcome is Outcome.CONTINUE


@settings(max_examples=50)
@given(enough(100), enough(100), st.sampled_from([FEW, ANY]))
def test_whoever_looks_early_never_promotes_what_the_ordinary_test_would_not(a: Moments, b: Moments, plan: AnalysisPlan) -> None:
    early = Evidence((5000, 5000), {"breadth": Measured(a, b)}, window_over=False)
    if assess(plan, early).outcome is Outcome.PROMOTE:
        assert assess(PLAN, replace(early, window_over=True)).outcome is Outcome.PROMOTE


@settings(max_examples=50)
@given(enough(100), enough(100), st.sampled_from([PLAN, FEW, ANY]), st.booleans())
def test_no_method_promotes_both_of_two_slices(a: Moments, b: Moments, plan: AnalysisPlan, over: bool) -> None:
    found = [assess(plan, Evidence((5000, 5000), {"breadth": Measured(*both)}, over)).outcome for both in ((a, b), (b, a))]
    assert found.count(Outcome.PROMOTE) <= 1


@pytest.mark.parametrize("plan", [FEW, ANY])
def test_no_method_decides_without_numbers_or_on_a_broken_split(plan: AnalysisPlan) -> None:
    assert assess(plan, Evidence((500, 500), {"breadth": NoData()}, False)).outcome is Outcome.CONTINUE
    assert assess(plan, Evidence((500, 500), {"breadth": NoData()}, True)).outcome is Outcome.NO_VERDICT
    assert assess(plan, replace(seen(500, 150, 250), assigned=(900, 500))).outcome is Outcome.HOLD


# ------------------------------------------------------------------------------------------------ pre-period and ratios


def test_a_pre_period_finds_what_plain_means_do_not() -> None:
    control = pairs_of([(x % 10, x % 10) for x in range(400)])
    candidate = pairs_of([(x % 10 + (x % 4 == 0), x % 10) for x in range(400)])
    plan = AnalysisPlan(metrics=(MetricPlan("depth", "Success", "Increase"),), minimum_users=100)
    evidence = Evidence((400, 400), {"depth": Measured(control.y, candidate.y, known=(control, candidate))}, True)
    assert assess(plan, evidence).outcome is Outcome.INCONCLUSIVE
    assert assess(replace(plan, cuped=True), evidence).outcome is Outcome.PROMOTE


def test_without_a_pre_period_the_plain_means_are_compared() -> None:
    evidence = seen(500, 150, 250, over=True)
    assert assess(replace(PLAN, cuped=True), evidence) == assess(PLAN, evidence)


def test_a_metric_per_message_is_a_ratio_and_not_a_mean_a_user() -> None:
    # The candidate's users write twice as much, and are annoyed half as often a message.
    control, candidate = pairs_of([(i % 5 == 0, 2) for i in range(500)]), pairs_of([(i % 5 == 0, 4) for i in range(500)])
    evidence = Evidence((500, 500), {"thumbs_down": Measured(control.y, candidate.y, messages=(control, candidate))}, True)
    a_user = AnalysisPlan(metrics=(MetricPlan("thumbs_down", "Success", "Decrease"),), minimum_users=100)
    a_message = replace(a_user, metrics=(replace(a_user.metrics[0], per_message=True),))
    assert assess(a_user, evidence).outcome is Outcome.INCONCLUSIVE
    found = assess(a_message, evidence)
    assert found.outcome is Outcome.PROMOTE
    assert (found.estimates[0].mean_control, found.estimates[0].mean_candidate) == (0.1, 0.05)
    assert assess(a_message, seen(500, 1, 1, over=True)).reason is Reason.NO_DATA


# ------------------------------------------------------------------------------------------------ vetoes


def with_segment(name: str, control: int, candidate: int, n: int = 300) -> Evidence:
    part = (name, Moments(n, control, control), Moments(n, candidate, candidate))
    return seen(1000, 300, 400, over=True, segments=(part,))


def test_a_harmed_segment_stops_a_promotion_and_rolls_nothing_back() -> None:
    plan = replace(PLAN, segments=("de",))
    assert assess(plan, with_segment("de", 90, 95)).outcome is Outcome.PROMOTE
    found = assess(plan, with_segment("de", 120, 60))
    assert (found.outcome, found.reason) == (Outcome.INCONCLUSIVE, Reason.SEGMENT_HARM)
    assert "breadth of segment de -0.2 a user (600 users)" in found.message
    assert assess(plan, replace(with_segment("de", 120, 60), window_over=False)).outcome is Outcome.CONTINUE


def test_a_segment_of_too_few_users_stops_nothing() -> None:
    assert assess(replace(PLAN, segments=("de",)), with_segment("de", 60, 10, n=99)).outcome is Outcome.PROMOTE


def test_a_segment_that_is_not_measured_is_no_data() -> None:
    found = assess(replace(PLAN, segments=("de", "fr")), with_segment("de", 90, 95))
    assert (found.outcome, found.reason, found.message) == (Outcome.NO_VERDICT, Reason.NO_DATA, "segment fr of breadth has no data")


def halves(early: tuple[int, int], late: tuple[int, int]) -> Evidence:
    parts = [(name, *(Moments(1000, t, t) for t in totals)) for name, totals in (("early", early), ("late", late))]
    return seen(2000, early[0] + late[0], early[1] + late[1], over=True, segments=tuple(parts))


def test_a_lift_that_wore_off_is_not_promoted() -> None:
    plan = replace(PLAN, novelty_alpha=0.05)
    found = assess(plan, halves((300, 450), (300, 305)))
    assert (found.outcome, found.reason) == (Outcome.INCONCLUSIVE, Reason.NOVELTY_WORN_OFF)
    assert "+0.15 a user among those who came early, +0.005 among those who came late" in found.message
    assert assess(PLAN, halves((300, 450), (300, 305))).outcome is Outcome.PROMOTE


def test_a_lift_that_became_smaller_and_is_still_proven_is_promoted() -> None:
    assert assess(replace(PLAN, novelty_alpha=0.05), halves((300, 450), (300, 370))).outcome is Outcome.PROMOTE


# ------------------------------------------------------------------------------------------------ what is stored


plans = st.builds(
    lambda method, cuped, segments, novelty, end: replace(
        PLAN, method=method, cuped=cuped, segments=segments, novelty_alpha=novelty, sample_ratio_at_end=end
    ),
    st.sampled_from([FixedHorizon(), GroupSequential(500, 3, "Pocock"), AlwaysValid(50)]),
    st.booleans(),
    st.sampled_from([(), ("de",), ("de", "known")]),
    st.sampled_from([None, 0.05]),
    st.booleans(),
)
people = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=100, max_size=140)


@settings(max_examples=40)
@given(plans, people, people, st.sampled_from([(), (0.2,)]), st.booleans())
def test_a_stored_decision_of_any_plan_replays_to_the_same_answer(
    plan: AnalysisPlan, a: list[tuple[int, int]], b: list[tuple[int, int]], looks: tuple[float, ...], over: bool
) -> None:
    control, candidate = pairs_of(a), pairs_of(b)
    parts = tuple((name, control.y, candidate.y) for name in ("de", "early", "late"))
    measured = Measured(control.y, candidate.y, known=(control, candidate), messages=(control, candidate), segments=parts)
    evidence = Evidence((150, 150), {"breadth": measured}, over, looks)
    stored = json.loads(json.dumps([plan.to_dict(), evidence.to_dict()]))
    assert AnalysisPlan.from_dict(stored[0]) == plan
    assert assess(AnalysisPlan.from_dict(stored[0]), Evidence.from_dict(stored[1])) == assess(plan, evidence)


def test_a_plan_that_asks_for_nothing_new_is_stored_as_before_there_was_a_choice() -> None:
    assert set(PLAN.to_dict()) == {"metrics", "alpha", "harmAlpha", "sampleRatioAlpha", "minimumUsers"}
    assert set(seen(100, 1, 1).to_dict()) == {"metrics", "windowOver", "assigned"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": {"type": "GroupSequential", "users": 1, "looks": 5, "spending": "Pocock"}}, "users: expected at least 2, got 1"),
        ({"method": {"type": "GroupSequential", "users": 9, "looks": 11, "spending": "Pocock"}}, "looks: expected 2 to 10, got 11"),
        ({"method": {"type": "Bayes"}}, "method.type: expected FixedHorizon, GroupSequential or AlwaysValid, got 'Bayes'"),
        ({"segments": ["a", "a"]}, "segments: expected distinct names"),
        ({"noveltyAlpha": 0.7}, "novelty_alpha"),
        ({"cuped": "yes"}, "cuped: expected true or false, got 'yes'"),
    ],
)
def test_a_stored_plan_that_makes_no_sense_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AnalysisPlan.from_dict(PLAN.to_dict() | change)


# ------------------------------------------------------------------------------------------------ the sample ratio at the end


def test_a_loss_that_the_test_at_all_looks_misses_is_held_when_the_window_is_over() -> None:
    plan = replace(PLAN, sample_ratio_at_end=True)
    lost = replace(seen(9000, 3000, 3300, over=True), assigned=(10_000, 9480))  # z = 3.7
    assert assess(PLAN, lost).outcome is Outcome.PROMOTE
    assert assess(plan, lost).outcome is Outcome.HOLD
    assert assess(plan, replace(lost, window_over=False)).outcome is Outcome.CONTINUE
