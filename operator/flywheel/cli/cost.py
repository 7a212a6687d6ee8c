"""What laps have cost, by lap and stage, as a bill. Pure: the operator has computed it, this adds up and says what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flywheel.cli.errors import Problem
from flywheel.cli.reading import Body, dig, items, name, number, phase, text, title

HOUR = 3600.0
NOT_SERVING = "Serving (arms, router, collector) is not counted."


@dataclass(frozen=True)
class Item:
    """One line: hours held and their price; None: not known."""

    name: str
    gpu_hours: float
    cpu_hours: float | None
    amount: float | None

    def dump(self) -> dict[str, Any]:
        """For scripts; what is not known is left out."""
        fields = {"name": self.name, "gpuHours": self.gpu_hours, "cpuHours": self.cpu_hours, "amount": self.amount}
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in fields.items() if value is not None}


@dataclass(frozen=True)
class LapBill:
    """A lap with its stages."""

    total: Item
    verdict: str
    currency: str
    stages: tuple[Item, ...] = ()

    def dump(self) -> dict[str, Any]:
        """For scripts."""
        stages = [stage.dump() for stage in self.stages]
        return {**self.total.dump(), "verdict": self.verdict} | ({"currency": self.currency} if self.currency else {}) | {"stages": stages}


@dataclass(frozen=True)
class Bill:
    """Laps and what they add up to."""

    laps: tuple[LapBill, ...]

    @property
    def currencies(self) -> list[str]:
        """Of all laps that have an amount; more than one can't be added up."""
        return sorted({lap.currency for lap in self.laps if lap.total.amount is not None})

    @property
    def total(self) -> Item:
        """All laps. Without an amount if one of them has none, or their currencies differ."""
        known = [lap.total for lap in self.laps]
        amounts = [one.amount for one in known]
        cpus = [one.cpu_hours for one in known]
        added = sum(amount for amount in amounts if amount is not None)
        return Item(
            "all",
            sum(one.gpu_hours for one in known),
            None if None in cpus else sum(hours for hours in cpus if hours is not None),
            None if None in amounts or len(self.currencies) != 1 else added,
        )

    @property
    def promoted(self) -> int:
        """How many laps gave users another champion."""
        return sum(lap.verdict == "Promoted" for lap in self.laps)

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """For people: each lap, its stages below it, and the sum."""
        rows = []
        for lap in self.laps:
            rows.append(_row(lap.total, lap.verdict, lap.currency))
            rows += [_row(stage, "", lap.currency, indent="  ") for stage in lap.stages if stage.gpu_hours or stage.cpu_hours]
        if len(self.laps) > 1:
            rows.append(_row(self.total, "", self.currencies[0] if len(self.currencies) == 1 else ""))
        return rows

    def words(self) -> list[str]:
        """What the numbers mean, and what is missing from them."""
        total, lines = self.total, []
        share = f"for each promoted generation ({self.promoted} of {len(self.laps)} laps)."
        unpriced = [lap.total.name for lap in self.laps if lap.total.amount is None]
        if len(self.laps) > 1 and self.promoted and total.amount is not None:
            lines.append(f"{total.amount / self.promoted:.2f} {self.currencies[0]} {share}")
        elif len(self.laps) > 1 and self.promoted:
            lines.append(f"{total.gpu_hours / self.promoted:.2f} GPU hours {share}")
        if len(self.currencies) > 1:
            lines.append(f"The laps have different currencies ({', '.join(self.currencies)}) and are not added up.")
        if unpriced:
            lines.append(f"Without a cost: {', '.join(unpriced)}; no prices were set for what they used (chart value `prices`).")
        return [*lines, NOT_SERVING]

    def dump(self) -> dict[str, Any]:
        """For scripts."""
        total = {key: value for key, value in self.total.dump().items() if key != "name"}
        return {"laps": [lap.dump() for lap in self.laps], "total": total, "promoted": self.promoted, "currencies": self.currencies}


def costs(body: Body, laps: Iterable[Body]) -> Bill:
    """The bill of a Flywheel, with laps that are gone, or of a Generation. Raises Problem for other kinds."""
    kind = text(body, "kind")
    if kind == "Generation":
        return Bill((_lap(body),))
    if kind != "Flywheel":
        raise Problem(f"{title(body)} has no bill of its own; ask for its Generation or Flywheel.")
    own = sorted(
        (lap for lap in laps if text(lap, "spec.flywheel") == name(body)), key=lambda lap: (text(lap, "status.startTime"), name(lap))
    )
    there = {(name(lap), text(lap, "status.startTime")) for lap in own}
    names = {name(lap) for lap in own}
    gone = [
        _remembered(e)
        for e in items(body, "status.lineage")
        if text(e, "verdict") and (text(e, "generation"), text(e, "startTime")) not in there
        if text(e, "generation") not in names  # a lap that started again: its runs are counted where they are
    ]
    if not own and not gone:
        raise Problem(f"{title(body)} has had no lap yet.")
    return Bill((*gone, *(_lap(lap) for lap in own)))


def _lap(lap: Body) -> LapBill:
    cost = dig(lap, "status.cost") or dig(lap, "status.record.cost")
    if not cost:  # of an older operator
        return LapBill(Item(name(lap), (number(lap, "status.gpuSeconds") or 0.0) / HOUR, None, None), phase(lap), "")
    stages = tuple(_item(stage, text(stage, "name")) for stage in items(cost, "stages"))
    return LapBill(_item(cost, name(lap)), text(lap, "status.decision.verdict") or phase(lap), text(cost, "currency"), stages)


def _item(cost: Body, name: str) -> Item:
    return Item(name, (number(cost, "gpuSeconds") or 0.0) / HOUR, (number(cost, "cpuSeconds") or 0.0) / HOUR, number(cost, "amount"))


def _remembered(entry: Body) -> LapBill:
    total = Item(text(entry, "generation"), (number(entry, "gpuSeconds") or 0.0) / HOUR, None, number(entry, "cost"))
    return LapBill(total, text(entry, "verdict"), text(entry, "currency"))


def _row(item: Item, verdict: str, currency: str, *, indent: str = "") -> tuple[str, str, str, str, str]:
    cpu = "-" if item.cpu_hours is None else f"{item.cpu_hours:.2f}"
    amount = "-" if item.amount is None else f"{item.amount:.2f} {currency}".rstrip()
    return indent + item.name, verdict, f"{item.gpu_hours:.2f}", cpu, amount
