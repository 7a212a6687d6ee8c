"""How often is the verdict right? Simulated rollouts of the demo's size, decided by `flywheel.stats.verdict.assess`.

    python -m dev.bench.verdict_demo --runs 2000

A rollout: 860 users arrive evenly over 150 s and are split 1:1 at random; each writes up to 6 messages. A reply is good with the arm's
share of good replies; the user writes again with probability 0.90 after a good and 0.15 after a flat reply, shifted on the logit scale by
a user's own N(0, 0.4). Assumed besides: 0.2 % of replies fail, 2 % of flat ones get a thumbs down. A user is analysed 15 s after the first
message. The verdict is asked every 2 s and at the window's end, by the default metrics with minimumUsers 100.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from flywheel.stats.verdict import AnalysisPlan, Evidence, Measured, MetricPlan, Moments, Outcome, assess

USERS, WINDOW, MATURITY, INTERVAL = 860, 150.0, 15.0, 2.0  # users of both slices; seconds
MAX_TURNS, LOGIT_SPREAD = 6, 0.4
WRITES_AGAIN = {True: math.log(0.90 / 0.10), False: math.log(0.15 / 0.85)}  # logit, after a good and a flat reply
THUMBS_DOWN = 0.02  # share of flat replies
METRICS = ("breadth", "depth", "errors", "thumbs_down")

PLAN = AnalysisPlan(
    metrics=(
        MetricPlan("breadth", "Success", "Increase", margin=0.05),
        MetricPlan("depth", "Success", "Increase", margin=0.05),
        MetricPlan("errors", "Guardrail", "Decrease", absolute_margin=0.05),
        MetricPlan("thumbs_down", "Guardrail", "Decrease", absolute_margin=0.05),
    ),
    minimum_users=100,
)


@dataclass(frozen=True)
class Arm:
    """What a model does to its users."""

    good_replies: float
    errors: float = 0.002
    lost_users: float = 0.0  # share whose assignment is never counted


@dataclass
class Tally:
    """Outcomes of simulated rollouts, and when (seconds) the rolled back ones were."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    rollback_seconds: list[float] = field(default_factory=list)

    def share(self, outcome: Outcome) -> float:
        """Share of the rollouts that ended so."""
        return self.outcomes[outcome] / self.outcomes.total()


SCENARIOS = {
    "A/A, 30 % good replies": (Arm(0.30), Arm(0.30)),
    "A/A, 55 % good replies": (Arm(0.55), Arm(0.55)),
    "30 % -> 50 % (promote)": (Arm(0.30), Arm(0.50)),
    "30 % -> 40 % (promote, if it is seen)": (Arm(0.30), Arm(0.40)),
    "55 % -> 30 % (roll back)": (Arm(0.55), Arm(0.30)),
    "55 % -> 45 % (never promote)": (Arm(0.55), Arm(0.45)),
    "errors 0.2 % -> 20 % (roll back)": (Arm(0.55), Arm(0.55, errors=0.20)),
    "30 % -> 50 %, a third uncounted (hold)": (Arm(0.30), Arm(0.50, lost_users=1 / 3)),
}


def conversation(rng: random.Random, arm: Arm) -> tuple[int, int, int, int]:
    """One user's values, in the order of METRICS."""
    again = failed = thumbs = 0
    shift = rng.gauss(0.0, LOGIT_SPREAD)
    while True:
        if rng.random() < arm.errors:
            failed += 1
            break
        good = rng.random() < arm.good_replies
        thumbs += not good and rng.random() < THUMBS_DOWN
        if again == MAX_TURNS - 1 or rng.random() >= 1 / (1 + math.exp(-WRITES_AGAIN[good] - shift)):
            break
        again += 1
    return int(again > 0), again, failed, thumbs


def looks(rng: random.Random, arms: tuple[Arm, Arm]) -> Iterator[tuple[float, Evidence]]:
    """What is seen at each look of one rollout, up to the window's end."""
    sums = [[[0, 0] for _ in METRICS] for _ in arms]
    matured, assigned = [0, 0], [0, 0]
    users = []
    for arrival in sorted(rng.uniform(0.0, WINDOW) for _ in range(USERS)):
        slice_ = int(rng.random() < 0.5)
        if rng.random() >= arms[slice_].lost_users:
            users.append((arrival, slice_))
    arriving, maturing = 0, 0  # next of `users` to be assigned, to be analysed
    for tick in range(1, int(WINDOW / INTERVAL) + 1):
        now = tick * INTERVAL
        while arriving < len(users) and users[arriving][0] <= now:
            assigned[users[arriving][1]] += 1
            arriving += 1
        while maturing < len(users) and users[maturing][0] <= now - MATURITY:
            slice_ = users[maturing][1]
            matured[slice_] += 1
            for total, value in zip(sums[slice_], conversation(rng, arms[slice_]), strict=True):
                total[0] += value
                total[1] += value * value
            maturing += 1
        moments = {n: Measured(Moments(matured[0], *sums[0][i]), Moments(matured[1], *sums[1][i])) for i, n in enumerate(METRICS)}
        yield now, Evidence((assigned[0], assigned[1]), moments, window_over=now >= WINDOW)


def simulate(arms: tuple[Arm, Arm], runs: int, seed: int) -> Tally:
    """Decide `runs` rollouts; each ends with its first outcome that isn't Continue."""
    rng, tally = random.Random(seed), Tally()
    for _ in range(runs):
        for now, evidence in looks(rng, arms):
            outcome = assess(PLAN, evidence).outcome
            if outcome is not Outcome.CONTINUE:
                tally.outcomes[outcome] += 1
                if outcome is Outcome.ROLLBACK:
                    tally.rollback_seconds.append(now)
                break
    return tally


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="rollouts of each scenario")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    shown = (Outcome.PROMOTE, Outcome.ROLLBACK, Outcome.INCONCLUSIVE, Outcome.HOLD)
    print(f"| {'scenario (control -> candidate)':38} | " + " | ".join(f"{o:>12}" for o in shown) + " | median s to rollback |")
    print("| --- |" + " ---: |" * (len(shown) + 1))
    for name, arms in SCENARIOS.items():
        tally = simulate(arms, options.runs, options.seed)
        median = f"{statistics.median(tally.rollback_seconds):.0f}" if tally.rollback_seconds else ""
        print(f"| {name:38} | " + " | ".join(f"{tally.share(o):>12.1%}" for o in shown) + f" | {median:>20} |", flush=True)


if __name__ == "__main__":
    main()
