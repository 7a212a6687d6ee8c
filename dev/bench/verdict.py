"""How often is the verdict right? Simulated rollouts, decided by the operator's rule and by fixed thresholds.

    python -m dev.bench.verdict [--quick] [--write docs/benchmarks/verdict.md]

One factor is varied at a time; 10 000 experiments a cell (--quick: 1000), hourly looks over 7 days of enrolment and the last users' day.
Exits 1 when a bound is broken (--quick allows three standard errors of the simulation), or when the rule on arrays and the operator's own
`assess` disagree on one of the experiments that both decide.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dev.bench.verdict_rules import (
    ARGO,
    FLAGGER,
    HOLD,
    INCONCLUSIVE,
    PLAN,
    PROMOTE,
    ROLLBACK,
    Decisions,
    Thresholds,
    check,
    decide,
    replayed,
    tuned,
)
from dev.bench.verdict_world import KNOWN_SHARE, LOOKS, Kind, Simulator, World
from flywheel.stats.verdict import AlwaysValid, AnalysisPlan, GroupSequential

USERS = 10_000
FIXED = "fixed horizon (default)"
PLANS = {
    FIXED: PLAN,
    "group sequential, O'Brien-Fleming": replace(PLAN, method=GroupSequential(USERS, 5, "OBrienFleming")),
    "group sequential, Pocock": replace(PLAN, method=GroupSequential(USERS, 5, "Pocock")),
    "always valid": replace(PLAN, method=AlwaysValid(USERS)),
}
CUPED = {"fixed horizon with CUPED": replace(PLAN, cuped=True)}
NOVELTY = {FIXED: PLAN, "fixed horizon with novelty check": replace(PLAN, novelty_alpha=0.1)}
WIDE = {"fixed horizon, margins 8 %": replace(PLAN, metrics=tuple(replace(m, margin=0.08) if m.margin else m for m in PLAN.metrics))}
ARGO_TUNED, FLAGGER_TUNED = "Argo Rollouts, tuned", "Flagger, tuned"
CHUNK = 500


@dataclass(frozen=True)
class Bound:
    """A share that must not be passed."""

    outcome: int
    most: float = 1.0
    least: float = 0.0

    def broken(self, share: float, slack: float) -> bool:
        """Whether a simulated share is outside."""
        return share > self.most + slack or share < self.least - slack

    def __str__(self) -> str:
        word = {PROMOTE: "promoted", ROLLBACK: "rolled back", HOLD: "held"}[self.outcome]
        return f"{word} {f'≤ {self.most:.1%}' if self.most < 1 else f'≥ {self.least:.0%}'}"


@dataclass(frozen=True)
class Cell:
    """A world, the rules that decide it, and what must hold of each of the operator's."""

    name: str
    world: World
    plans: dict[str, AnalysisPlan]
    bounds: tuple[Bound, ...] = ()
    thresholds: bool = False


SAME = (Bound(PROMOTE, most=0.025), Bound(ROLLBACK, most=0.025))
NEVER, MOSTLY, HELD = (Bound(PROMOTE, most=0.01),), (Bound(PROMOTE, least=0.9),), (Bound(HOLD, least=0.9),)
DEFAULT = {FIXED: PLAN}
HEAVY, THIRTY, PRE = Kind(cv=3.0), Kind(breadth=0.3), Kind(pre_correlation=0.6)


def lifted(kind: Kind = Kind(), breadth: float = 0.0, depth: float = 0.0, **rest: float) -> World:  # noqa: B008
    """Users of one kind, and a candidate with relative effects on breadth and on the depth of those who go on."""
    return World(kind, replace(kind, breadth_lift=breadth, depth_lift=depth), **rest)  # type: ignore[arg-type]


