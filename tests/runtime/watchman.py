"""Looks over the planners' shoulders and at every write, and notes what must never be."""

from __future__ import annotations

import datetime as dt
import json
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import TERMINAL_GENERATION_PHASES, Generation
from flywheel.api.reward_model import RewardModel
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES, Rollout
from flywheel.api.training_run import TrainingRun
from flywheel.plan import arms
from flywheel.plan.base import LABEL, Apply, Create, Plan
from flywheel.plan.flywheel import plan_flywheel
from flywheel.plan.generation import plan_generation
from flywheel.plan.reward_model import plan_reward_model
from flywheel.plan.rollout import plan_rollout
from flywheel.plan.rollout_observed import RolloutObserved, holds_service
from flywheel.plan.training_run import plan_training_run
from flywheel.runtime.observe import World
from flywheel.runtime.planners import planners
from flywheel.runtime.reconcile import PlanOne
from flywheel.specs.envoy import Routes, parse_routes
from flywheel.stats.verdict import AnalysisPlan, Evidence, Outcome, assess, evidence_digest
from flywheel.stats.verdict import Reason as Measured
from tests.runtime.simulated_api import Body, Ref, State

WATCHED: dict[str, tuple[Callable[..., Plan], str, Any]] = {
    "plan_flywheel": (plan_flywheel, "flywheel", Flywheel),
    "plan_generation": (plan_generation, "generation", Generation),
    "plan_training_run": (plan_training_run, "run", TrainingRun),
    "plan_reward_model": (plan_reward_model, "reward_model", RewardModel),
    "plan_rollout": (plan_rollout, "rollout", Rollout),
}
ENDS: dict[Any, tuple[tuple[str, ...], str]] = {  # phases that nothing follows by itself, and the condition that then says how it went
    Flywheel: ((), ""),
    Generation: (TERMINAL_GENERATION_PHASES, "Succeeded"),
    TrainingRun: (("Succeeded", "Failed"), "Succeeded"),
    RewardModel: (("Ready", "Failed"), "Ready"),
    Rollout: (TERMINAL_ROLLOUT_PHASES, "Promoted"),
}
LAST_RESORTS = {"Aborted", "CrashLoop", "HardLimit"}  # what may call a promotion off, and send users home whoever answers there
VERDICTS = {Outcome.PROMOTE: "Promote", Outcome.ROLLBACK: "Rollback", Outcome.INCONCLUSIVE: "Inconclusive"}


