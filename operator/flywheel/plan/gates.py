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
SEVERITY = ("Reject", "Hold", "Warn")


def evaluate(gates: Iterable[Gate], metrics: Mapping[str, float]) -> tuple[GateResult, ...]:
    """What each gate says of the metrics."""
    return tuple(_one(gate, metrics.get(gate.metric)) for gate in gates)


def _one(gate: Gate, value: float | None) -> GateResult:
    compare, sign = COMPARE[gate.operator]
    passed = value is not None and bool(compare(value, gate.value))
    measured = "was not measured" if value is None else f"is {value:.4g}"
    text = f"{gate.metric} {measured}, must be {sign} {gate.value:g}"
    if gate.message and not passed:
        text += f" ({gate.message})"
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