BEST = lifted(breadth=0.088), lifted(depth=0.194), lifted(breadth=0.088, depth=0.194)
CELLS = (
    Cell("A/A", World(), PLANS, SAME, thresholds=True),
    Cell("A/A, 3 000 users a slice", World(users=3000), DEFAULT, SAME),
    Cell("A/A, breadth 30 %", World(THIRTY, THIRTY), PLANS, SAME),
    Cell("A/A, heavy tails (CV 3)", World(HEAVY, HEAVY), PLANS, SAME),
    Cell("A/A, days differ (sd 3 %)", World(day_sd=0.03), DEFAULT, SAME),
    Cell("A/A, ramp 1-5-25-50, users return", World(ramp=True), PLANS, SAME),
    Cell(
        "A/A, that and novelty of the service (+10 %, halved every 2 days)",
        World(ramp=True, novelty=0.1, novelty_shared=True),
        DEFAULT,
        SAME,
    ),
    Cell("A/A, ramp, days and CV 3", World(HEAVY, HEAVY, ramp=True, day_sd=0.03), PLANS, SAME),
    Cell(f"A/A, pre-period of {KNOWN_SHARE:.0%}, correlation 0.6", World(PRE, PRE), DEFAULT | CUPED, SAME),
    Cell("breadth −5 %", lifted(breadth=-0.05), PLANS, NEVER, thresholds=True),
    Cell("depth of those who go on −5 %", lifted(depth=-0.05), PLANS, NEVER),
    Cell("breadth −5 %, CV 3", lifted(HEAVY, breadth=-0.05), DEFAULT, NEVER),
    Cell("breadth −5 %, ramp", replace(lifted(breadth=-0.05), ramp=True), DEFAULT, NEVER),
    Cell("breadth −10 %", lifted(breadth=-0.10), DEFAULT, NEVER, thresholds=True),
    Cell("breadth +2 %", lifted(breadth=0.02), DEFAULT),
    Cell("breadth +5 %", lifted(breadth=0.05), PLANS),
    Cell("breadth +8.8 %", BEST[0], PLANS, thresholds=True),
    Cell("depth of those who go on +19.4 %", BEST[1], PLANS, thresholds=True),
    Cell("both", BEST[2], PLANS),
    Cell("breadth +8.8 %, base 30 %", lifted(THIRTY, breadth=0.088), DEFAULT),
    Cell("depth of those who go on +19.4 %, base 30 %", lifted(THIRTY, depth=0.194), DEFAULT | WIDE),
    Cell("depth of those who go on +19.4 %, pre-period", lifted(PRE, depth=0.194), DEFAULT | CUPED),
    Cell("breadth +5 %, pre-period", lifted(PRE, breadth=0.05), DEFAULT | CUPED),
    Cell("novelty of the candidate only (+10 %, halved every 2 days)", World(novelty=0.1), NOVELTY),
    Cell("errors 0.02 → 0.12 a user, else A/A", World(candidate=Kind(errors_factor=6.0)), DEFAULT),
    Cell("6.5 % of the candidate's users uncounted", World(lost=0.065), DEFAULT, HELD),
    Cell("6.5 % of the candidate's users uncounted, breadth +8.8 %", replace(BEST[0], lost=0.065), DEFAULT, HELD),
    Cell("1 % of the candidate's users uncounted", World(lost=0.01), DEFAULT),
)
MUST_BE_FOUND = {"breadth +8.8 %": MOSTLY, "depth of those who go on +19.4 %": MOSTLY, "both": MOSTLY}  # by the default


@dataclass
class Row:
    """One rule in one cell."""

    cell: str
    rule: str
    decisions: Decisions
    bounds: tuple[Bound, ...] = ()
    checked: int = 0

    def share(self, outcome: int) -> float:
        return float((self.decisions.outcome == outcome).mean())

    def broken(self, quick: bool) -> list[str]:
        """The bounds it breaks, in words."""
        found = []
        for bound in self.bounds:
            share = self.share(bound.outcome)
            slack = 3 * (share * (1 - share) / len(self.decisions.outcome)) ** 0.5 + 0.001 if quick else 0.0
            if bound.broken(share, slack):
                found.append(f"{self.cell}, {self.rule}: {bound} is broken by {share:.2%}")
        return found

    def __str__(self) -> str:
        shares = " | ".join(f"{self.share(outcome):.1%}" for outcome in (PROMOTE, ROLLBACK, INCONCLUSIVE, HOLD))
        hours = " | ".join(f"{np.quantile(self.decisions.hour, q):.0f}" for q in (0.5, 0.9))
        return f"| {self.cell} | {self.rule} | {shares} | {hours} | {', '.join(map(str, self.bounds))} |"