class Watchman:
    """What he has seen go wrong is in `violations`."""

    def __init__(self, state: State) -> None:
        self.violations: list[str] = []
        self._state = state
        self._decisions: dict[tuple[Any, ...], Body] = {}
        self._revision = 0

    def planners(self, world: World) -> dict[str, PlanOne]:
        """The planners, each under watch."""
        with mock.patch.multiple("flywheel.runtime.planners", **{name: self._watched(*how) for name, how in WATCHED.items()}):
            return planners(world)

    def _watched(self, plan: Callable[..., Plan], subject: str, model: Any) -> Callable[..., Plan]:
        def watched(observed: Any, now: dt.datetime) -> Plan:
            try:
                made = plan(observed, now)
                self._check_plan(getattr(observed, subject), model, made, now)
                if model in (Rollout, Flywheel):
                    self._check_traffic(observed, made)
                return made
            except Exception:
                self.violations.append(traceback.format_exc())
                raise

        return watched

    def _expect(self, holds: object, what: str) -> None:
        if not holds:
            self.violations.append(what)

    # ------------------------------------------------------------------------------------------------------------- plans

    def _check_plan(self, subject: Any, model: Any, plan: Plan, now: dt.datetime) -> None:
        name = f"{model.__name__} {subject.metadata.name}"
        json.dumps(plan.status, allow_nan=False)
        status = model.model_validate({**subject.dump(), "status": plan.status}).status
        phases, type_ = ENDS[model]
        if status.phase in phases:
            word = next((c.status for c in status.conditions if c.type == type_), "Unknown")
            self._expect(word != "Unknown", f"{name} is {status.phase}, and no condition says how it went")
        else:
            self._expect(plan.requeue_at is not None, f"{name} is {status.phase}, and nobody looks again")
        if model in (Rollout, Generation) and status.decision is not None:
            self._check_words(name, status.decision)

    def _check_words(self, name: str, decision: Any) -> None:
        """No decision without its reason and its numbers; one that the metrics made replays to the same answer."""
        self._expect(decision.reason and decision.message, f"{name} decided without a reason: {decision}")
        self._expect(decision.revision > 0, f"{name} decided about no revision")
        if not isinstance(decision.model_dump().get("evidence"), dict):
            measured = decision.reason in set(Measured) and hasattr(decision, "evidence")
            self._expect(not measured, f"{name} decided {decision.reason} without evidence")
            return
        plan, evidence = AnalysisPlan.from_dict(decision.evidence["plan"]), Evidence.from_dict(decision.evidence["evidence"])
        again = assess(plan, evidence)
        self._expect(decision.evidence_digest == evidence_digest(plan, evidence), f"{name}: the digest is of other evidence")
        same = (VERDICTS.get(again.outcome, "NoVerdict"), str(again.reason)) == (decision.verdict, decision.reason)
        self._expect(same, f"{name}: {decision.verdict} {decision.reason} replays to {again.outcome} {again.reason}")

    def _check_traffic(self, observed: Any, plan: Plan) -> None:
        """More users for an arm only while it can be seen to answer; and for a candidate, only while its control's does too."""
        written = [a.manifest for a in plan.actions if isinstance(a, Apply | Create) and a.manifest["kind"] == "ConfigMap"]
        for manifest in written:
            new = parse_routes(manifest["data"]["routes.json"])
            old = observed.routes.routes if observed.routes else None
            decided = observed.rollout.status.weights.intended if isinstance(observed, RolloutObserved) else 0
            unready = [arm for arm in _raised(old, new, decided) if not arms.ready_replicas(observed.deployments, arm)]
            home = (plan.status.get("decision") or {}).get("reason") in LAST_RESORTS
            self._expect(home or not unready, f"users are sent to {unready}, where nobody answers: {old} -> {new}")
            self._expect(0 <= new.weight_percent <= 50, f"a weight of {new.weight_percent} %")

    # ------------------------------------------------------------------------------------------------------------- writes

    def see(self, what: str, body: Body) -> None:
        """Something was written or has gone."""
        if what != "put":
            return
        kind, status = body["kind"], body.get("status") or {}
        if kind in ("Rollout", "Generation") and status.get("decision"):
            self._check_decision(body, status, status["decision"])
        if kind == "Rollout":
            self._check_one_at_a_time()
        if kind in ("TrainingRun", "RewardModel", "Job", "Rollout"):
            self._check_roles()
        if Ref(kind, body["metadata"]["name"]) == Ref("ConfigMap", "demo-routes"):
            revision = json.loads(body["data"]["routes.json"])["revision"]
            self._expect(revision > self._revision, f"routes of revision {revision} after {self._revision}: the routers ignore them")
            self._revision = revision

    def _check_decision(self, body: Body, status: Body, decision: Body) -> None:
        """One question, one answer: only abort and the hard limits take a promotion back, and only before its cut-over."""
        parts = ("experiment",) if body["kind"] == "Rollout" else ("revision", "retry", "startTime")
        question = (decision["revision"], *(status.get(part) for part in parts))
        key = (body["metadata"]["uid"], *question)
        first = self._decisions.setdefault(key, {"cutover": status.get("cutoverTime"), **decision})
        called_off = first["verdict"] == "Promote" and decision["reason"] in LAST_RESORTS and not first["cutover"]
        same = all(first[part] == decision[part] for part in ("verdict", "reason", "time"))
        self._expect(same or called_off, f"{body['metadata']['name']} decided twice on {question}: {first}, then {decision}")
        self._decisions[key] = {"cutover": status.get("cutoverTime"), **decision}

    def _check_one_at_a_time(self) -> None:
        holders = [r.metadata.name for b in self._state.every("Rollout") if holds_service(r := Rollout.model_validate(b))]
        self._expect(len(holders) <= 1, f"two Rollouts ask the same users: {holders}")

    def _check_roles(self) -> None:
        live = Counter(
            (owner["uid"], body["kind"], (body["metadata"].get("labels") or {}).get(LABEL + "stage", ""))
            for kind in ("TrainingRun", "RewardModel", "Job", "Rollout")
            for body in self._state.every(kind)
            if _lives(body)
            for owner in body["metadata"].get("ownerReferences") or ()
        )
        twice = [role for role, count in live.items() if count > 1]
        told = [
            (ref.name, (body.get("status") or {}).get("phase"), body["spec"].get("suspend"), body["metadata"].get("annotations"))
            for ref, body in self._state.objects.items()
            if (ref.kind, (body["metadata"].get("ownerReferences") or [{}])[0].get("uid")) in [(kind, uid) for uid, kind, _ in twice]
        ]
        self._expect(not twice, f"two live children in one role {twice}: {told}")


def _raised(old: Routes | None, new: Routes, decided: int) -> set[str]:
    """The arms that get more users than was decided before, and a candidate's control with it."""
    shared = {new.stable.arm, new.candidate.arm} if new.candidate and new.weight_percent > decided else set[str]()
    moved = set[str]() if old is not None and old.stable == new.stable else {new.stable.arm}
    return shared | moved if decided == 0 or old is not None else shared


def _lives(body: Body) -> bool:
    if body["kind"] == "Job":
        return not (body.get("status") or body["spec"]["suspend"])
    if body["kind"] == "Rollout" and LABEL + "retry" in (body["metadata"].get("annotations") or {}):
        return False  # somebody asked for it besides its lap; it waits for its turn
    ends = (*TERMINAL_ROLLOUT_PHASES, "Watching", "Succeeded", "Failed", "Ready")
    return (body.get("status") or {}).get("phase") not in ends and not body["spec"].get("suspend")
