"""GPUs are given to the oldest first, never more than there are, and never kept from all."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.api.reasons import Reason
from flywheel.plan.gpu_budget import Claim, Limits, Standing, Wait, admitted, gpus, held, too_big
from tests.builders import T0, error_message, make_training_run, result_message
from tests.plan.training_world import World, started

FLYWHEELS = [None, "demo/a", "demo/b"]


def claim(name: str, *, held: int = 0, wanted: int = 0, age: int = 0, flywheel: str | None = None) -> Claim:
    """A run that was made so many minutes before T0."""
    return Claim(uid=f"u-{name}", name=f"demo/{name}", created=T0 - dt.timedelta(minutes=age), flywheel=flywheel, held=held, wanted=wanted)


def begins(claims: Sequence[Claim], limits: Limits) -> list[str]:
    return sorted(uid.removeprefix("u-") for uid in admitted(claims, limits))


def waits(name: str, claims: Sequence[Claim], limits: Limits) -> Wait:
    mine = next(c for c in claims if c.uid == f"u-{name}")
    wait = Standing(claims, limits).wait(mine)
    assert wait is not None
    return wait


def test_without_a_limit_everybody_begins() -> None:
    assert begins([claim("x", wanted=64), claim("y", held=64)], Limits()) == ["x"]


def test_the_oldest_begins_first_and_a_small_run_does_not_overtake_a_big_one_that_waits() -> None:
    runs = [claim("held", held=12), claim("big", wanted=8, age=2), claim("small", wanted=1, age=1)]
    assert begins(runs, Limits(16)) == []
    assert begins(runs, Limits(20)) == ["big"]
    assert begins(runs, Limits(21)) == ["big", "small"]


def test_a_run_that_its_own_flywheel_holds_back_is_not_in_the_way_of_others() -> None:
    runs = [
        claim("busy", held=4, flywheel="demo/a"),
        claim("next", wanted=4, age=9, flywheel="demo/a"),
        claim("small", wanted=1, age=8, flywheel="demo/a"),
        claim("other", wanted=8, flywheel="demo/b"),
    ]
    assert begins(runs, Limits(16, {"demo/a": 6})) == ["other"]


def test_a_run_that_can_never_begin_is_in_nobodys_way_and_is_told_why() -> None:
    runs = [claim("giant", wanted=32, age=9), claim("small", wanted=1)]
    assert begins(runs, Limits(16)) == ["small"]
    wait = waits("giant", runs, Limits(16))
    assert wait.reason is Reason.GPU_BUDGET_TOO_SMALL
    assert wait.message == "needs 32 GPUs, but the operator's gpuBudget is 16: it never begins; raise the budget, or ask for fewer GPUs"
    own = [replace(one, flywheel="demo/a") for one in runs]
    assert "spec.gpuBudget of Flywheel a is 4" in waits("giant", own, Limits(16, {"demo/a": 4})).message


def test_the_message_says_how_many_are_free_who_holds_the_others_and_who_goes_before() -> None:
    runs = [claim("x", held=8), claim("y", held=4), claim("big", wanted=8, age=2), claim("small", wanted=1, age=1)]
    wait = waits("big", runs, Limits(16))
    assert (wait.reason, wait.message) == (
        Reason.WAITING_FOR_GPUS,
        "needs 8 GPUs, 4 of the operator's 16 are free; demo/x (8), demo/y (4) hold the others",
    )
    assert waits("small", runs, Limits(16)).message.endswith("; demo/big goes before")
    own = [replace(one, flywheel="demo/a") for one in runs]
    assert "4 of the 16 of Flywheel a are free" in waits("big", own, Limits(100, {"demo/a": 16})).message


def test_a_lowered_limit_stops_nobody() -> None:
    assert begins([claim("x", held=8), claim("y", wanted=1)], Limits(4)) == []


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Claim], Limits]:
    limits = Limits(draw(st.none() | st.integers(0, 24)), draw(st.dictionaries(st.sampled_from(FLYWHEELS[1:]), st.integers(0, 16))))
    runs = []
    for number in range(draw(st.integers(1, 9))):
        amount = draw(st.integers(1, 12))
        flywheel, age = draw(st.sampled_from(FLYWHEELS)), draw(st.integers(0, 3))
        holds = draw(st.booleans()) and fits([*runs, claim("x", held=amount, flywheel=flywheel)], limits)
        kind = {"held": amount} if holds else {"wanted": amount}
        runs.append(claim(f"r{number}", flywheel=flywheel, age=age, **kind))
    return runs, limits


def fits(runs: Sequence[Claim], limits: Limits) -> bool:
    """Whether what is held stays below every limit."""
    if limits.operator is not None and sum(r.held for r in runs) > limits.operator:
        return False
    own = limits.flywheels or {}
    return all(sum(r.held for r in runs if r.flywheel == name) <= limit for name, limit in own.items())


def after(runs: Sequence[Claim], begun: frozenset[str]) -> list[Claim]:
    return [replace(r, held=r.wanted, wanted=0) if r.uid in begun else r for r in runs]


@given(worlds())
def test_all_that_begin_at_once_stay_below_every_limit(world: tuple[list[Claim], Limits]) -> None:
    runs, limits = world
    assert fits(after(runs, admitted(runs, limits)), limits)


@given(worlds())
def test_who_begins_depends_on_the_runs_alone_and_not_on_the_order_they_were_seen_in(world: tuple[list[Claim], Limits]) -> None:
    runs, limits = world
    assert admitted(runs, limits) == admitted(list(reversed(runs)), limits)


@given(worlds())
def test_what_could_begin_waits_only_for_an_older_run_that_the_same_limit_holds_back(world: tuple[list[Claim], Limits]) -> None:
    runs, limits = world
    begun = admitted(runs, limits)
    then = after(runs, begun)
    for run in (r for r in then if r.wanted and too_big(r, limits) is None):
        if not fits([replace(r, held=r.wanted, wanted=0) if r is run else r for r in then], limits):
            continue
        older = [r for r in then if r.wanted and r.place < run.place and too_big(r, limits) is None]
        assert [r for r in older if limits.operator is not None or r.flywheel == run.flywheel]


@given(worlds())
def test_the_oldest_run_is_the_first_to_get_what_becomes_free(world: tuple[list[Claim], Limits]) -> None:
    runs, limits = world
    waiting = sorted((r for r in runs if r.wanted and too_big(r, limits) is None), key=lambda r: r.place)
    if waiting:
        oldest = waiting[0]
        alone = fits([replace(r, held=r.wanted, wanted=0) if r is oldest else r for r in runs], limits)
        assert (oldest.uid in admitted(runs, limits)) == alone


@given(worlds(), st.data())
def test_every_run_that_fits_a_limit_gets_its_turn_whatever_ends_first(world: tuple[list[Claim], Limits], data: st.DataObject) -> None:
    """Nobody starves: younger ones keep coming, and after as many ends as there were older runs, each has begun."""
    runs, limits = world
    first = {r.uid for r in runs if too_big(replace(r, wanted=r.wanted or r.held), limits) is None}
    done: set[str] = set()
    for turn_ in range(4 * len(runs)):
        runs = after(runs, admitted(runs, limits))
        assert fits(runs, limits)
        holding = [r for r in runs if r.held]
        if not holding:
            break
        over = data.draw(st.sampled_from(holding))
        done.add(over.uid)
        runs = [r for r in runs if r is not over]
        if turn_ < 8:
            runs.append(claim(f"late{turn_}", wanted=data.draw(st.integers(1, 4)), age=-1, flywheel=data.draw(st.sampled_from(FLYWHEELS))))
    assert first <= done


@given(worlds())
def test_a_run_that_is_not_known_yet_is_told_what_it_would_be_if_it_were(world: tuple[list[Claim], Limits]) -> None:
    runs, limits = world
    for run in (r for r in runs if r.wanted):
        others = [r for r in runs if r is not run]
        assert Standing(others, limits).may(run) == (run.uid in admitted(runs, limits))


@given(worlds())
def test_everybody_who_may_not_begin_is_told_why(world: tuple[list[Claim], Limits]) -> None:
    runs, limits = world
    begun = admitted(runs, limits)
    for run in (r for r in runs if r.wanted):
        wait = Standing(runs, limits).wait(run)
        assert (wait is None) == (run.uid in begun)
        if wait is not None:
            assert f"needs {run.wanted} GPU" in wait.message
            assert wait.again > dt.timedelta(0)


# ------------------------------------------------------------------------------------------------------- one run's plan

WAIT = Wait(Reason.WAITING_FOR_GPUS, "needs 8 GPUs, 4 of the operator's 16 are free")


def queued(**spec: Any) -> World:
    """A run of 8 GPUs."""
    return World(run=make_training_run(gpusPerNode=8, **spec))


def test_a_run_that_has_to_wait_makes_no_job_and_holds_nothing() -> None:
    world = queued()
    world.gpu_wait = WAIT
    world.step()
    assert (world.created, world.attempts, world.run.status.gpus, world.phase) == ([], (), 0, "Pending")
    assert (world.reason, world.message) == ("WaitingForGPUs", WAIT.message)
    world.gpu_wait = None
    world.step(after=1)
    assert (len(world.created), world.run.status.gpus) == (1, 8)


def test_the_claim_is_on_record_before_the_job_is_made_and_is_kept_over_a_crash() -> None:
    world = queued()
    world.step(crash=True)
    assert (world.created, world.run.status.gpus) == ([], 8)
    world.step(after=1)
    assert len(world.created) == 1


def test_a_run_between_attempts_holds_nothing_and_asks_again_for_the_next() -> None:
    world = queued(retry={"limit": 3, "backoff": "10s"})
    world.step().starts().step(after=2).ends(75).step(after=1)
    assert (world.phase, world.run.status.gpus) == ("Retrying", 0)
    world.gpu_wait = WAIT
    world.step(after=60)
    assert (world.reason, len(world.created), world.run.status.gpus) == ("WaitingForGPUs", 1, 0)
    world.gpu_wait = None
    world.step(after=60)
    assert (len(world.created), world.run.status.gpus) == (2, 8)


def test_a_paused_run_holds_its_gpus_until_its_pod_has_stopped_and_asks_again_before_it_goes_on() -> None:
    world = queued()
    world.step().starts().step(after=2)
    world.edit(suspend=True)
    world.step(after=1).step(after=1)
    assert (world.job.suspended, world.run.status.gpus) == (True, 8)
    world.pod()
    world.step(after=1)
    assert world.run.status.gpus == 0
    world.gpu_wait = WAIT
    world.edit(suspend=False)
    world.step(after=1)
    assert (world.job.suspended, world.phase, world.reason) == (True, "Suspended", "WaitingForGPUs")
    world.gpu_wait = None
    world.step(after=1)
    assert (world.job.suspended, world.run.status.gpus) == (False, 8)


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (64, "Failed")])
def test_a_run_that_has_ended_holds_nothing(code: int, phase: str) -> None:
    world = queued()
    world.step().starts().step(after=2).ends(code, result_message() if code == 0 else error_message("InvalidConfig")).step(after=1)
    assert (world.phase, world.run.status.gpus) == (phase, 0)


def test_a_run_without_gpus_says_nothing_of_them() -> None:
    assert "gpus" not in started().run.status.dump()


def test_a_run_begun_by_an_operator_without_budgets_holds_what_it_asked_for() -> None:
    world = queued()
    world.step().starts().step(after=2)
    old = world.run.model_copy(update={"status": world.run.status.model_copy(update={"gpus": None})})
    assert held(old) == 8
    assert held(old.model_copy(update={"status": old.status.model_copy(update={"phase": "Suspended"})})) == 0
    world.run = old
    world.step(after=2)
    assert world.run.status.gpus == 8


def test_gpus_that_only_the_resources_name_count_as_well() -> None:
    assert gpus(make_training_run(gpusPerNode=4).spec) == 4
    assert gpus(make_training_run(resources={"limits": {"nvidia.com/gpu": "2"}}).spec) == 2
    assert gpus(make_training_run().spec) == 0