class Bench:
    """Simulates cells and keeps what must agree."""

    def __init__(self, seed: int, runs: int, pool_size: int, replays: int) -> None:
        self.seed, self.runs, self.replays = seed, runs, replays
        self.simulator = Simulator(seed, pool_size)
        self.thresholds = self._tuned()
        self.disagreements: list[str] = []

    def _tuned(self) -> dict[str, Thresholds]:
        """Thresholds as their examples have them, and with a tolerance that rolls 5 % of harmless candidates back after a day."""
        harmless = self.simulator.run(World(), 2000, np.random.default_rng([self.seed, 999]))
        slow = replace(FLAGGER, passes=24)
        return {
            "Argo Rollouts, by default": ARGO,
            ARGO_TUNED: tuned(ARGO, harmless, 0.05),
            "Flagger, by its examples": FLAGGER,
            FLAGGER_TUNED: tuned(slow, harmless, 0.05),
        }

    def rows(self, cell: Cell) -> list[Row]:
        """All rules of a cell, on the same experiments."""
        rng = np.random.default_rng([self.seed, *cell.name.encode()])
        rules = [*cell.plans, *(self.thresholds if cell.thresholds else ())]
        parts: dict[str, list[Decisions]] = {name: [] for name in rules}
        for start in range(0, self.runs, CHUNK):
            trajectories = self.simulator.run(cell.world, min(CHUNK, self.runs - start), rng)
            for name, plan in cell.plans.items():
                decisions = decide(plan, trajectories)
                parts[name].append(decisions)
                if start == 0:
                    self._replay(f"{cell.name}, {name}", plan, trajectories, decisions)
            for name in rules[len(cell.plans) :]:
                parts[name].append(check(self.thresholds[name], trajectories))
        return [
            Row(cell.name, name, _joined(parts[name]), (cell.bounds + self._extra(cell, name)) if name in cell.plans else ())
            for name in rules
        ]

    def _extra(self, cell: Cell, rule: str) -> tuple[Bound, ...]:
        return MUST_BE_FOUND.get(cell.name, ()) if rule == FIXED else ()

    def _replay(self, what: str, plan: AnalysisPlan, trajectories, decisions: Decisions) -> None:  # type: ignore[no-untyped-def]
        """The operator's own function on a few experiments: of each outcome the first ones."""
        chosen = [run for o in range(4) for run in np.flatnonzero(decisions.outcome == o)[: self.replays]]
        for run in chosen:
            mine, real = (int(decisions.outcome[run]), int(decisions.hour[run])), replayed(plan, trajectories, int(run))
            if mine != real:
                self.disagreements.append(f"{what}: experiment {run} is {mine} on arrays and {real} by assess")

    def regret(self) -> Iterator[str]:
        """Engagement lost in the four weeks from the start, against always serving the better model, when 7 of 8 candidates are better.

        The effect is on breadth; its size is half-normal with sd 5 %. Half of the users meet each model until the decision, then all one.
        """
        sizes = [0.05 * abs(x) for x in (0.0784, 0.2372, 0.4023, 0.5791, 0.7764, 1.0100, 1.3180, 1.8627)]
        sums: dict[str, list[float]] = {name: [0.0, 0.0, 0.0] for name in (*PLANS, *self.thresholds)}
        rng = np.random.default_rng([self.seed, 777])
        for size in sizes:
            for sign, weight in ((1, 7 / 8), (-1, 1 / 8)):
                t = self.simulator.run(lifted(breadth=sign * size), max(100, self.runs // 20), rng)
                for name, entry in sums.items():
                    d = decide(PLANS[name], t) if name in PLANS else check(self.thresholds[name], t)
                    kept = (d.outcome == PROMOTE) == (sign > 0)
                    part = np.minimum(1.0, d.hour / (28 * 24))
                    lost = size * (0.5 * part + np.where(kept, 0.0, 1 - part))
                    entry[0] += weight * float(lost.mean()) / len(sizes)
                    entry[1] += float((d.outcome == PROMOTE).mean()) / len(sizes) * (weight if sign > 0 else 0)
                    entry[2] += float((d.outcome == PROMOTE).mean()) / len(sizes) * (weight if sign < 0 else 0)
        for name, (total, better, worse) in sums.items():
            yield f"| {name} | {total:.2%} | {better / (7 / 8):.0%} | {worse / (1 / 8):.0%} |"

    def fresh_users(self, runs: int) -> Iterator[str]:
        """Some cells again on users drawn for each experiment anew."""
        simulator = Simulator(self.seed + 1, None)
        for cell in (CELLS[0], CELLS[3], next(c for c in CELLS if c.name == "breadth +5 %")):
            rng = np.random.default_rng([self.seed, 555, *cell.name.encode()])
            parts = [decide(PLAN, simulator.run(cell.world, min(25, runs - at), rng)) for at in range(0, runs, 25)]
            row = Row(cell.name, FIXED, _joined(parts))
            yield f"| {cell.name} | {row.share(PROMOTE):.1%} | {row.share(ROLLBACK):.1%} |"


def _joined(parts: list[Decisions]) -> Decisions:
    return Decisions(np.concatenate([p.outcome for p in parts]), np.concatenate([p.hour for p in parts]))


def report(bench: Bench, fresh_runs: int, rows: list[Row]) -> Iterator[str]:
    """The tables, line by line, as they are ready."""
    yield "| users (control → candidate) | rule | promoted | rolled back | inconclusive | held | median h | p90 h | must hold |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for cell in CELLS:
        for row in bench.rows(cell):
            rows.append(row)
            yield str(row)
    yield "\n## Expected regret\n\n| rule | breadth lost in 4 weeks | better ones promoted | worse ones promoted |"
    yield "| --- | ---: | ---: | ---: |"
    yield from bench.regret()
    yield f"\n## Users drawn anew, {fresh_runs} experiments\n\n| users | promoted | rolled back |\n| --- | ---: | ---: |"
    yield from bench.fresh_users(fresh_runs)


def main() -> int:
    """Print the tables; write them with what made them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1000 experiments a cell")
    parser.add_argument("--seed", type=int, default=20_261_125)
    parser.add_argument("--write", type=Path, help="page whose tables are replaced")
    options = parser.parse_args()
    began, runs = time.monotonic(), 1000 if options.quick else 10_000
    bench = Bench(options.seed, runs, 2**18 if options.quick else 2**20, replays=1 if options.quick else 3)
    rows: list[Row] = []
    lines = []
    for line in report(bench, 100 if options.quick else 1000, rows):
        lines.append(line)
        print(line, flush=True)
    tolerances = {name: rule.tolerance for name, rule in bench.thresholds.items()}
    broken = [problem for row in rows for problem in row.broken(options.quick)] + bench.disagreements
    minutes = (time.monotonic() - began) / 60
    print(f"\ntolerances: {tolerances}\n{minutes:.1f} minutes")
    print("\n".join(broken) or "every bound holds")
    if options.write:
        _write(options.write, lines, tolerances, options.seed, runs, minutes, broken)
    return 1 if broken else 0


MARK = "<!-- tables: make bench-verdict -->"


def _write(page: Path, lines: list[str], tolerances: dict[str, float], seed: int, runs: int, minutes: float, broken: list[str]) -> None:
    """Everything after the mark is made new."""
    text = page.read_text() if page.exists() else ""
    errors = [(share * (1 - share) / runs) ** 0.5 for share in (0.025, 0.9)]
    made = [
        f"`make bench-verdict`, {dt.datetime.now(dt.UTC):%Y-%m-%d}, {platform.machine()}, one of {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, numpy {np.__version__}: {minutes:.0f} minutes ({time.process_time() / 60:.0f} of a core); "
        f"seed {seed}, {runs} experiments a cell, looks at hours 1 to {LOOKS}. "
        f"Standard error of a share: {errors[0]:.2%} at 2.5 %, {errors[1]:.2%} at 90 %.",
        f"Tolerances: {', '.join(f'{name} {value:.0%}' for name, value in tolerances.items())}.",
        "Every bound holds." if not broken else "**Broken:** " + "; ".join(broken),
    ]
    page.write_text(text.split(MARK)[0] + MARK + "\n\n" + "\n\n".join(made) + "\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
