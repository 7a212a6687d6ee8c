"""Sizes an experiment, simulates it, replays one that was. Numbers in, sentences out; the dice are the caller's."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from flywheel.api.rollout import Rollout
from flywheel.plan.experiment_plan import bases as assumed
from flywheel.plan.experiment_plan import users_a_day
from flywheel.plan.rollout_verdict import analysis_plan
from flywheel.stats.experiment import Decided, decide, simulated
from flywheel.stats.sizing import Base, promotion_chance, requirements, users_needed, users_needed_for
from flywheel.stats.verdict import AnalysisPlan, Evidence, Outcome, assess


@dataclass(frozen=True)
class Assumptions:
    """What a file can't say: users and what they do. Shares, not per cent."""

    users_per_day: float
    lifts: Mapping[str, float]
    means: Mapping[str, float] = field(default_factory=dict)
    depth_cv: float = 1.5
    explained: float = 0.0
    power: float = 0.8


@dataclass(frozen=True)
class Sized:
    """A plan with its users: has it a chance?"""

    plan: AnalysisPlan
    bases: Mapping[str, Base]
    days: Sequence[float]
    lines: tuple[str, ...]
    chance: float
    powered: bool
    needed: int | None

    @property
    def users(self) -> int:
        """Matured users a slice at the verdict."""
        return math.floor(sum(self.days))

    def dump(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "usersPerSlice": self.users,
            "days": len(self.days),
            "promotionChance": round(self.chance, 4),
            "powered": self.powered,
            "usersNeeded": self.needed,
        }


def parsed(document: Any) -> Rollout:
    """The Rollout of a file. Raises ValueError in words."""
    if not isinstance(document, Mapping) or document.get("kind") != "Rollout":
        kind = document.get("kind") if isinstance(document, Mapping) else type(document).__name__
        raise ValueError(f"expected a Rollout, got {kind}; a Generation's rollout is sized as a Rollout of the same spec")
    try:
        return Rollout.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}; `kubectl flywheel lint` says more") from error


def sized(rollout: Rollout, assume: Assumptions) -> Sized:
    """The chance of a promotion, and what keeps it small. Raises ValueError."""
    plan, days = analysis_plan(rollout), users_a_day(rollout.spec, assume.users_per_day)
    bases = assumed(rollout.spec, assume.means, assume.depth_cv, assume.lifts, assume.explained)
    users = math.floor(sum(days))
    parts = requirements(plan, bases, max(users, 1))
    chance, needed = promotion_chance(parts), users_needed(plan, bases, assume.power)
    lines = [f"{users} matured users a slice after {len(days)} days; a slice needs at least {plan.minimum_users}"]
    for part in parts:
        alone = users_needed_for(plan, part, assume.power)
        base = bases[part.metric]
        wants = f"{part.metric} {part.what}"
        said = f"{wants:24} chance {part.chance:6.1%}   mean {base.mean:g}, lift {base.lift:+.1%}"
        lines.append(f"{said}; alone it needs {alone if alone else 'more than a billion'} users a slice for {assume.power:.0%}")
    powered = chance >= assume.power
    if powered:
        lines.append(f"powered: such a candidate is promoted in {chance:.1%} of such rollouts ({assume.power:.0%} wanted)")
    else:
        lines += _refusal(users, chance, needed, days, assume)
    return Sized(plan, bases, days, tuple(lines), chance, powered, needed)


def _refusal(users: int, chance: float, needed: int | None, days: Sequence[float], assume: Assumptions) -> list[str]:
    refused = f"not powered: such a candidate is promoted in {chance:.1%} of such rollouts, and {assume.power:.0%} are wanted"
    if needed is None:
        return [refused, "no number of users would do: a lift or a margin is too small"]
    weeks = math.ceil(len(days) / 7 * needed / max(users, 1))
    mends = [f"a window of about {weeks} weeks", "more weight", "wider margins where a loss would be worth it", "a larger lift to look for"]
    return [refused, f"it would need {needed} matured users a slice: {', '.join(mends)}"]


@dataclass(frozen=True)
class Rates:
    """Of simulated experiments: how they ended, and on which day."""

    name: str
    outcomes: Mapping[str, float]
    median_day: int
    p90_day: int

    def dump(self) -> dict[str, Any]:
        """For scripts."""
        return {"effect": self.name, "outcomes": dict(self.outcomes), "medianDay": self.median_day, "p90Day": self.p90_day}


