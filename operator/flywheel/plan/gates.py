"""Gates: limits on what a stage measured. A missing metric fails."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping

from flywheel.api.generation import Gate, GateResult

COMPARE = {
    "GreaterThan": (operator.gt, ">"),
    "GreaterThanOrEqual": (operator.ge, "≥"),
    "LessThan": (operator.lt, "<"),
    "LessThanOrEqual": (operator.le, "≤"),
}
BOTH = ("win_rate_user", "win_rate_internal")
# What a failed gate's metric is read beside: whether a model is too good, or the prompt sets disagree, only the pair tells.
BESIDE = {
    "win_rate_user": ("win_rate_internal",),
    "win_rate_user_lower": BOTH,
    "win_rate_user_upper": BOTH,
    "win_rate_internal_upper": BOTH,
    "win_rate_divergence": BOTH,
    "win_rate_divergence_lower": BOTH,
    "win_rate_divergence_significant": BOTH,
}
SEVERITY = ("Reject", "Hold", "Warn")


def evaluate(gates: Iterable[Gate], metrics: Mapping[str, float]) -> tuple[GateResult, ...]:
    """What each gate says of the metrics."""
    return tuple(_one(gate, metrics) for gate in gates)


def _one(gate: Gate, metrics: Mapping[str, float]) -> GateResult:
    compare, sign = COMPARE[gate.operator]
    value = metrics.get(gate.metric)
    passed = value is not None and bool(compare(value, gate.value))
    measured = "was not measured" if value is None else f"is {value:.4g}"
    text = f"{gate.metric} {measured}, must be {sign} {gate.value:g}"
    beside = ", ".join(f"{name} {metrics[name]:.4g}" for name in BESIDE.get(gate.metric, ()) if name in metrics)
    if not passed and (remarks := [remark for remark in (gate.message, beside) if remark]):
        text += f" ({'; '.join(remarks)})"
    return GateResult(
        metric=gate.metric, operator=gate.operator, limit=gate.value, value=value, passed=passed, on_failure=gate.on_failure, message=text
    )


def worst_failure(results: Iterable[GateResult]) -> str | None:
    """`Reject`, `Hold`, `Warn`, or None when every gate passed."""
    failed = {result.on_failure for result in results if not result.passed}
    return next((level for level in SEVERITY if level in failed), None)


def failure_text(results: Iterable[GateResult], level: str) -> str:
    """The failed gates of one severity, in a sentence."""
    return "; ".join(result.message for result in results if not result.passed and result.on_failure == level)
