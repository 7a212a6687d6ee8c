"""A Flywheel keeps its service up, knows its champion, starts laps and clears away what nobody needs."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from typing import Any

import pytest

from flywheel.api.base import Metadata
from flywheel.api.flywheel import Flywheel, FlywheelSpec, FlywheelStatus
from flywheel.api.generation import Generation, GenerationSpec, GenerationStatus
from flywheel.api.rollout import Rollout, RolloutStatus
from flywheel.plan.base import Apply, Create, Defaults, Delete
from flywheel.plan.flywheel import FlywheelObserved, plan_flywheel
from flywheel.plan.kube import DeploymentState, deployment_state
from flywheel.plan.rollout_observed import Acknowledgement, RoutesState
from flywheel.plan.routes import UNREADABLE
from flywheel.specs.envoy import Arm, Routes, parse_routes
from flywheel.specs.vllm import arm_name
from tests.plan.rollout_world import BASE, NEXT, rollout_spec

T0 = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
FIRST = arm_name("demo-initial", BASE)
WINNER = arm_name("g1", NEXT)


def flywheel(**spec: Any) -> Flywheel:
    body = {"base": {"uri": "file:///flywheel/artifacts/a", "digest": BASE}, **spec}
    meta = Metadata(name="demo", namespace="demo", uid="u-f", generation=1, creation_timestamp=T0)
    return Flywheel(metadata=meta, spec=FlywheelSpec.model_validate(body))


def ready(name: str) -> DeploymentState:
    return DeploymentState(name=name, uid=f"u-{name}", replicas=1, ready_replicas=1, labels={"modelflywheel.dev/role": "stable"})


def anchor(name: str) -> dict[str, Any]:
    data = {"generation": "x", "model": {"uri": "file:///x", "digest": BASE}, "manifests": []}
    return {"metadata": {"name": name, "namespace": "demo", "uid": f"u-{name}"}, "data": data}


def won(phase: str = "Watching", cutover: dt.datetime | None = None) -> Rollout:
    decision = {"verdict": "Promote", "reason": "SuccessProven", "message": "", "time": T0, "revision": 1}
    status = {"phase": phase, "decision": decision, "cutoverTime": cutover or T0 + dt.timedelta(hours=1)}
    return Rollout(
        metadata=Metadata(name="r1", namespace="demo", uid="u-r"), spec=rollout_spec(), status=RolloutStatus.model_validate(status)
    )


def lap(name: str, phase: str, minutes: int = 0) -> Generation:
    status = {"phase": phase, "completionTime": T0 + dt.timedelta(minutes=minutes)}
    meta = Metadata(name=name, namespace="demo", uid=f"u-{name}")
    return Generation(metadata=meta, spec=GenerationSpec(flywheel="demo"), status=GenerationStatus.model_validate(status))


def plan(fly: Flywheel, now: dt.datetime = T0, **observed: Any) -> tuple[FlywheelStatus, list[Any]]:
    result = plan_flywheel(FlywheelObserved(flywheel=fly, **observed), now)
    return FlywheelStatus.model_validate(result.status), list(result.actions)


def serving(fly: Flywheel, arm: str = FIRST) -> dict[str, Any]:
    routes = RoutesState(Routes(revision=3, stable=Arm(arm=arm, generation="demo-initial", service=arm)), "7")
    deployments = {n: ready(n) for n in (arm, "demo-router", "demo-collector")}
    acks = (Acknowledgement("demo-router-0", 3, accepted=True),)
    return {"deployments": deployments, "anchors": {arm: anchor(arm)}, "routes": routes, "acknowledgements": acks}


def names(actions: list[Any], kind: str) -> list[str]:
    return [a.manifest["metadata"]["name"] for a in actions if isinstance(a, Apply | Create) and a.manifest["kind"] == kind]


def test_a_new_flywheel_serves_its_base_as_the_first_champion() -> None:
    status, actions = plan(flywheel())
    assert status.champion is not None
    assert (status.champion.generation, status.champion.arm) == ("demo-initial", FIRST)
    assert names(actions, "ControllerRevision") == [FIRST]
    assert {"demo-router", "demo-collector"} <= set(names(actions, "Deployment"))
    assert status.phase == "Starting"


def test_routes_are_written_once_the_champion_answers_and_not_before() -> None:
    status, actions = plan(flywheel(), anchors={FIRST: anchor(FIRST)})
    assert names(actions, "ConfigMap") == []
    _, actions = plan(flywheel(), anchors={FIRST: anchor(FIRST)}, deployments={FIRST: ready(FIRST)})
    (written,) = [a.manifest for a in actions if isinstance(a, Create) and a.manifest["kind"] == "ConfigMap"]
    assert parse_routes(written["data"]["routes.json"]).stable.arm == FIRST
    assert status.champion is not None


def test_the_winner_becomes_champion_only_after_the_router_has_confirmed() -> None:
    fly = flywheel()
    fly = fly.model_copy(update={"status": plan(fly)[0]})
    undecided = won().model_copy(update={"status": won().status.model_copy(update={"cutover_time": None, "phase": "Promoting"})})
    status, _ = plan(fly, rollouts=(undecided,), **serving(fly))
    assert status.champion is not None
    assert status.champion.generation == "demo-initial"
    status, _ = plan(fly, rollouts=(won(),), **serving(fly))
    assert status.champion is not None
    assert (status.champion.generation, status.champion.arm) == ("g1", WINNER)
    assert status.previous[0].generation == "demo-initial"


def test_a_champion_stays_when_its_rollout_and_generation_are_deleted() -> None:
    fly = flywheel()
    fly = fly.model_copy(update={"status": plan(fly)[0]})
    promoted, _ = plan(fly, rollouts=(won(),), **serving(fly))
    after = fly.model_copy(update={"status": promoted})
    status, actions = plan(after, now=T0 + dt.timedelta(hours=3), **serving(after, WINNER))
    assert status.champion is not None
    assert status.champion.generation == "g1"
    assert [a for a in actions if isinstance(a, Delete)] == []


def test_routes_of_a_rollout_that_was_deleted_in_the_middle_return_to_the_champion() -> None:
    fly = flywheel()
    observed = serving(fly)
    stable, candidate = Arm(arm=FIRST, generation="demo-initial", service=FIRST), Arm(arm=WINNER, generation="g1", service=WINNER)
    routes = Routes(revision=9, stable=stable, candidate=candidate, experiment="demo.r1.x", salt="s", weight_percent=50)
    _, actions = plan(fly, **{**observed, "routes": RoutesState(routes, "12")})
    (written,) = [a.manifest for a in actions if isinstance(a, Apply) and a.manifest["kind"] == "ConfigMap"]
    healed = parse_routes(written["data"]["routes.json"])
    assert (healed.candidate, healed.revision, written["metadata"]["resourceVersion"]) == (None, 10, "12")


def test_routes_that_nobody_can_read_are_overwritten_with_a_newer_revision_and_no_arm_goes_on_their_word() -> None:
    fly = flywheel()
    observed = {**serving(fly), "routes": RoutesState(UNREADABLE, "12"), "acknowledgements": (Acknowledgement("demo-router-0", 9, True),)}
    observed["anchors"]["forgotten-12345678"] = anchor("forgotten-12345678")
    _, actions = plan(fly, **observed)
    (written,) = [a.manifest for a in actions if isinstance(a, Apply) and a.manifest["kind"] == "ConfigMap"]
    healed = parse_routes(written["data"]["routes.json"])
    assert (healed.stable.arm, healed.revision, written["metadata"]["resourceVersion"]) == (FIRST, int(T0.timestamp()), "12")
    assert [a for a in actions if isinstance(a, Delete)] == []


def test_the_routes_are_left_to_a_rollout_that_holds_the_service() -> None:
    fly = flywheel()
    busy = won().model_copy(update={"status": RolloutStatus(phase="Progressing", experiment="x")})
    other = Routes(revision=9, stable=Arm(arm=WINNER, generation="g1", service=WINNER))
    _, actions = plan(fly, rollouts=(busy,), **{**serving(fly), "routes": RoutesState(other, "12")})
    assert names(actions, "ConfigMap") == []


def test_clearing_away_never_touches_champion_routed_or_parked_arms() -> None:
    fly = flywheel()
    observed = serving(fly)
    parked = won("Watching", cutover=T0 - dt.timedelta(hours=1))
    observed["anchors"] = {name: anchor(name) for name in (FIRST, WINNER, "forgotten-12345678")}
    _, actions = plan(fly, rollouts=(parked,), **observed)
    assert [a.name for a in actions if isinstance(a, Delete)] == ["forgotten-12345678"]


def test_a_lap_starts_when_enough_was_said_and_none_runs() -> None:
    fly = flywheel(trigger={"newConversations": 400})
    _, actions = plan(fly, conversations=399.0, **serving(fly))
    assert names(actions, "Generation") == []
    status, actions = plan(fly, conversations=400.0, **serving(fly))
    assert names(actions, "Generation") == ["demo-1"]
    assert (status.laps, status.active, status.last_lap_conversations) == (1, ("demo-1",), 400)


def test_a_lap_that_was_decided_but_lost_in_a_crash_is_made_again_and_not_twice() -> None:
    fly = flywheel(trigger={"newConversations": 400})
    status, _ = plan(fly, conversations=400.0, **serving(fly))
    fly = fly.model_copy(update={"status": status})
    status, actions = plan(fly, now=T0 + dt.timedelta(seconds=5), conversations=900.0, **serving(fly))
    assert names(actions, "Generation") == ["demo-1"]
    assert status.laps == 1


def test_the_next_lap_waits_for_new_conversations_since_the_last() -> None:
    fly = flywheel(trigger={"newConversations": 400})
    status, _ = plan(fly, conversations=400.0, **serving(fly))
    fly = fly.model_copy(update={"status": status})
    ended = (lap("demo-1", "Rejected"),)
    later = T0 + dt.timedelta(hours=1)
    assert names(plan(fly, now=later, conversations=700.0, generations=ended, **serving(fly))[1], "Generation") == []
    assert names(plan(fly, now=later, conversations=800.0, generations=ended, **serving(fly))[1], "Generation") == ["demo-2"]


def test_a_schedule_starts_a_lap_at_its_time_and_says_when_the_next_is() -> None:
    fly = flywheel(trigger={"schedule": "0 3 * * *", "timeZone": "Europe/Berlin"})
    status, actions = plan(fly, **serving(fly))
    assert names(actions, "Generation") == []
    assert status.next_lap_time == dt.datetime(2026, 11, 24, 2, 0, tzinfo=dt.UTC)
    _, actions = plan(fly, now=dt.datetime(2026, 11, 24, 2, 0, 1, tzinfo=dt.UTC), **serving(fly))
    assert names(actions, "Generation") == ["demo-1"]


@pytest.mark.parametrize(
    ("trigger", "words"), [({"schedule": "61 * * * *"}, "61 * * * *"), ({"schedule": "0 3 * * *", "timeZone": "Mars/Base"}, "Mars/Base")]
)
def test_a_trigger_that_means_nothing_is_said_and_starts_nothing(trigger: dict[str, str], words: str) -> None:
    fly = flywheel(trigger=trigger)
    status, actions = plan(fly, now=T0 + dt.timedelta(days=9), **serving(fly))
    condition = next(c for c in status.conditions if c.type == "TriggerValid")
    assert condition.status == "False"
    assert words in condition.message
    assert names(actions, "Generation") == []


def test_suspend_starts_no_lap_and_serving_goes_on() -> None:
    fly = flywheel(trigger={"newConversations": 1}, suspend=True)
    status, actions = plan(fly, conversations=1000.0, **serving(fly))
    assert names(actions, "Generation") == []
    assert status.phase == "Serving"


def test_old_laps_go_beyond_the_history_limits_oldest_first() -> None:
    fly = flywheel(historyLimits={"successful": 1, "failed": 1})
    laps = (lap("a", "Promoted", 1), lap("b", "Promoted", 2), lap("c", "Rejected", 3), lap("d", "RolledBack", 4), lap("e", "Training"))
    _, actions = plan(fly, generations=laps, **serving(fly))
    assert [a.name for a in actions if isinstance(a, Delete)] == ["a", "c"]


def test_a_lap_that_users_rejected_goes_only_once_a_later_lap_has_its_name_in_quarantine() -> None:
    def rolled_back(name: str, minutes: int) -> Generation:
        ended = lap(name, "RolledBack", minutes)
        decision = {"verdict": "RolledBack", "reason": "RolledBack", "message": "", "time": T0, "revision": 1}
        status = GenerationStatus.model_validate({**ended.status.dump(), "decision": decision})
        return ended.model_copy(update={"status": status})

    def began(name: str, phase: str, minutes: int, *quarantined: str) -> Generation:
        made = lap(name, phase, minutes)
        meta = made.metadata.model_copy(update={"creation_timestamp": T0 + dt.timedelta(minutes=minutes)})
        status = made.status.model_copy(update={"revision": 1, "quarantined": quarantined})
        return made.model_copy(update={"metadata": meta, "status": status})

    fly = flywheel(historyLimits={"successful": 1, "failed": 0})

    def deleted(*laps: Generation) -> list[str]:
        return [a.name for a in plan(fly, generations=laps, **serving(fly))[1] if isinstance(a, Delete)]

    assert deleted(rolled_back("a", 1)) == []
    assert deleted(rolled_back("a", 1), began("b", "Training", 2, "a")) == ["a"]
    assert deleted(rolled_back("a", 1), began("b", "Rejected", 2, "a")) == ["a"]
    assert deleted(began("b", "Rejected", 2, "a")) == []
    assert deleted(began("b", "Rejected", 2, "a"), began("c", "Training", 3, "a")) == ["b"]


def test_under_retain_nothing_that_serves_is_owned_by_the_flywheel() -> None:
    _, actions = plan(flywheel())
    serving_parts = [a.manifest for a in actions if isinstance(a, Apply | Create) and a.manifest["kind"] != "Generation"]
    assert serving_parts
    assert all(not m["metadata"].get("ownerReferences") for m in serving_parts)
    _, actions = plan(flywheel(deletionPolicy="Delete"))
    assert all(a.manifest["metadata"]["ownerReferences"] for a in actions if isinstance(a, Apply | Create))


def test_a_flywheel_that_is_made_again_keeps_the_champion_that_serves() -> None:
    observed = serving(flywheel(), WINNER)
    model = {"uri": "file:///flywheel/artifacts/b", "digest": NEXT}
    observed["anchors"][WINNER]["data"] = {"generation": "g1", "model": model, "manifests": []}
    observed["routes"] = RoutesState(Routes(revision=3, stable=Arm(arm=WINNER, generation="g1", service=WINNER)), "7")
    status, actions = plan(flywheel(), **observed)
    assert status.champion is not None
    assert (status.champion.generation, status.champion.digest, status.champion.arm) == ("g1", NEXT, WINNER)
    assert names(actions, "ConfigMap") == []
    assert [a for a in actions if isinstance(a, Delete)] == []


def test_an_arm_that_goes_with_its_deleted_flywheel_is_not_taken_over() -> None:
    observed = serving(flywheel(), WINNER)
    observed["anchors"][WINNER]["metadata"]["ownerReferences"] = [{"uid": "of-the-one-before"}]
    status, _ = plan(flywheel(), **observed)
    assert status.champion is not None
    assert status.champion.arm == FIRST


def test_an_arm_is_cleared_away_only_when_every_router_replica_has_left_it() -> None:
    fly = flywheel()
    observed = serving(fly)
    observed["anchors"]["forgotten-12345678"] = anchor("forgotten-12345678")
    for late in ((), (Acknowledgement("demo-router-0", 3, True), Acknowledgement("demo-router-1", 2, True))):
        _, actions = plan(fly, **{**observed, "acknowledgements": late})
        assert [a for a in actions if isinstance(a, Delete)] == []
    _, actions = plan(fly, **observed)
    assert [a.name for a in actions if isinstance(a, Delete)] == ["forgotten-12345678"]


def test_a_rollout_on_its_way_out_does_not_keep_the_routes() -> None:
    fly = flywheel()
    status = RolloutStatus(phase="Progressing", experiment="x")
    meta = won().metadata.model_copy(update={"deletion_timestamp": T0})
    leaving = won().model_copy(update={"status": status, "metadata": meta})
    other = Routes(revision=9, stable=Arm(arm=WINNER, generation="g1", service=WINNER))
    fly = fly.model_copy(update={"status": plan(fly)[0]})
    _, actions = plan(fly, rollouts=(leaving,), **{**serving(fly), "routes": RoutesState(other, "12")})
    assert names(actions, "ConfigMap") == ["demo-routes"]


def test_a_lap_that_was_lost_is_made_after_any_outage_and_one_deleted_by_hand_is_not() -> None:
    fly = flywheel(trigger={"newConversations": 400})
    status, _ = plan(fly, conversations=400.0, **serving(fly))
    fly = fly.model_copy(update={"status": status})
    tomorrow = T0 + dt.timedelta(days=1)
    _, actions = plan(fly, now=tomorrow, conversations=500.0, **serving(fly))
    assert names(actions, "Generation") == ["demo-1"]
    status, _ = plan(fly, now=tomorrow, conversations=500.0, generations=(lap("demo-1", "Training"),), **serving(fly))
    fly = fly.model_copy(update={"status": status})
    status, actions = plan(fly, now=tomorrow, conversations=500.0, **serving(fly))
    assert names(actions, "Generation") == []
    assert status.active == ()


@pytest.mark.parametrize("suspend", [True, False])
def test_a_schedule_that_is_due_while_no_lap_may_start_wakes_nobody_until_the_next_tick(suspend: bool) -> None:
    fly = flywheel(trigger={"schedule": "0 3 * * *"}, suspend=suspend)
    fly = fly.model_copy(update={"status": plan(fly)[0]})
    overdue = T0 + dt.timedelta(days=1)
    observed = FlywheelObserved(flywheel=fly, generations=(lap("demo-1", "Training"),), **serving(fly))
    assert plan_flywheel(observed, overdue).requeue_at == overdue + dt.timedelta(seconds=10)


# ------------------------------------------------------------------------------------- a first champion that never served


class Young:
    """A Flywheel and its cluster, pass by pass, until the first user is served. Pods never get ready by themselves."""

    def __init__(self, **spec: Any) -> None:
        self.flywheel = flywheel(**spec)
        self.anchors: dict[str, Any] = {}
        self.deployments: dict[str, DeploymentState] = {}
        self.routes: RoutesState | None = None
        self.acts: list[str] = []
        self.defaults = Defaults()
        self.rollouts: tuple[Rollout, ...] = ()

    def step(self, *, crash_after_status: bool = False) -> FlywheelStatus:
        observed = FlywheelObserved(
            flywheel=self.flywheel,
            defaults=self.defaults,
            rollouts=self.rollouts,
            deployments=dict(self.deployments),
            anchors=dict(self.anchors),
            routes=self.routes,
        )
        result = plan_flywheel(observed, T0)
        status = FlywheelStatus.model_validate(result.status)
        self.flywheel = self.flywheel.model_copy(update={"status": status})
        for action in () if crash_after_status else result.actions:
            self.do(action)
        return status

    def do(self, action: Any) -> None:
        if isinstance(action, Delete):
            assert action.uid == self.anchors[action.name]["metadata"]["uid"]
            self.acts.append(f"delete {action.name}")
            del self.anchors[action.name]
            self.deployments.pop(action.name, None)
        elif isinstance(action, Apply | Create):
            body, name = action.manifest, action.manifest["metadata"]["name"]
            if body["kind"] == "ControllerRevision":
                self.acts.append(f"freeze {name}")
                meta = {**body["metadata"], "uid": f"u-{len(self.acts)}"}
                self.anchors[name] = json.loads(json.dumps({**body, "metadata": meta}))
            elif body["kind"] == "Deployment":
                self.deployments[name] = deployment_state(body)
            elif body["kind"] == "ConfigMap":
                self.routes = RoutesState(parse_routes(body["data"]["routes.json"]), "1")

    def settle(self) -> FlywheelStatus:
        for _ in range(4):
            status = self.step()
        return status

    def edit(self, **spec: Any) -> None:
        changed = FlywheelSpec.model_validate({**self.flywheel.spec.dump(), **spec})
        self.flywheel = self.flywheel.model_copy(update={"spec": changed})

    def answers(self, name: str, ready: int = 1) -> None:
        self.deployments[name] = replace(self.deployments[name], ready_replicas=ready)

    def container(self, name: str) -> Any:
        (deployment,) = [m for m in self.anchors[name]["data"]["manifests"] if m["kind"] == "Deployment"]
        return deployment["spec"]["template"]["spec"]["containers"][0]


def test_a_first_champion_that_never_served_is_made_anew_from_a_mended_spec() -> None:
    young = Young(serving={"image": "vllm:typo"})
    young.settle()
    young.edit(serving={"image": "vllm:right", "podTemplate": {"spec": {"nodeSelector": {"disk": "ssd"}}}})
    young.settle()
    assert young.acts == [f"freeze {FIRST}", f"delete {FIRST}", f"freeze {FIRST}"]
    assert young.container(FIRST)["image"] == "vllm:right"
    assert FIRST in young.deployments


def test_a_first_champion_is_made_anew_even_if_the_operator_dies_in_between() -> None:
    young = Young(serving={"args": ["--typo"]})
    young.settle()
    young.edit(serving={"args": []})
    young.step(crash_after_status=True)
    young.step()
    young.step(crash_after_status=True)
    young.settle()
    assert young.container(FIRST)["args"] == []
    assert young.acts == [f"freeze {FIRST}", f"delete {FIRST}", f"freeze {FIRST}"]


def test_an_unchanged_first_champion_is_left_to_start_in_peace() -> None:
    young = Young()
    young.settle()
    young.edit(suspend=True)
    young.settle()
    assert young.acts == [f"freeze {FIRST}"]


def test_another_base_replaces_a_first_champion_that_never_served() -> None:
    young = Young()
    young.settle()
    young.edit(base={"uri": "file:///flywheel/artifacts/b", "digest": NEXT})
    second = arm_name("demo-initial", NEXT)
    status = young.settle()
    assert status.champion is not None
    assert (status.champion.uri, status.champion.digest, status.champion.arm) == ("file:///flywheel/artifacts/b", NEXT, second)
    assert (status.champion.generation, status.previous) == ("demo-initial", ())
    assert (sorted(young.anchors), sorted(d for d in young.deployments if "initial" in d)) == ([second], [second])


def test_a_mended_address_of_the_same_base_is_taken_over_too() -> None:
    young = Young()
    young.settle()
    young.edit(base={"uri": "file:///flywheel/artifacts/moved", "digest": BASE})
    status = young.settle()
    assert status.champion is not None
    assert status.champion.uri == "file:///flywheel/artifacts/moved"
    assert "/flywheel/artifacts/moved" in young.container(FIRST)["command"]


@pytest.mark.parametrize("routes_deleted", [False, True])
def test_what_has_ever_served_is_never_rendered_again(routes_deleted: bool) -> None:
    young = Young()
    young.settle()
    young.answers(FIRST)
    young.deployments["demo-router"] = replace(young.deployments["demo-router"], ready_replicas=1)
    assert young.settle().phase == "Serving"
    young.answers(FIRST, ready=0)
    young.routes = None if routes_deleted else young.routes
    young.defaults = Defaults(vllm_image="vllm:newer")
    young.edit(base={"uri": "file:///flywheel/artifacts/b", "digest": NEXT}, serving={"args": ["--new"]})
    status = young.settle()
    assert status.champion is not None
    assert status.champion.arm == FIRST
    assert young.acts == [f"freeze {FIRST}"]


def test_a_first_champion_that_answers_is_kept_whatever_the_spec_says_since() -> None:
    young = Young()
    young.settle()
    young.answers(FIRST)
    young.edit(serving={"args": ["--new"]})
    young.settle()
    assert young.acts == [f"freeze {FIRST}"]


def test_no_other_base_is_taken_while_a_rollout_compares_with_this_one() -> None:
    young = Young()
    young.settle()
    young.rollouts = (won().model_copy(update={"status": RolloutStatus(phase="Preparing", experiment="x")}),)
    young.edit(base={"uri": "file:///flywheel/artifacts/c", "digest": "sha256:" + "c" * 64})
    status = young.settle()
    assert status.champion is not None
    assert status.champion.arm == FIRST


def test_a_spec_that_can_not_be_rendered_changes_no_arm_and_is_said() -> None:
    young = Young()
    young.settle()
    young.edit(serving={"podTemplate": {"nonsense": 1}})
    status = young.settle()
    assert young.acts == [f"freeze {FIRST}"]
    assert "podTemplate.nonsense" in next(c.message for c in status.conditions if c.type == "Ready")