def rates(sizing: Sized, name: str, factor: float, runs: int, seed: int) -> Rates:
    """Error rates: `factor` times the assumed lifts, 0 for a candidate that changes nothing."""
    rng = random.Random(f"{seed} {name}")  # noqa: S311
    bases = {metric: replace(base, lift=base.lift * factor) for metric, base in sizing.bases.items()}
    ended = [decide(sizing.plan, simulated(sizing.plan, bases, sizing.days, lambda: rng.gauss(0.0, 1.0))) for _ in range(runs)]
    days = sorted(one.look for one in ended)
    named = [str(one.assessment.outcome) for one in ended]
    return Rates(name, {o: named.count(o) / runs for o in sorted(set(named))}, days[runs // 2], days[min(runs - 1, runs * 9 // 10)])


# ------------------------------------------------------------------------------------------------ replay


@dataclass(frozen=True)
class Replayed:
    """What a plan decides on recorded evidence, and what had been decided."""

    decided: Decided
    times: tuple[str, ...]
    stored: str | None

    @property
    def same(self) -> bool:
        """Whether it is what had been decided; true if nothing is known of that."""
        return self.stored is None or self.stored == _verdict(self.decided.assessment.outcome)

    def lines(self) -> list[str]:
        """For people."""
        found = self.decided.assessment
        at = self.times[self.decided.look - 1]
        lines = [f"{_verdict(found.outcome)} ({found.reason}) at look {self.decided.look} of {len(self.times)}{f', {at}' if at else ''}"]
        lines.append(found.message)
        if self.stored:
            lines.append("the stored decision is the same" if self.same else f"the stored decision was {self.stored}")
        return lines

    def dump(self) -> dict[str, Any]:
        """For scripts."""
        found = self.decided.assessment
        form = {"verdict": _verdict(found.outcome), "reason": str(found.reason), "message": found.message, "look": self.decided.look}
        metrics = [estimate.to_dict() for estimate in found.estimates]
        return form | {"time": self.times[self.decided.look - 1], "stored": self.stored, "same": self.same, "metrics": metrics}


def _verdict(outcome: Outcome) -> str:
    return "NoVerdict" if outcome in (Outcome.NO_VERDICT, Outcome.HOLD) else str(outcome)


def replayed(document: Any, other: AnalysisPlan | None) -> Replayed:
    """A Rollout with a decision, or a recording `{"plan": …, "looks": [{"time": …, "evidence": …}]}`; by its own plan or another one.

    Raises ValueError in words.
    """
    if not isinstance(document, Mapping):
        raise ValueError("expected a Rollout with a decision, or an object with plan and looks")
    if document.get("kind") == "Rollout":
        decision = (document.get("status") or {}).get("decision") or {}
        stored = decision.get("evidence")
        if not isinstance(stored, Mapping):
            raise ValueError("the Rollout has no decision with evidence: none yet, or one that no metric made (an abort, a hard limit)")
        plan = other or AnalysisPlan.from_dict(stored.get("plan") or {})
        evidence = Evidence.from_dict(stored.get("evidence") or {})
        return Replayed(_one(plan, evidence), (str(decision.get("time") or ""),), str(decision.get("verdict")) if other is None else None)
    looks = document.get("looks")
    if not isinstance(looks, list) or not looks or not all(isinstance(look, Mapping) for look in looks):
        raise ValueError("looks: expected a list of objects with time and evidence, at least one")
    if other is None and not isinstance(document.get("plan"), Mapping):
        raise ValueError("plan: there is none in the recording; name the file of a Rollout, too")
    plan = other or AnalysisPlan.from_dict(document["plan"])
    times = tuple(str(look.get("time") or "") for look in looks)
    return Replayed(decide(plan, [Evidence.from_dict(look.get("evidence") or {}) for look in looks]), times, None)


def _one(plan: AnalysisPlan, evidence: Evidence) -> Decided:
    """A stored look keeps what it knew of the looks before."""
    return Decided(1, assess(plan, evidence))


# ------------------------------------------------------------------------------------------------ the picture

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 360, 60, 40, 620, 310


def curve(sizing: Sized, points: int = 24) -> list[tuple[int, float]]:
    """Chance of a promotion by users a slice."""
    top = max(sizing.users, sizing.needed or 0, sizing.plan.minimum_users) * 1.5
    steps = [max(2, round(top * (i + 1) / points)) for i in range(points)]
    return [(n, promotion_chance(requirements(sizing.plan, sizing.bases, n))) for n in steps]


def svg(sizing: Sized, power: float) -> str:
    """The curve as an SVG picture: users a slice to the right, chance upwards, the plan and the wanted chance as lines."""
    points = curve(sizing)
    top = points[-1][0]

    def x(users: float) -> float:
        return LEFT + (RIGHT - LEFT) * min(1.0, users / top)

    def y(share: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * share

    path = " ".join(f"{x(n):.1f},{y(c):.1f}" for n, c in points)
    ticks = "".join(
        f'<text x="{LEFT - 8}" y="{y(s) + 4:.1f}" text-anchor="end">{s:.0%}</text>'
        f'<line x1="{LEFT}" y1="{y(s):.1f}" x2="{RIGHT}" y2="{y(s):.1f}" stroke="#ddd"/>'
        for s in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    users = "".join(
        f'<text x="{x(top * s):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{top * s:.0f}</text>' for s in (0.25, 0.5, 0.75, 1.0)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>{ticks}{users}'
        f'<line x1="{LEFT}" y1="{y(power):.1f}" x2="{RIGHT}" y2="{y(power):.1f}" stroke="#888" stroke-dasharray="4"/>'
        f'<line x1="{x(sizing.users):.1f}" y1="{TOP}" x2="{x(sizing.users):.1f}" y2="{BOTTOM}" stroke="#c33" stroke-dasharray="4"/>'
        f'<text x="{x(sizing.users) + 4:.1f}" y="{TOP + 12}" fill="#c33">this plan: {sizing.users}</text>'
        f'<polyline points="{path}" fill="none" stroke="#246" stroke-width="2"/>'
        f'<text x="{LEFT}" y="{TOP - 16}" font-size="14">Chance that the hoped-for candidate is promoted</text>'
        f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 38}" text-anchor="middle">matured users a slice</text></svg>\n'
    )


def drawn(sizing: Sized, power: float) -> list[str]:
    """The same for a terminal."""
    lines: list[str] = []
    for n, c in curve(sizing, 12):
        mark = " <- wanted" if c >= power and (not lines or "wanted" not in "".join(lines)) else ""
        lines.append(f"{n:>12} users a slice  {'█' * round(30 * c):30} {c:6.1%}{mark}")
    return lines
