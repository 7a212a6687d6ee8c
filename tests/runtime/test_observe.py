from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from flywheel.api.base import API_VERSION, Metadata
from flywheel.api.rollout import Rollout, RolloutStatus
from flywheel.api.training_run import TrainingRun
from flywheel.plan.base import Defaults
from flywheel.plan.rollout_observed import Acknowledgement, ErrorShare
from flywheel.plan.routes import UNREADABLE
from flywheel.runtime.cache import Cache, View
from flywheel.runtime.keys import Key
from flywheel.runtime.observe import Pace, Parser, Throttle, World, acknowledgements, observe_service
from flywheel.runtime.observe_flywheel import observe_flywheel
from flywheel.runtime.observe_generation import observe_generation
from flywheel.runtime.observe_rollout import observe_rollout
from tests.plan.rollout_world import rollout_spec
from tests.runtime.faketime import START

PROMOTE = {"verdict": "Promote", "reason": "SuccessProven", "message": "", "time": START, "revision": 1}
ROLLBACK = {**PROMOTE, "verdict": "Rollback", "reason": "GuardrailHarm"}
SECOND = dt.timedelta(seconds=1)


def test_the_outside_world_is_asked_at_most_every_so_often() -> None:
    asked: list[dt.datetime] = []

    async def main() -> list[int]:
        throttle = Throttle()

        async def ask() -> int:
            asked.append(START)
            return len(asked)

        return [await throttle.ask("x", 2 * SECOND, START + n * SECOND, ask) for n in (0, 1, 2, 3, 4)]

    assert asyncio.run(main()) == [1, 1, 2, 2, 3]


def test_a_clock_that_steps_back_does_not_silence_a_question() -> None:
    async def main() -> list[str]:
        throttle, answers = Throttle(), iter(["first", "second"])

        async def ask() -> str:
            return next(answers)

        return [await throttle.ask("x", SECOND, when, ask) for when in (START, START - dt.timedelta(hours=1))]

    assert asyncio.run(main()) == ["first", "second"]


def test_an_object_is_parsed_once_a_version() -> None:
    parser = Parser()
    body: dict[str, Any] = {"metadata": {"name": "r", "uid": "u", "resourceVersion": "1"}, "spec": {"method": "SFT"}}
    first = parser.parse(TrainingRun, body)
    assert parser.parse(TrainingRun, body) is first
    later = {**body, "metadata": {**body["metadata"], "resourceVersion": "2"}}
    assert parser.parse(TrainingRun, later) is not first


class Prometheus:
    """Has an answer to what it is asked."""

    async def error_share(self, namespace: str, service: str, generation: str) -> ErrorShare:
        return ErrorShare(failed=30, total=100)


@pytest.mark.parametrize(
    ("decided", "asked"),
    [({}, True), ({"decision": PROMOTE}, True), ({"decision": PROMOTE, "cutoverTime": START}, False), ({"decision": ROLLBACK}, False)],
)
def test_failed_replies_are_counted_until_the_router_has_confirmed_a_promotion(decided: dict[str, Any], asked: bool) -> None:
    rollout = Rollout(
        metadata=Metadata(name="r1", namespace="demo", uid="u-r1", resource_version="1"),
        spec=rollout_spec(),
        status=RolloutStatus.model_validate({"phase": "Promoting", "weights": {"intended": 50}, **decided}),
    )
    world = World(Defaults(), lambda address: Prometheus(), Routers(), None)  # type: ignore[arg-type, return-value]
    view = View(Cache(lambda key: None), Key("Rollout", "demo", "r1"))
    observed = asyncio.run(observe_rollout(view, {"kind": "Rollout", **rollout.dump()}, world, START))
    assert (observed.errors is not None) == asked


class Routers:
    """Remembers which pods were asked."""

    def __init__(self) -> None:
        self.asked: dict[str, str] = {}

    async def acknowledgements(self, pods: Any) -> tuple[Acknowledgement, ...]:
        self.asked = dict(pods)
        return tuple(Acknowledgement(pod, 1, True) for pod in pods)


def in_service(kind: str, name: str, *, component: str = "router", **more: Any) -> dict[str, Any]:
    labels = {"modelflywheel.dev/flywheel": "f", "modelflywheel.dev/component": component, "app": component}
    meta = {"name": name, "namespace": "demo", "uid": name, "resourceVersion": "1", "labels": labels, **more.pop("metadata", {})}
    return {"kind": kind, "metadata": meta, **more}


