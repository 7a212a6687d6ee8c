"""Two laps, one to a promotion and one to a rollback, and the operator's death before and after every single write of them.

A death takes everything that is in memory; what is left is the API server as it stood. So each killed run begins with a copy of that, taken
in the undisturbed run around a write, and an operator with empty hands.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from flywheel.api.generation import TERMINAL_GENERATION_PHASES
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES
from flywheel.plan.base import LABEL
from flywheel.stats.verdict import Evidence
from tests.differences import differences
from tests.plan.rollout_world import BETTER, EQUAL, WORSE, evidence
from tests.runtime import faketime
from tests.runtime.simulated_api import State
from tests.runtime.simulated_cluster import SimulatedCluster, rendered_once

BASE = {"uri": "file:///flywheel/models/base", "digest": "sha256:" + "a" * 64}
CURATED = {"type": "Stage", "stage": "curate"}
JUDGE = {"name": "judge", "role": "Judge", "from": {"type": "Stage", "stage": "judge"}}
STAGES = [
    {"name": "curate", "run": {"method": "Curate"}},
    {
        "name": "judge",
        "rewardModel": {
            "training": {"method": "Reward", "model": {"type": "Base"}, "datasets": [{"name": "train", "from": CURATED}]},
        },
    },
    {"name": "sft", "run": {"method": "SFT", "model": {"type": "Base"}, "datasets": [{"name": "train", "from": CURATED}]}},
    {
        "name": "evaluate",
        "run": {
            "method": "Evaluate",
            "model": {"type": "Stage", "stage": "sft"},
            "opponent": {"type": "Champion"},
            "datasets": [{"name": "user", "from": CURATED}],
            "rewards": [JUDGE],
        },
        "gates": [{"metric": "win_rate_user_lower", "operator": "GreaterThan", "value": 0.5}],
    },
]
ROLLOUT = {
    "traffic": {"steps": [{"weightPercent": 5, "duration": "2s"}, {"weightPercent": 50}]},
    "analysis": {"interval": "2s", "window": "4s", "horizon": "2s", "minimumUsers": 50},
    "watch": {"duration": "3s"},
}
FLYWHEEL = {
    "base": BASE,
    "trigger": {"newConversations": 50},
    "generationTemplate": {"stages": STAGES, "rollout": ROLLOUT},
}
CONVERSATIONS = {1: 60.0, 2: 120.0}  # enough for one lap, then for another
SHARDS = 6
RESTART = 1.0  # seconds until the next operator has read everything
PATIENCE = 120  # seconds for what is left of a lap
QUIET = 6  # seconds after it, in which what nobody needs goes
AT_ONCE = 0.05  # seconds in which nothing but requests and answers travels


@dataclass(frozen=True)
class Death:
    """A point at which the operator dies: the API server as it stands then."""

    where: str
    time: dt.datetime
    state: State


@dataclass
class Lap:
    """The undisturbed run of a lap: how it ended, and the deaths that it could have met."""

    number: int
    end: Death
    writes: int
    deaths: list[Death]


async def live_through(number: int, start: Death, deaths: list[Death] | None = None) -> Death:
    """The rest of a lap, by an operator that has just been started; with `deaths`, every write of it is noted there."""
    cluster = SimulatedCluster(start.state.copy(), start.time)
    cluster.kept = lambda: CONVERSATIONS[number]
    cluster.answer = users
    if number == 1 and not cluster.state.objects:
        cluster.make("Flywheel", "demo", FLYWHEEL)
    if deaths is not None:
        cluster.api.before = lambda what: deaths.append(Death(f"before {what}", cluster.now(), cluster.state.copy()))
        cluster.api.after = lambda what: deaths.append(Death(f"after {what}", cluster.now(), cluster.state.copy()))
    await cluster.live(RESTART)
    async with cluster.operator() as operator:
        for _ in range(PATIENCE):
            await cluster.live(1)
            if laps_over(cluster.state) == number:
                break
        await cluster.live(QUIET)
        assert operator.errors == []
    return Death("at the end", cluster.now(), cluster.state)


def users(experiment: str) -> Evidence:
    """The first candidate is better in what counts, the second is worse."""
    return evidence(EQUAL, BETTER if "demo-1-" in experiment else WORSE)


def laps_over(state: State) -> int:
    """How many laps have ended, and their Rollouts with them."""
    laps = {b["metadata"]["uid"] for b in state.every("Generation") if b.get("status", {}).get("phase") in TERMINAL_GENERATION_PHASES}
    over = [b for b in state.every("Rollout") if b.get("status", {}).get("phase") in TERMINAL_ROLLOUT_PHASES]
    return sum(1 for body in over if body["metadata"]["ownerReferences"][0]["uid"] in laps)


@cache
def undisturbed(number: int) -> Lap:
    """A lap without a death, and every distinct death around its writes: the one after a write is also the one before the next write,
    if both leave the API server the same."""
    start = undisturbed(number - 1).end if number > 1 else Death("at the beginning", faketime.START, State())
    met: list[Death] = []
    with rendered_once():
        end = faketime.run(live_through(number, start, met))
    deaths = [
        death
        for before, death in zip([start, *met], met, strict=False)
        if death.state.version != before.state.version or (death.time - before.time).total_seconds() > AT_ONCE
    ]
    return Lap(number, end, len(met) // 2, deaths)


# ---------------------------------------------------------------------------------------------------------------- comparison

CLOCK = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?")
COUNTERS = {"resourceVersion", "percent", "progress", "etaSeconds", "cpuSeconds"}  # of what was seen on the way, or how long it took
# A lap's record has times in it: the hashes of its run's ConfigMap, checkpoints and spec follow from when things happened.
RECORDS = re.compile(r"(-record-[0-9a-f]{8}(?:-a\d+-[0-9a-f]{8}-|\.\d+/))[0-9a-f]{8}")


def outcome(state: State) -> dict[str, Any]:
    """Everything that a lap leaves behind, but for when it happened."""
    first = state.routes[0]["revision"]
    routes = [{**words, "revision": words["revision"] - first} for words in state.routes]
    objects = {timeless(f"{ref.kind} {ref.name}", first): timeless(unhashed(body), first) for ref, body in state.objects.items()}
    assert len(objects) == len(state.objects)
    made = {timeless(f"{ref.kind} {ref.name}", first): count for ref, count in state.made.items()}
    return {"objects": objects, "made": made, "routes": routes, "experiments": timeless(state.experiments, first)}


def unhashed(body: Any) -> Any:
    """A run that writes a record, without the hash of its spec."""
    if body["kind"] != "TrainingRun" or LABEL + "record" not in body["metadata"]["labels"]:
        return body
    status = body["status"]
    return {**body, "status": {**status, "attempts": [{**a, "specHash": "<content>"} for a in status["attempts"]]}}


def timeless(value: Any, first: int) -> Any:
    """Without times, and with revisions of the routes counted from the first, which is a time."""
    if isinstance(value, dict):
        return {key: timeless(item, first) for key, item in value.items() if key not in COUNTERS}
    if isinstance(value, list):
        return [timeless(item, first) for item in value]
    if isinstance(value, str):
        value = re.sub(r'"(revision|cpuSeconds)": ?[\d.]+', "", RECORDS.sub(r"\1-<content>", value))
        return CLOCK.sub("<time>", value)
    return value - first if isinstance(value, int) and value >= first else value


# --------------------------------------------------------------------------------------------------------------------- tests


def test_undisturbed_the_first_candidate_is_promoted_and_the_second_rolled_back() -> None:
    state = undisturbed(2).end.state
    champion = state.every("Flywheel")[0]["status"]["champion"]
    ends = {b["metadata"]["name"]: (b["status"]["phase"], b["status"]["decision"]["reason"]) for b in state.every("Generation")}
    assert ends == {"demo-1": ("Promoted", "Promoted"), "demo-2": ("RolledBack", "RolledBack")}
    reasons = [(b["status"]["decision"]["verdict"], b["status"]["decision"]["reason"]) for b in state.every("Rollout")]
    assert reasons == [("Promote", "SuccessProven"), ("Rollback", "GuardrailHarm")]
    assert champion["generation"] == "demo-1"
    assert [words["weightPercent"] for words in state.routes] == [0, 5, 50, 0, 5, 0]
    assert len(state.every("Job")) == 10  # four stages and a record each
    records = [b["status"] for b in state.every("Generation")]
    assert [r["record"]["verdict"] for r in records] == ["Promoted", "RolledBack"]
    assert all(r["recordArtifact"]["kind"] == "dataset" for r in records)
    for number in (1, 2):
        lap = undisturbed(number)
        print(f"\nlap {number}: {lap.writes} writes, {2 * lap.writes} deaths, {len(lap.deaths)} of them distinct")


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("number", [1, 2], ids=["to the promotion", "to the rollback"])
def test_an_operator_that_dies_before_or_after_any_write_changes_no_name_no_count_and_no_decision(number: int, shard: int) -> None:
    lap = undisturbed(number)
    expected = outcome(lap.end.state)
    with rendered_once():
        for death in lap.deaths[shard::SHARDS]:
            found = outcome(faketime.run(live_through(number, death)).state)
            assert list(differences(expected, found)) == [], f"the operator died {death.where}"
