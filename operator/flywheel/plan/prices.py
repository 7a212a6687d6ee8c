"""The price table, and what a run has cost by it. Pure.

A price is per hour of one unit (a GPU, a CPU). A table for nodes with a certain label replaces the general price of the
same resource for runs whose nodeSelector asks for that label.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flywheel.api.cost import Cost, StageCost
from flywheel.api.training_run import TrainingRun
from flywheel.specs.trainer_job import DEFAULT_RESOURCES

GPU, CPU = "nvidia.com/gpu", "cpu"
MAX_TEXT = 32_768
HOUR = 3600.0


class PriceError(ValueError):
    """A price table that makes no sense; the message names the field and its value."""


@dataclass(frozen=True)
class NodePrices:
    """Prices on nodes that have a label."""

    label: str
    value: str
    per_hour: Mapping[str, float]


@dataclass(frozen=True)
class PriceTable:
    """Prices per hour and unit. Empty: nothing is known."""

    currency: str = ""
    per_hour: Mapping[str, float] = field(default_factory=dict)
    nodes: tuple[NodePrices, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.per_hour or self.nodes)

    def on(self, node_selector: Mapping[str, str]) -> Mapping[str, float]:
        """The prices on the nodes that a selector asks for; of several tables that fit, the later wins."""
        prices = dict(self.per_hour)
        for nodes in self.nodes:
            if node_selector.get(nodes.label) == nodes.value:
                prices.update(nodes.per_hour)
        return prices


def parse_prices(text: str) -> PriceTable:
    """The table as the chart writes it: `{"currency": "USD", "perHour": {"nvidia.com/gpu": 2.5}, "nodes": [{"label", "value",
    "perHour"}]}`. Raises PriceError."""
    if not text.strip():
        return PriceTable()
    try:
        document = json.loads(text) if len(text) <= MAX_TEXT else None
    except ValueError as error:
        raise PriceError(f"is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise PriceError(f"must be a JSON object of at most {MAX_TEXT} characters")
    _known("", document, ("currency", "perHour", "nodes"))
    nodes = document.get("nodes") or []
    if not isinstance(nodes, list) or not all(isinstance(one, dict) for one in nodes):
        raise PriceError("nodes must be a list of objects with label, value and perHour")
    table = PriceTable(
        currency=_text("currency", document.get("currency") or ""),
        per_hour=_per_hour("perHour", document.get("perHour") or {}),
        nodes=tuple(_node(f"nodes[{i}]", one) for i, one in enumerate(nodes)),
    )
    if table and not table.currency:
        raise PriceError("has prices but no currency; set currency, such as USD")
    return table


def _node(where: str, document: Mapping[str, Any]) -> NodePrices:
    _known(where + ".", document, ("label", "value", "perHour"))
    label, value = _text(f"{where}.label", document.get("label") or ""), _text(f"{where}.value", document.get("value") or "")
    if not label or not value:
        raise PriceError(f"{where} needs label and value of the nodes it is about")
    return NodePrices(label, value, _per_hour(f"{where}.perHour", document.get("perHour") or {}))


def _per_hour(where: str, document: object) -> dict[str, float]:
    if not isinstance(document, dict):
        raise PriceError(f"{where} must be an object of prices, such as {{{GPU!r}: 2.5}}")
    _known(where + ".", document, (GPU, CPU))
    for name, price in document.items():
        if isinstance(price, bool) or not isinstance(price, int | float) or not math.isfinite(price) or price < 0:
            raise PriceError(f"{where}.{name} must be a number that is not negative, not {price!r}")
    return {name: float(price) for name, price in document.items()}


def _text(where: str, value: object) -> str:
    limit = 16 if where == "currency" else 316
    if not isinstance(value, str) or len(value) > limit:
        raise PriceError(f"{where} must be a text of at most {limit} characters, not {value!r:.80}")
    return value


def _known(where: str, document: Mapping[str, Any], names: tuple[str, ...]) -> None:
    unknown = sorted(set(document) - set(names))
    if unknown:
        raise PriceError(f"{where}{unknown[0]} is not known; known: {', '.join(names)}")


# --------------------------------------------------------------------------------------------------------------- cost


@dataclass(frozen=True)
class Usage:
    """What one run held, and what an hour of it costs."""

    gpu_seconds: float
    cpu_seconds: float
    prices: Mapping[str, float]

    @property
    def amount(self) -> float | None:
        """The price; None if something that was used has none. A CPU without a price is part of its GPU's or node's."""
        if not self.prices or (self.gpu_seconds and GPU not in self.prices):
            return None
        return (self.gpu_seconds * self.prices.get(GPU, 0.0) + self.cpu_seconds * self.prices.get(CPU, 0.0)) / HOUR


def usage(run: TrainingRun, table: PriceTable) -> Usage:
    """GPU-seconds as the run's status has them; CPU-seconds of the attempts that have ended."""
    spans = [(a.end_time - a.start_time).total_seconds() for a in run.status.attempts if a.start_time and a.end_time]
    asked = (run.spec.resources.requests if run.spec.resources else None) or DEFAULT_RESOURCES.get("requests", {})
    cpus = cores(asked.get("cpu", 0)) * run.spec.nodes
    return Usage(run.status.gpu_seconds, round(cpus * sum(max(0.0, span) for span in spans), 1), table.on(run.spec.node_selector))


def cores(quantity: int | str) -> float:
    """A CPU quantity in cores: 2, `500m`, `1.5`. What can't be read counts as none."""
    text = str(quantity)
    try:
        number = float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def lap_cost(stages: Iterable[tuple[str, Iterable[TrainingRun]]], table: PriceTable) -> Cost:
    """The cost of a lap by stage. The total has an amount only if every stage that used something has one."""
    found = []
    for name, runs in stages:
        used = [usage(run, table) for run in runs]
        amounts = [one.amount for one in used]
        known = None if not table or None in amounts else sum(amount for amount in amounts if amount is not None)
        gpus, cpus = sum(one.gpu_seconds for one in used), sum(one.cpu_seconds for one in used)
        found.append(
            StageCost(name=name, gpu_seconds=round(gpus, 1), cpu_seconds=round(cpus, 1), amount=None if known is None else round(known, 4))
        )
    amounts = [stage.amount for stage in found]
    total = None if not table or None in amounts else round(sum(amount for amount in amounts if amount is not None), 4)
    return Cost(
        currency=table.currency or None,
        amount=total,
        gpu_seconds=round(sum(stage.gpu_seconds for stage in found), 1),
        cpu_seconds=round(sum(stage.cpu_seconds for stage in found), 1),
        stages=tuple(found),
    )
