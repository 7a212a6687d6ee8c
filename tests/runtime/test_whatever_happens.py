"""Users edit, delete and retry; pods fail, clocks jump, reads are old, writes are refused or their answers lost, operators die: whatever
happens in whatever order, the promises hold after every step, and left alone with a healthy cluster everything comes to an end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flywheel.adapters.kube_api import api_error
from flywheel.api.generation import TERMINAL_GENERATION_PHASES
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES
from flywheel.plan.base import LABEL
from flywheel.plan.rollout_observed import ErrorShare
from flywheel.stats.verdict import Evidence
from tests.builders import error_message
from tests.plan.rollout_world import BETTER, EQUAL, WORSE, evidence
from tests.runtime.faketime import FakeTimeLoop
from tests.runtime.simulated_api import Body, Ref
from tests.runtime.simulated_cluster import METRICS, SimulatedCluster, rendered_once, result
from tests.runtime.test_killed_anywhere import FLYWHEEL, ROLLOUT, STAGES
from tests.runtime.watchman import Watchman

OTHER = {"generation": "mine", "uri": "file:///flywheel/models/mine", "digest": "sha256:" + "c" * 64}
# A lap of somebody's own: it takes over what it can, asks a person twice, tries again, and goes when its time is over.
BY_HAND = {
    "flywheel": "demo",
    "stages": [
        {**STAGES[0], "approval": {}},
        *({**stage, "cache": "Always", "retry": {"limit": 1, "backoff": "2s"}} for stage in STAGES[1:]),
    ],
    "rollout": ROLLOUT,
    "approval": {"message": "its samples"},
    "ttlAfterFinished": "20s",
}
NOTHING = Evidence(assigned=None, metrics={}, window_over=False)
ANSWERS = [
    evidence(EQUAL, BETTER),
    evidence(EQUAL, WORSE),
    evidence(EQUAL, EQUAL),
    evidence(EQUAL, BETTER, n=10),
    evidence(EQUAL, BETTER, assigned=(800, 400)),
    NOTHING,
]
ENDS: list[tuple[int, str] | None] = [  # None: well
    None,
    None,
    (0, ""),
    (64, error_message("InvalidParameter")),
    (75, error_message("StorageUnavailable")),
    (137, ""),
    (1, "Traceback"),
]
ENDED = {
    "Generation": TERMINAL_GENERATION_PHASES,
    "Rollout": TERMINAL_ROLLOUT_PHASES,
    "TrainingRun": ("Succeeded", "Failed"),
    "RewardModel": ("Ready", "Failed"),
}
EDITABLE = (*ENDED, "Flywheel")
DELETABLE = (*ENDED, "Job", "ConfigMap", "ControllerRevision", "Deployment", "Pod", "Service")
LAGS = st.lists(st.sampled_from([0.01, 0.02, 0.1, 1.0, 6.0]), min_size=1, max_size=6)
WHICH = st.integers(0, 40)
WHILE = st.sampled_from([0.5, 1, 2, 4])
PATIENCE = 900


class Life(RuleBasedStateMachine):
    """A cluster in which anything happens."""

    @initialize(serves=st.booleans())
    def begin(self, serves: bool) -> None:
        self.runner = asyncio.Runner(loop_factory=FakeTimeLoop)
        self.stack = AsyncExitStack()
        self.stack.enter_context(rendered_once())
        self.faults: deque[tuple[str, int]] = deque()
        self.do(self._begin())
        if serves:
            self.live(8)

    async def _begin(self) -> None:
        self.cluster = SimulatedCluster()
        self.cluster.api.before, self.cluster.api.after = self._refuse("refused"), self._refuse("answer lost")
        self.watchman = Watchman(self.cluster.state)
        self.cluster.api.watchers.append(self.watchman.see)
        self.cluster.make("Flywheel", "demo", FLYWHEEL)
        self.count = 60.0
        self.cluster.kept = lambda: self.count
        self.operator = await self.stack.enter_async_context(self.cluster.operator(self.watchman.planners))

    def do(self, what: Coroutine[Any, Any, None]) -> None:
        self.runner.run(what)

    def live(self, seconds: float) -> None:
        self.do(self.cluster.live(seconds))

    def _refuse(self, how: str) -> Any:
        def refuse(what: str) -> None:
            if self.faults and self.faults[0][0] == how:
                raise api_error(self.faults.popleft()[1], how.encode(), None, what)

        return refuse

    def pick(self, kinds: tuple[str, ...], which: int) -> Body | None:
        """One of the objects of these kinds."""
        found = [body for kind in kinds for body in self.cluster.state.every(kind)]
        return found[which % len(found)] if found else None

    # ------------------------------------------------------------------------------------------------------------- the cluster

    @rule(seconds=st.sampled_from([1, 3, 10, 25]))
    def time_passes(self, seconds: float) -> None:
        self.live(seconds)

    @rule(seconds=st.sampled_from([-3.0, 40.0, 700.0, 90000.0]), then=WHILE)
    def the_clock_jumps(self, seconds: float, then: float) -> None:
        self.cluster.jump(seconds)
        self.live(then)

    @rule(end=st.sampled_from(ENDS), then=WHILE)
    def trainers_end_otherwise(self, end: tuple[int, str] | None, then: float) -> None:
        self.cluster.ends = lambda pod: end or (0, result(pod))
        self.live(then)

    @rule(share=st.sampled_from([0.3, 0.6, 0.9]), then=WHILE)
    def models_are_judged_otherwise(self, share: float, then: float) -> None:
        self.cluster.ends = lambda pod: (0, result(pod, {**METRICS, "win_rate_user_lower": share - 0.05, "accuracy_lower": share}))
        self.live(then)

    @rule(unready=st.sampled_from(["", "demo-initial", "demo-1", "demo-2", "router", "vllm"]), then=WHILE)
    def some_pods_do_not_answer(self, unready: str, then: float) -> None:
        labels = (LABEL + "generation", LABEL + "component")
        self.cluster.serves = lambda pod: unready not in [pod["metadata"]["labels"].get(label) for label in labels]
        self.live(then)

    @rule(which=WHICH, then=WHILE)
    def a_pod_crashes_again_and_again(self, which: int, then: float) -> None:
        pod = self.pick(("Pod",), which)
        if pod is not None and pod["status"].get("containerStatuses"):
            (container,) = pod["status"]["containerStatuses"]
            crashed = {**container, "restartCount": container["restartCount"] + 3}
            self.cluster.api.put({**pod, "status": {**pod["status"], "containerStatuses": [crashed]}})
        self.live(then)

    @rule(errors=st.sampled_from([None, ErrorShare(1, 100), ErrorShare(60, 100)]), then=WHILE)
    def replies_fail(self, errors: ErrorShare | None, then: float) -> None:
        self.cluster.errors = errors
        self.live(then)

    @rule(listens=st.booleans(), then=WHILE)
    def the_router_listens_or_not(self, listens: bool, then: float) -> None:
        self.cluster.router_listens = listens
        self.live(then)

    @rule(answer=st.sampled_from(ANSWERS), then=WHILE)
    def users_answer(self, answer: Evidence, then: float) -> None:
        self.cluster.answer = lambda experiment: answer
        self.live(then)

    @rule(then=WHILE)
    def people_talk(self, then: float) -> None:
        self.count += 60
        self.live(then)

    # ------------------------------------------------------------------------------------------------------------- the API server

    @rule(
        how=st.sampled_from(["refused", "answer lost"]), status=st.sampled_from([409, 429, 500, 503]), times=st.integers(1, 4), then=WHILE
    )
    def writes_fail(self, how: str, status: int, times: int, then: float) -> None:
        if how == "answer lost" and status == 409:
            status = 504
        self.faults.extend([(how, status)] * times)
        self.live(then)

    @rule(lags=LAGS, then=WHILE)
    def watches_lag(self, lags: list[float], then: float) -> None:
        turns = cycle(lags)
        self.cluster.lag = lambda: next(turns)
        self.live(then)

    @rule(pause=st.sampled_from([0.0, 3.0]))
    def the_operator_dies(self, pause: float) -> None:
        self.do(self._restart(pause))

    async def _restart(self, pause: float) -> None:
        await self.stack.aclose()
        self.stack.enter_context(rendered_once())
        await self.cluster.live(pause)
        self.operator = await self.stack.enter_async_context(self.cluster.operator(self.watchman.planners))

    # ------------------------------------------------------------------------------------------------------------- users

    @rule(which=WHICH, kind=st.sampled_from(EDITABLE), suspend=st.sampled_from([False, False, True]), then=WHILE)
    def somebody_suspends_or_resumes(self, which: int, kind: str, suspend: bool, then: float) -> None:
        self._edit(kind, which, suspend=suspend)
        self.live(then)

    @rule(which=WHICH, kind=st.sampled_from(["Generation", "TrainingRun"]), seed=st.integers(1, 3), then=WHILE)
    def somebody_edits(self, which: int, kind: str, seed: int, then: float) -> None:
        self._edit(kind, which, seed=seed)
        self.live(then)

    @rule(which=WHICH, weights=st.sampled_from([[50], [1, 10], [20]]), window=st.sampled_from(["4s", "30s"]), then=WHILE)
    def somebody_edits_a_rollout(self, which: int, weights: list[int], window: str, then: float) -> None:
        steps = [{"weightPercent": weight, "duration": "2s"} for weight in weights]
        self._edit("Rollout", which, traffic={"steps": steps}, analysis={**ROLLOUT["analysis"], "window": window})
        self.live(then)

    @rule(which=WHICH, abort=st.sampled_from([True, True, False]), then=WHILE)
    def somebody_aborts(self, which: int, abort: bool, then: float) -> None:
        self._edit("Rollout", which, abort=abort)
        self.live(then)

    @rule(which=WHICH, kind=st.sampled_from(tuple(ENDED)), token=st.sampled_from("ab"), then=WHILE)
    def somebody_retries(self, which: int, kind: str, token: str, then: float) -> None:
        if (body := self.pick((kind,), which)) is not None:
            notes = {**(body["metadata"].get("annotations") or {}), LABEL + "retry": token}
            self.cluster.api.put({**body, "metadata": {**body["metadata"], "annotations": notes}})
        self.live(then)

    @rule(which=WHICH, kind=st.sampled_from(DELETABLE), then=WHILE)
    def somebody_deletes(self, which: int, kind: str, then: float) -> None:
        if (body := self.pick((kind,), which)) is not None:
            self.cluster.api.remove(Ref(kind, body["metadata"]["name"]))
        self.live(then)

    @rule(then=WHILE)
    def somebody_rolls_out_a_model_of_theirs(self, then: float) -> None:
        champion = self.cluster.state.every("Flywheel")[0].get("status", {}).get("champion")
        if champion and Ref("Rollout", "mine") not in self.cluster.state.objects and champion["digest"] != OTHER["digest"]:
            baseline = {key: champion[key] for key in ("generation", "uri", "digest")}
            self.cluster.make("Rollout", "mine", {"flywheel": "demo", "baseline": baseline, "candidate": OTHER, **ROLLOUT})
        self.live(then)

    @rule(then=WHILE)
    def somebody_starts_a_lap_of_their_own(self, then: float) -> None:
        if Ref("Generation", "by-hand") not in self.cluster.state.objects:
            self.cluster.make("Generation", "by-hand", BY_HAND)
        self.live(then)

    @rule(decision=st.sampled_from(["Approve", "Approve", "Reject"]), then=WHILE)
    def somebody_says_what_they_think(self, decision: str, then: float) -> None:
        self._speak(decision)
        self.live(then)

    @rule(which=WHICH, stage=st.sampled_from(["curate", "sft", "evaluate"]), token=st.sampled_from("ab"), then=WHILE)
    def somebody_retries_a_stage(self, which: int, stage: str, token: str, then: float) -> None:
        if (body := self.pick(("Generation",), which)) is not None:
            notes = {LABEL + "retry": token, LABEL + "retry-stage": stage}
            self.cluster.api.put({**body, "metadata": {**body["metadata"], "annotations": notes}})
        self.live(then)

    @rule(which=WHICH, then=WHILE)
    def somebody_promotes(self, which: int, then: float) -> None:
        if (body := self.pick(("Rollout",), which)) is not None:
            self._edit("Rollout", which, promote={"digest": body["spec"]["candidate"]["digest"], "by": "alice", "reason": "I saw it"})
        self.live(then)

    def _speak(self, decision: str) -> None:
        """On everything that waits for somebody's word."""
        for number, body in enumerate(self.cluster.state.every("Generation")):
            status = body.get("status") or {}
            asked = [(s["name"], s["artifact"]["digest"]) for s in status.get("stages") or () if s["phase"] == "AwaitingApproval"]
            if status.get("phase") == "AwaitingApproval" and not asked:
                asked = [("rollout", status["model"]["digest"])]
            said = body["spec"].get("approvals") or []
            known = {(a["stage"], a["digest"]) for a in said}
            new = [{"stage": s, "digest": d, "decision": decision, "by": "alice"} for s, d in asked if (s, d) not in known]
            if new:
                self._edit("Generation", number, approvals=[*said, *new])

    def _edit(self, kind: str, which: int, **spec: Any) -> None:
        if (body := self.pick((kind,), which)) is not None:
            self.cluster.api.put({**body, "spec": {**body["spec"], **spec}})

    # ------------------------------------------------------------------------------------------------------------- promises

    @invariant()
    def every_promise_holds(self) -> None:
        if hasattr(self, "operator"):
            assert not self.watchman.violations, "\n".join(self.watchman.violations[:3])
            assert not self.operator.errors, repr(self.operator.errors)
            for kind in ENDED:
                for body in self.cluster.state.every(kind):
                    event(f"{kind} {(body.get('status') or {}).get('phase')}")

    def teardown(self) -> None:
        """Left alone with a healthy cluster, everything comes to an end."""
        if not hasattr(self, "operator"):
            return
        try:
            self.do(self._heal())
            for _ in range(0, PATIENCE, 10):
                if not self._unfinished():
                    break
                self._speak("Approve")
                self.live(10)
            self.every_promise_holds()
            assert not self._unfinished(), repr(self._unfinished())
        finally:
            self.do(self.stack.aclose())
            self.runner.close()

    async def _heal(self) -> None:
        self.faults.clear()
        fresh = SimulatedCluster()
        for part in ("ends", "serves", "lag", "errors", "router_listens"):
            setattr(self.cluster, part, getattr(fresh, part))
        self.cluster.answer = lambda experiment: ANSWERS[0]
        for kind in EDITABLE:
            for number in range(len(self.cluster.state.every(kind))):
                self._edit(kind, number, suspend=False)

    def _unfinished(self) -> list[tuple[str, str, Any]]:
        """What has not ended, and is not paused by a lap that has."""
        return [
            (kind, body["metadata"]["name"], (body.get("status") or {}).get("summary") or body.get("status"))
            for kind, phases in ENDED.items()
            for body in self.cluster.state.every(kind)
            if (body.get("status") or {}).get("phase") not in phases and not body["spec"].get("suspend")
        ]


Life.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestLife = Life.TestCase
