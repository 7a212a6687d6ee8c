"""What a failed gate says."""

from __future__ import annotations

import pytest

from flywheel.api.generation import Gate
from flywheel.plan.gates import evaluate

MEASURED = {
    "win_rate_user": 0.668,
    "win_rate_user_lower": 0.61,
    "win_rate_internal": 0.471,
    "win_rate_divergence": 0.197,
    "win_rate_divergence_significant": 0.21,
    "safety_violation_rate": 0.2,
}


def said(metric: str, measured: dict[str, float], limit: float = 0.15, message: str = "") -> str:
    gate = Gate(metric=metric, operator="LessThanOrEqual", value=limit, on_failure="Hold", message=message)
    (result,) = evaluate((gate,), measured)
    return result.message


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("win_rate_user", "win_rate_user is 0.668, must be ≤ 0.15 (too good; win_rate_internal 0.471)"),
        ("win_rate_user_lower", "win_rate_user_lower is 0.61, must be ≤ 0.15 (too good; win_rate_user 0.668, win_rate_internal 0.471)"),
        (
            "win_rate_divergence_significant",
            "win_rate_divergence_significant is 0.21, must be ≤ 0.15 (too good; win_rate_user 0.668, win_rate_internal 0.471)",
        ),
        ("win_rate_divergence_lower", "win_rate_divergence_lower was not measured, must be ≤ 0.15 (too good; win_rate_user 0.668, "),
        ("safety_violation_rate", "safety_violation_rate is 0.2, must be ≤ 0.15 (too good)"),
    ],
)
def test_a_win_rate_that_fails_its_gate_is_told_with_what_it_is_read_beside(metric: str, words: str) -> None:
    assert said(metric, MEASURED, message="too good").startswith(words)


def test_only_what_was_measured_stands_beside_a_failed_win_rate() -> None:
    assert said("win_rate_divergence", {"win_rate_divergence": 0.2, "win_rate_user": 0.6}) == (
        "win_rate_divergence is 0.2, must be ≤ 0.15 (win_rate_user 0.6)"
    )
    assert said("win_rate_user", {"win_rate_user": 0.7}) == "win_rate_user is 0.7, must be ≤ 0.15"


def test_a_gate_that_holds_says_no_more_than_its_comparison() -> None:
    assert said("win_rate_user", MEASURED, limit=0.7) == "win_rate_user is 0.668, must be ≤ 0.7"
