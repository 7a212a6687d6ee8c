from __future__ import annotations

import asyncio
import copy
import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest

from flywheel.plan.base import Action, Apply, Create, Delete, Emit, Plan, PutExperiment
from flywheel.plan.parts import UNKNOWN
from flywheel.ports import ClusterError, Conflict, NameConflict
from flywheel.runtime.cache import OURS, Cache, View
from flywheel.runtime.keys import Key
from flywheel.runtime.metrics import Metrics
from flywheel.runtime.reconcile import Reconciler
from tests.runtime.faketime import START

KEY = Key("Rollout", "demo", "r")
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j", "namespace": "demo"}}


class FixedClock:
    def now(self) -> dt.datetime:
        return START


class FakeCluster:
    """Remembers writes in their order; fails where it is told to."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.version = 100

    def _write(self, what: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if what.split()[0] in self.errors:
            raise self.errors[what.split()[0]]
        self.log.append(what)
        self.version += 1
        written = copy.deepcopy(dict(body))
        written["metadata"] = {"uid": "new", **written["metadata"], "resourceVersion": str(self.version)}
        return written

    async def apply(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return self._write(f"apply {manifest['metadata']['name']}", manifest)

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        return self._write(f"create {manifest['metadata']['name']}", manifest)

    async def delete(self, api_version: str, kind: str, namespace: str, name: str, uid: str) -> None:
        self.log.append(f"delete {name} {uid}")

    async def patch_status(self, body: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
        return self._write(f"status {status.get('phase')}", {**body, "status": status})

    async def emit(self, body: dict[str, Any], type_: str, reason: str, message: str) -> None:
        self.log.append(f"emit {reason}")

    async def put(self, collector: str, experiment: str, definition: Mapping[str, Any]) -> None:
        if "experiment" in self.errors:
            raise self.errors["experiment"]
        self.log.append(f"experiment {experiment}")


class World:
    """One Rollout and a planner that plans what it is told to."""

    def __init__(self, plan: Plan, status: dict[str, Any] | None = None, **metadata: Any) -> None:
        self.cluster, self.metrics = FakeCluster(), Metrics()
        self.woken: list[Key] = []
        self.cache = Cache(self.woken.append)
        meta = {"name": "r", "namespace": "demo", "uid": "u", "resourceVersion": "7", "generation": 3, **metadata}
        body = {"apiVersion": "modelflywheel.dev/v1alpha1", "kind": "Rollout", "metadata": meta, "spec": {}, "status": status or {}}
        self.cache.put(body)
        self.woken.clear()
        self.plan, self.views = plan, list[View]()
        self.error: Exception | None = None
        self.reconciler = Reconciler(self.cache, self.cluster, self.cluster, FixedClock(), self.metrics, {"Rollout": self._plan})

    async def _plan(self, view: View, body: dict[str, Any], now: dt.datetime) -> Plan:
        self.views.append(view)
        if self.error is not None:
            raise self.error
        return self.plan

    def passes(self) -> Any:
        return asyncio.run(self.reconciler.reconcile(KEY))

    def fails(self, error: Exception, failures: int) -> None:
        asyncio.run(self.reconciler.failed(KEY, error, failures))

    def condition(self) -> dict[str, Any] | None:
        status = (self.cache.get(KEY) or {}).get("status") or {}
        return next((c for c in status.get("conditions", ()) if c["type"] == "Reconciled"), None)


def plan(phase: str, *actions: Action, requeue_at: dt.datetime | None = None) -> Plan:
    return Plan({"phase": phase}, actions, requeue_at)


def test_the_decision_is_on_record_before_anything_acts_on_it() -> None:
    acts = (
        Create(JOB),
        Apply(JOB),
        Delete("v1", "Pod", "demo", "p", "x"),
        PutExperiment("http://c", "e", {}),
        Emit("Normal", "Said", "so"),
    )
    world = World(plan("Promoting", *acts))
    world.passes()
    assert world.cluster.log == ["status Promoting", "create j", "apply j", "delete p x", "experiment e", "emit Said"]


def test_an_experiment_that_counts_by_its_first_definition_holds_up_no_routes() -> None:
    world = World(plan("Progressing", PutExperiment("http://c", "e", {}), Apply(JOB)))
    world.cluster.errors["experiment"] = ClusterError("defined otherwise", status=409, retryable=False)
    world.passes()
    assert world.cluster.log == ["status Progressing", "emit ExperimentKept", "apply j"]


def test_nothing_is_done_when_the_decision_could_not_be_put_on_record() -> None:
    world = World(plan("Promoting", Create(JOB)))
    world.cluster.errors["status"] = Conflict("written in between", status=409, retryable=True)
    with pytest.raises(Conflict):
        world.passes()
    assert world.cluster.log == []


def test_an_unchanged_status_is_not_written() -> None:
    world = World(plan("Progressing"), {"phase": "Progressing"})
    world.passes()
    assert world.cluster.log == []


def test_an_action_that_was_lost_in_a_crash_is_done_by_the_next_pass_without_a_new_decision() -> None:
    world = World(plan("Promoting", Create(JOB)), {"phase": "Promoting"})
    world.passes()
    assert world.cluster.log == ["create j"]


def test_the_next_pass_sees_our_own_write_before_the_watch_tells_of_it() -> None:
    world = World(plan("Promoting", Create(JOB)))
    world.passes()
    held = world.cache.get(KEY)
    assert held is not None
    assert held["status"] == {"phase": "Promoting"}
    assert world.cache.get(Key("Job", "demo", "j")) is not None


def test_an_object_that_was_deleted_meanwhile_is_let_go() -> None:
    world = World(plan("Promoting", Create(JOB)))
    world.cluster.errors["status"] = ClusterError("not found", status=404, retryable=False)
    world.passes()
    assert world.cluster.log == []


def test_an_object_on_its_way_out_makes_nothing_new() -> None:
    world = World(plan("Promoting", Create(JOB)), deletionTimestamp="2026-01-01T00:00:00Z")
    world.passes()
    assert world.cluster.log == []
    assert world.views == []


def test_an_object_that_is_not_there_is_gone() -> None:
    world = World(plan("Pending"))
    world.cache.remove({"kind": "Rollout", "metadata": {"name": "r", "namespace": "demo", "uid": "u"}})
    assert world.passes().gone


def test_the_plans_next_look_is_the_loops() -> None:
    later = START + dt.timedelta(hours=1)
    assert World(plan("Pending", requeue_at=later)).passes().requeue_at == later


def test_what_a_pass_looked_at_wakes_it_even_when_the_pass_failed() -> None:
    world = World(plan("Pending"))

    async def look_and_fail(view: View, body: dict[str, Any], now: dt.datetime) -> Plan:
        view.get("Job", "j")
        raise ValueError("a bug")

    world.reconciler._planners["Rollout"] = look_and_fail
    with pytest.raises(ValueError, match="a bug"):
        world.passes()
    world.cache.put({"kind": "Job", "metadata": {"name": "j", "namespace": "demo", "uid": "x", "resourceVersion": "9"}})
    assert world.woken == [KEY]


def test_an_error_that_may_pass_is_shown_on_the_object_after_three_tries() -> None:
    world = World(plan("Pending"))
    error = ClusterError("etcd is away", status=500, retryable=True)
    world.fails(error, 1)
    world.fails(error, 2)
    assert world.condition() is None
    world.fails(error, 3)
    shown = world.condition()
    assert shown is not None
    assert (shown["status"], shown["reason"]) == ("False", "RetryableError")
    assert "etcd is away" in shown["message"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NameConflict("Job j exists and belongs to them", status=409, retryable=True), "NameConflict"),
        (ClusterError("forbidden", status=403, retryable=False), "RetryableError"),
    ],
)
def test_an_error_that_no_retry_mends_is_shown_at_once(error: Exception, reason: str) -> None:
    world = World(plan("Pending"))
    world.fails(error, 1)
    shown = world.condition()
    assert shown is not None
    assert shown["reason"] == reason


def test_the_same_error_is_written_once_and_its_time_stays() -> None:
    world = World(plan("Pending"))
    for failures in range(3, 9):
        world.fails(ClusterError("etcd is away", status=500, retryable=True), failures)
    assert [line for line in world.cluster.log if line.startswith("status")] == ["status None"]


def test_an_error_that_has_passed_is_taken_back() -> None:
    world = World(plan("Pending"))
    world.fails(ClusterError("forbidden", status=403, retryable=False), 1)
    world.plan = Plan(dict((world.cache.get(KEY) or {})["status"]))
    world.passes()
    shown = world.condition()
    assert shown is not None
    assert shown["status"] == "True"


def test_the_planner_is_told_what_the_server_refused_until_a_pass_goes_through() -> None:
    world = World(plan("Pending", Create(JOB)))
    world.cluster.errors["create"] = ClusterError("exceeded quota", status=403, retryable=False)
    with pytest.raises(ClusterError):
        world.passes()
    world.cluster.errors.clear()
    world.passes()
    world.passes()
    assert [view.refused for view in world.views] == [None, "exceeded quota", None]


def test_a_verdict_is_counted_once() -> None:
    decided = Plan({"phase": "Promoting", "decision": {"verdict": "Promote", "reason": "SuccessProven", "time": "t"}})
    world = World(decided)
    world.passes()
    world.passes()
    labels = {"kind": "Rollout", "verdict": "Promote", "reason": "SuccessProven"}
    assert world.metrics.registry.get_sample_value("flywheel_verdicts_total", labels) == 1.0


def test_a_part_that_a_webhook_rewrites_at_every_apply_is_let_be_and_a_later_edit_is_seen() -> None:
    stated = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "demo"}, "spec": {"selector": {"a": "b"}}}
    world = World(plan("Serving", Apply(stated)))

    def taken(fields: dict[str, Any]) -> dict[str, Any]:
        managed = [{"manager": "flywheel-operator", "operation": "Apply", "fieldsV1": fields}]
        return {**stated, "metadata": {**stated["metadata"], "managedFields": managed}}

    async def rewritten(manifest: dict[str, Any]) -> dict[str, Any]:
        return world.cluster._write("apply s", taken({"f:spec": {"f:ports": {}}}))

    world.cluster.apply = rewritten  # type: ignore[method-assign]
    world.passes()
    held = world.cache.get(Key("Service", "demo", "s"))
    assert held is not None
    assert held[OURS] == UNKNOWN
    edited = taken({})
    edited["metadata"] |= {"uid": "new", "resourceVersion": "999"}
    world.cache.put(edited)
    held = world.cache.get(Key("Service", "demo", "s"))
    assert held is not None
    assert held[OURS] != UNKNOWN