def router_pod(name: str, *, ready: bool = True, **metadata: Any) -> dict[str, Any]:
    status = {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    return in_service("Pod", name, status=status, metadata=metadata)


def test_only_router_pods_that_take_traffic_have_to_confirm() -> None:
    cache = Cache(lambda key: None)
    cache.put(in_service("Deployment", "f-router", spec={"selector": {"matchLabels": {"app": "router"}}}))
    cache.put(router_pod("serves"))
    cache.put(router_pod("starts", ready=False))
    cache.put(router_pod("leaves", deletionTimestamp="2026-01-01T00:00:00Z"))
    cache.put(in_service("Pod", "collector", component="collector", status={}))
    routers = Routers()
    world = World(Defaults(), lambda address: None, routers, None)  # type: ignore[arg-type, return-value]
    service = observe_service(View(cache, Key("Rollout", "demo", "r")), "f")
    assert [a.pod for a in asyncio.run(acknowledgements(world, service, "f"))] == ["serves"]
    assert routers.asked == {"serves": "10.0.0.1"}


@pytest.mark.parametrize("data", [None, {}, {"routes.json": ""}, {"routes.json": "{}"}, {"routes.json": "[" * 50_000}, {"other": "x"}])
def test_routes_that_nobody_can_read_are_known_to_be_there_so_that_they_can_be_overwritten(data: Any) -> None:
    cache = Cache(lambda key: None)
    cache.put(in_service("ConfigMap", "f-routes", component="routes", data=data))
    state = observe_service(View(cache, Key("Flywheel", "demo", "f")), "f").routes
    assert state is not None
    assert (state.routes, state.resource_version) == (UNREADABLE, "1")


class Numbers:
    """A Prometheus that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def conversations(self, namespace: str, service: str) -> float | None:
        self.asked.append((namespace, service))
        return 7.0


def test_conversations_of_a_flywheel_of_the_same_name_elsewhere_do_not_count() -> None:
    numbers = Numbers()
    world = World(Defaults(), lambda address: numbers, Routers(), None)  # type: ignore[arg-type, return-value]
    meta = {"name": "f", "namespace": "lab", "uid": "u", "resourceVersion": "1"}
    body = {"metadata": meta, "spec": {"base": {"uri": "file:///flywheel/a", "digest": "sha256:" + "a" * 64}}}
    view = View(Cache(lambda key: None), Key("Flywheel", "lab", "f"))
    assert asyncio.run(observe_flywheel(view, body, world, START)).conversations == 7
    assert numbers.asked == [("lab", "f")]


@pytest.mark.parametrize(("status", "seen"), [({}, ["g0", "g1"]), ({"revision": 1}, [])])
def test_a_lap_looks_at_those_before_it_when_it_begins_and_is_not_woken_by_them_afterwards(status: dict[str, Any], seen: list[str]) -> None:
    def body(kind: str, name: str, service: str, **more: Any) -> dict[str, Any]:
        meta = {"name": name, "namespace": "demo", "uid": f"u-{name}", "resourceVersion": "1"}
        return {"kind": kind, "metadata": meta, "spec": {"flywheel": service}, **more}

    cache, own = Cache(lambda key: None), body("Generation", "g1", "f", status=status)
    rollout = body("Rollout", "r0", "f")
    rollout["spec"] = {**rollout_spec().dump(), "flywheel": "f"}
    for one in (own, body("Generation", "g0", "f"), body("Generation", "x0", "other"), rollout):
        cache.put(one)
    world = World(Defaults(), lambda address: None, Routers(), None)  # type: ignore[arg-type, return-value]
    view = View(cache, Key("Generation", "demo", "g1"))
    observed = asyncio.run(observe_generation(view, own, world, START))
    assert [g.metadata.name for g in observed.siblings] == seen
    assert [r.metadata.name for r in observed.rollouts] == ["r0"]


@pytest.mark.parametrize(("owner", "seen"), [("lap", True), ("another", False), (None, False)])
def test_a_rollout_of_the_right_name_is_the_laps_answer_only_if_the_lap_owns_it(owner: str | None, seen: bool) -> None:
    cache = Cache(lambda key: None)
    rollout = Rollout(metadata=Metadata(name="r", namespace="demo", uid="r"), spec=rollout_spec()).dump()
    owners = [{"apiVersion": API_VERSION, "kind": "Generation", "name": "g", "uid": owner}] if owner else []
    cache.put({**rollout, "kind": "Rollout", "metadata": {**rollout["metadata"], "resourceVersion": "1", "ownerReferences": owners}})
    meta = {"name": "g", "namespace": "demo", "uid": "lap", "resourceVersion": "1"}
    body = {"metadata": meta, "spec": {"flywheel": "f"}, "status": {"rollout": "r"}}
    world = World(Defaults(), lambda address: None, Routers(), None)  # type: ignore[arg-type, return-value]
    observed = asyncio.run(observe_generation(View(cache, Key("Generation", "demo", "g")), body, world, START))
    assert (observed.rollout is not None) == seen


PINNED = "registry.example/trainer@sha256:" + "1" * 64


@pytest.mark.parametrize(
    ("image", "spec", "status", "seen"),
    [
        (PINNED, {}, {}, ["old"]),
        ("registry.example/trainer:v1", {}, {}, []),
        ("registry.example/trainer:v1", {"cache": "Always"}, {}, ["old"]),
        (PINNED, {"cache": "Never"}, {}, []),
        (PINNED, {}, {"stages": [{"name": "curate", "kind": "TrainingRun", "phase": "Running"}]}, []),
        (PINNED, {}, {"rollout": "r"}, []),
    ],
)
def test_a_lap_looks_at_earlier_runs_only_while_one_may_save_it_its_own(
    image: str, spec: dict[str, Any], status: dict[str, Any], seen: list[str]
) -> None:
    cache, meta = Cache(lambda key: None), {"namespace": "demo", "resourceVersion": "1"}
    lap = {"flywheel": "f", "stages": [{"name": "curate", "run": {"method": "Curate"}}], **spec}
    cache.put({"kind": "ControllerRevision", "metadata": {**meta, "name": "snap", "uid": "s"}, "data": {"spec": lap}})
    for name, label in (("old", "f"), ("foreign", "x")):
        labels = {"modelflywheel.dev/flywheel": label}
        run = {"kind": "TrainingRun", "metadata": {**meta, "name": name, "uid": name, "labels": labels}, "spec": {"method": "Curate"}}
        cache.put(run)
    own = {"metadata": {**meta, "name": "g", "uid": "g"}, "spec": lap, "status": {"revision": 1, "snapshot": "snap", **status}}
    world = World(Defaults(trainer_image=image), lambda address: None, Routers(), None)  # type: ignore[arg-type, return-value]
    observed = asyncio.run(observe_generation(View(cache, Key("Generation", "demo", "g")), own, world, START))
    assert [run.metadata.name for run in observed.earlier_runs] == seen


@pytest.mark.parametrize(("baseline", "seen"), [("Absolute", []), ("Champion", ["g0"])])
def test_a_champions_record_is_read_when_a_gate_is_measured_against_it(baseline: str, seen: list[str]) -> None:
    cache, meta = Cache(lambda key: None), {"namespace": "demo", "resourceVersion": "1"}
    gate = {"metric": "loss", "operator": "LessThan", "value": 1, "baseline": baseline}
    lap = {"flywheel": "f", "stages": [{"name": "curate", "run": {"method": "Curate"}, "gates": [gate]}]}
    cache.put({"kind": "ControllerRevision", "metadata": {**meta, "name": "snap", "uid": "s"}, "data": {"spec": lap}})
    for name, service in (("g0", "f"), ("x0", "other")):
        cache.put({"kind": "Generation", "metadata": {**meta, "name": name, "uid": name}, "spec": {"flywheel": service}})
    champions = {role: {"generation": name, "uri": "file:///m", "digest": "d"} for role, name in (("parent", "g0"), ("opponent", "x0"))}
    own = {"metadata": {**meta, "name": "g", "uid": "g"}, "spec": lap, "status": {"revision": 1, "snapshot": "snap", **champions}}
    world = World(Defaults(), lambda address: None, Routers(), None)  # type: ignore[arg-type, return-value]
    observed = asyncio.run(observe_generation(View(cache, Key("Generation", "demo", "g")), own, world, START))
    assert sorted(observed.records) == seen


def test_the_stages_of_a_lap_are_those_that_were_worked_out_at_its_start() -> None:
    cache, meta = Cache(lambda key: None), {"namespace": "demo", "resourceVersion": "1"}
    then = [{"name": "only", "run": {"method": "Curate"}}]
    cache.put(
        {
            "kind": "ControllerRevision",
            "metadata": {**meta, "name": "snap", "uid": "s"},
            "data": {"spec": {"flywheel": "f"}, "stages": then},
        }
    )
    own = {"metadata": {**meta, "name": "g", "uid": "g"}, "spec": {"flywheel": "f"}, "status": {"revision": 1, "snapshot": "snap"}}
    world = World(Defaults(), lambda address: None, Routers(), None)  # type: ignore[arg-type, return-value]
    observed = asyncio.run(observe_generation(View(cache, Key("Generation", "demo", "g")), own, world, START))
    assert [stage.name for stage in observed.stages or ()] == ["only"]


@pytest.mark.parametrize(("trainers", "seconds"), [(1, 2), (50, 2), (100, 4), (1000, 40)])
def test_trainers_are_asked_every_two_seconds_and_less_often_the_more_there_are(trainers: int, seconds: float) -> None:
    pace = Pace(dt.timedelta(seconds=2), 25.0)
    for number in range(trainers):
        interval = pace.interval(f"pod-{number}", START)
    assert interval == dt.timedelta(seconds=seconds)


def test_trainers_that_have_ended_make_room_for_the_others() -> None:
    pace = Pace(dt.timedelta(seconds=2), 25.0)
    for number in range(1000):
        pace.interval(f"pod-{number}", START)
    assert pace.interval("pod-0", START + dt.timedelta(seconds=90)) == dt.timedelta(seconds=2)


@pytest.mark.parametrize("days", [-1, 1])
def test_a_wall_clock_that_jumps_leaves_no_trainer_slow_for_ever(days: int) -> None:
    pace, jumped = Pace(dt.timedelta(seconds=2), 25.0), START + dt.timedelta(days=days)
    for number in range(1000):
        pace.interval(f"old-{number}", START)
    assert [pace.interval("one", jumped), pace.interval("two", jumped)] == [dt.timedelta(seconds=2)] * 2
