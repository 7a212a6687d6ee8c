"""Gates: limits on what a stage measured, or on how far that is from what a champion measured. A missing number fails."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flywheel.api.generation import Baseline, Gate, GateResult

COMPARE = {
    "GreaterThan": (operator.gt, ">"),
    "GreaterThanOrEqual": (operator.ge, "≥"),
    "LessThan": (operator.lt, "<"),
    "LessThanOrEqual": (operator.le, "≤"),
}
SEVERITY = ("Reject", "Hold", "Warn")


@dataclass(frozen=True)
class Record:
    """What the record of a generation says of a stage; no metrics if there is no such record."""

    generation: str
    metrics: Mapping[str, float]


def evaluate(
    gates: Iterable[Gate],
    metrics: Mapping[str, float],
    records: Mapping[Baseline, Record] | None = None,
    before: Iterable[GateResult] = (),
) -> tuple[GateResult, ...]:
    """What each gate says of the metrics. A baseline that was read `before` counts although its record has gone since."""
    read = {(r.metric, r.baseline_generation): r.baseline_value for r in before if r.baseline_value is not None}
    return tuple(_one(gate, metrics.get(gate.metric), (records or {}).get(gate.baseline), read) for gate in gates)


def _one(gate: Gate, value: float | None, record: Record | None, read: Mapping[tuple[str, str | None], float]) -> GateResult:
    compare, sign = COMPARE[gate.operator]
    baseline = None
    if record is not None:
        baseline = record.metrics.get(gate.metric, read.get((gate.metric, record.generation)))
    relative = gate.baseline != "Absolute"
    measured = value if not relative or value is None or baseline is None else value - baseline
    passed = measured is not None and (baseline is not None or not relative) and bool(compare(measured, gate.value))
    text = f"{gate.metric} {_measured(gate, value, record, baseline)}, must be {sign} {gate.value:{'+g' if relative else 'g'}}"
    if gate.message and not passed:
        text += f" ({gate.message})"
    return GateResult(
        metric=gate.metric,
        operator=gate.operator,
        limit=gate.value,
        value=value,
        baseline=gate.baseline,
        baseline_generation=record.generation if record else None,
        baseline_value=baseline,
        passed=passed,
        on_failure=gate.on_failure,
        message=text,
    )


def _measured(gate: Gate, value: float | None, record: Record | None, baseline: float | None) -> str:
    if value is None:
        return "was not measured"
    if gate.baseline == "Absolute":
        return f"is {value:.4g}"
    whose = f"generation {record.generation}" if record else f"the {gate.baseline.lower()}"
    if baseline is None:
        return f"is {value:.4g}, and there is no record of it from {whose} to compare with"
    return f"is {value:.4g}, {value - baseline:+.4g} against the {baseline:.4g} of {whose}"


def worst_failure(results: Iterable[GateResult]) -> str | None:
    """`Reject`, `Hold`, `Warn`, or None when every gate passed."""
    failed = {result.on_failure for result in results if not result.passed}
    return next((level for level in SEVERITY if level in failed), None)


def failure_text(results: Iterable[GateResult], level: str) -> str:
    """The failed gates of one severity, in a sentence."""
    return "; ".join(result.message for result in results if not result.passed and result.on_failure == level)
