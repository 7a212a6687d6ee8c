"""A lap that takes a result over, is approved, and tries a stage again, beside one whose time is over: and the operator's death before and
after every write of it. Both are made by hand and ask no users, so that only what people and policies bring about is written."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from flywheel.api.base import format_time
from tests.differences import differences
from tests.runtime import faketime
from tests.runtime.simulated_api import Body, Ref, State
from tests.runtime.simulated_cluster import SimulatedCluster, rendered_once, result
from tests.runtime.test_killed_anywhere import AT_ONCE, BASE, RESTART, Death, Lap, outcome

DATA = [{"name": "train", "from": {"type": "Uri", "uri": "file:///flywheel/data", "digest": "sha256:" + "d" * 64}}]
SFT = {"name": "sft", "run": {"method": "SFT", "model": {"type": "Base"}, "datasets": DATA}}
DPO = {
    "name": "dpo",
    "run": {"method": "DPO", "model": {"type": "Stage", "stage": "sft"}, "datasets": DATA, "retry": {"limit": 0}},
    "retry": {"limit": 1, "backoff": "2s"},
}
FIRST = {"flywheel": "demo", "stages": [SFT], "ttlAfterFinished": "25s"}
SECOND = {"flywheel": "demo", "stages": [{**SFT, "approval": {"message": "its samples"}}, DPO], "cache": "Always"}
SHARDS = 3
PATIENCE = 60


def first_try_fails(pod: Body) -> tuple[int, str]:
    """Of the DPO run's attempts the first."""
    name = pod["metadata"]["name"]
    return (1, "Traceback") if "-dpo-" in name and "-a1-" in name else (0, result(pod))


def speak(cluster: SimulatedCluster) -> None:
    """Somebody approves whatever waits."""
    for body in cluster.state.every("Generation"):
        waiting = [s for s in (body.get("status") or {}).get("stages") or () if s["phase"] == "AwaitingApproval"]
        said = [
            {
                "stage": s["name"],
                "digest": s["artifact"]["digest"],
                "decision": "Approve",
                "by": "alice",
                "time": format_time(cluster.now()),
            }
            for s in waiting
        ]
        if said and not body["spec"].get("approvals"):
            cluster.api.put({**body, "spec": {**body["spec"], "approvals": said}})


def phase(state: State, name: str) -> Any:
    body = state.objects.get(Ref("Generation", name))
    return (body.get("status") or {}).get("phase") if body else "gone"


async def live_through(start: Death, deaths: list[Death] | None = None) -> Death:
    """From an operator's start until the second lap has ended and the first is gone."""
    cluster = SimulatedCluster(start.state.copy(), start.time)
    cluster.ends = first_try_fails
    if deaths is not None:
        cluster.api.before = lambda what: deaths.append(Death(f"before {what}", cluster.now(), cluster.state.copy()))
        cluster.api.after = lambda what: deaths.append(Death(f"after {what}", cluster.now(), cluster.state.copy()))
    await cluster.live(RESTART)
    async with cluster.operator() as operator:
        for _ in range(PATIENCE):
            await cluster.live(1)
            speak(cluster)
            if (phase(cluster.state, "first"), phase(cluster.state, "second")) == ("gone", "Completed"):
                break
        await cluster.live(3)
        assert operator.errors == []
    return Death("at the end", cluster.now(), cluster.state)


async def prepare() -> Death:
    """A service, and a first lap that has ended; the second has just been asked for."""
    cluster = SimulatedCluster()
    cluster.make("Flywheel", "demo", {"base": BASE})
    cluster.make("Generation", "first", FIRST)
    async with cluster.operator():
        for _ in range(PATIENCE):
            await cluster.live(1)
            if phase(cluster.state, "first") == "Completed":
                break
    cluster.make("Generation", "second", SECOND)
    return Death("at the beginning", cluster.now(), cluster.state)


@cache
def undisturbed() -> Lap:
    """The run without a death, and every distinct death around its writes."""
    with rendered_once():
        start = faketime.run(prepare())
        met: list[Death] = []
        end = faketime.run(live_through(start, met))
    deaths = [
        death
        for before, death in zip([start, *met], met, strict=False)
        if death.state.version != before.state.version or (death.time - before.time).total_seconds() > AT_ONCE
    ]
    return Lap(1, end, len(met) // 2, deaths)


def test_undisturbed_the_second_lap_takes_over_is_approved_and_tries_again_and_the_first_goes() -> None:
    lap = undisturbed()
    state = lap.end.state
    assert (phase(state, "first"), phase(state, "second")) == ("gone", "Completed")
    (second,) = state.every("Generation")
    sft, dpo = second["status"]["stages"]
    assert sft["reusedFrom"].startswith("first-sft-")
    assert not any("second-sft-" in body["metadata"]["name"] for body in state.every("TrainingRun"))
    assert (dpo["retries"], dpo["phase"]) == (1, "Passed")
    assert [(a["by"], a["decision"]) for a in second["status"]["approvals"]] == [("alice", "Approve")]
    (run,) = [body for body in state.every("TrainingRun") if "-dpo-" in body["metadata"]["name"]]
    assert [a.get("exitCode") for a in run["status"]["attempts"]] == [1, 0]
    print(f"\n{lap.writes} writes, {2 * lap.writes} deaths, {len(lap.deaths)} of them distinct")


@pytest.mark.parametrize("shard", range(SHARDS))
def test_an_operator_that_dies_before_or_after_any_write_decides_nothing_twice_and_loses_no_word(shard: int) -> None:
    lap = undisturbed()
    expected = outcome_of(lap.end.state)
    with rendered_once():
        for death in lap.deaths[shard::SHARDS]:
            found = outcome_of(faketime.run(live_through(death)).state)
            assert list(differences(expected, found)) == [], f"the operator died {death.where}"


def outcome_of(state: State) -> dict[str, Any]:
    """What is left. Only this compares what people wrote, too."""
    found = outcome(state)
    assert found["objects"]["Generation second"]["spec"]["approvals"]
    return found
