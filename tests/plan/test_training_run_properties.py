"""Whatever happens, in whatever order: one pod at a time, no restart without cause, and nothing is ever stuck."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flywheel.api.training_run import TrainingRun
from flywheel.plan.kube import JobState, PodState
from flywheel.plan.training_run import TrainingRunObserved, plan_training_run
from tests.builders import T0, error_message, make_training_run, pod_state, result_message, seconds, waiting_pod
from tests.plan.training_world import World

ENDS = [
    (0, result_message()),
    (0, ""),
    (64, error_message("InvalidParameter")),
    (65, error_message("DatasetEmpty")),
    (75, error_message("StorageUnavailable")),
    (75, error_message("Interrupted")),
    (137, ""),
    (143, ""),
    (1, "Traceback"),
]
THEN = st.sampled_from(["looks", "looks", "looks", "crashes", "sees old news", "sleeps"])


class Life(RuleBasedStateMachine):
    """A user, a cluster and an operator that may crash or see old news."""

    @initialize(
        limit=st.integers(0, 3),
        deadline=st.sampled_from([None, "1h"]),
        nodes=st.sampled_from([1, 1, 2]),
        queue=st.sampled_from([None, None, "gpus"]),
    )
    def begin(self, limit: int, deadline: str | None, nodes: int, queue: str | None) -> None:
        spec = {"retry": {"limit": limit, "backoff": "10s"}, "deadline": deadline, "nodes": nodes, "queueName": queue}
        self.world = World(run=make_training_run(**spec))
        self.cause = True  # whether the user has done something since the newest attempt began
        self.news: tuple[JobState, ...] = ()

    def _then(self, then: str) -> None:
        """What the operator does about what has just happened."""
        if then in ("looks", "crashes"):
            self._step(after=1, crash=then == "crashes")
            self.news = tuple(self.world.jobs.values())
        elif then == "sees old news":
            self._step(jobs=tuple(job for job in self.news if job.name in self.world.jobs))

    @rule(after=st.sampled_from([2.0, 11.0, 700.0]))
    def time_passes(self, after: float) -> None:
        self.world.now += seconds(after)
        self._then("looks")

    @rule()
    def operator_restarts_with_an_old_status(self) -> None:
        """A stale read of the object: the status is older than the Jobs. The write would conflict, but is there anything to regret?"""
        old = self.world.run.status.model_copy(update={"attempts": self.world.attempts[:-1]})
        if self.world.phase in ("Succeeded", "Failed") or not self.world.jobs:
            return
        stale = self.world.run.model_copy(update={"status": old})
        plan = plan_training_run(TrainingRunObserved(stale, tuple(self.world.jobs.values())), self.world.now)
        newest = self.world.job.name
        assert not any(getattr(action, "name", None) == newest for action in plan.actions)

    def _step(self, **how: Any) -> None:
        before, attempts, made = self.world.phase, self.world.attempts, list(self.world.created)
        self.world.step(**how)
        event(self.world.phase)
        begun = bool(self.world.attempts) and self.world.attempts[-1:] != attempts[-1:] and self.world.attempts[-1].end_time is None
        begun = begun and self.world.attempts[-1].number > (attempts[-1].number if attempts else 0)
        if before == "Failed" and begun:
            assert self.cause, "a run that had failed was started again without cause"
        if before == "Succeeded":
            assert (self.world.phase, self.world.created) == ("Succeeded", made)
        self.cause = self.cause and not begun

    @precondition(lambda self: self.world.live())
    @rule(
        pod=st.one_of(
            st.just(None),
            st.sampled_from(["ContainerCreating", "ImagePullBackOff", "CreateContainerConfigError"]).map(
                lambda r: waiting_pod(waiting_reason=r)
            ),
            st.just(waiting_pod(waiting_reason=None, unschedulable="no node")),
            st.just(pod_state()),
            st.just(pod_state(exit_code=75, disrupted=True)),
        ),
        then=THEN,
    )
    def pod_changes(self, pod: PodState | None, then: str) -> None:
        self.world.pod(*([pod] if pod else []))
        self._then(then)

    @precondition(lambda self: self.world.live() and self.world.job.queue)
    @rule(suspended=st.booleans(), then=THEN)
    def queue_admits_or_evicts(self, suspended: bool, then: str) -> None:
        self.world.pod(*(() if suspended else self.world.job.pods), suspended=suspended)
        self._then(then)

    @precondition(lambda self: self.world.live())
    @rule(end=st.sampled_from(ENDS), disrupted=st.booleans(), then=THEN)
    def pod_ends(self, end: tuple[int, str], disrupted: bool, then: str) -> None:
        self.world.ends(*end, disrupted=disrupted and end[0] not in (0, 64, 65))
        self._then(then)

    @precondition(lambda self: self.world.live())
    @rule(reason=st.sampled_from(["DeadlineExceeded", "BackoffLimitExceeded", None]), then=THEN)
    def job_fails(self, reason: str | None, then: str) -> None:
        self.world.pod(*self.world.job.pods, failed=True, failure_reason=reason, finished=self.world.now)
        self._then(then)

    @precondition(lambda self: self.world.jobs)
    @rule(then=THEN)
    def somebody_deletes_the_job(self, then: str) -> None:
        self.world.delete_job()
        self._then(then)

    @precondition(lambda self: self.world.jobs)
    @rule(then=THEN)
    def job_hangs_in_deletion(self, then: str) -> None:
        self.world.jobs[self.world.job.name] = replace(self.world.job, deleting=True)
        self._then(then)

    @rule(seed=st.integers(0, 5), suspend=st.sampled_from([False, False, True]), then=THEN)
    def user_edits(self, seed: int, suspend: bool, then: str) -> None:
        self.world.edit(seed=seed, suspend=suspend)
        self.cause = True
        self._then(then)

    @rule(token=st.sampled_from(["a", "b"]), then=THEN)
    def user_retries(self, token: str, then: str) -> None:
        self.world.annotate_retry(token)
        self.cause = True
        self._then(then)

    @invariant()
    def at_most_one_job_lives(self) -> None:
        assert len(self.world.live()) <= 1

    @invariant()
    def nobody_but_the_queue_lifts_its_suspension(self) -> None:
        patched = [a.manifest for a in self.world.plan.actions if "suspend" in getattr(a, "manifest", {}).get("spec", {})]
        queued = {job.name for job in self.world.jobs.values() if job.queue}
        assert not any(
            manifest["kind"] == "Job" and "template" not in manifest["spec"]
            for manifest in patched
            if manifest["metadata"]["name"] in queued
        )

    @invariant()
    def there_is_always_another_look_or_an_end(self) -> None:
        if self.world.plan.status:
            assert (self.world.plan.requeue_at is not None) == (self.world.phase not in ("Succeeded", "Failed"))

    @invariant()
    def the_status_is_whole(self) -> None:
        status = self.world.run.status
        assert len(status.attempts) <= 128
        assert [a.number for a in status.attempts] == sorted({a.number for a in status.attempts})
        assert (status.phase == "Succeeded") == (status.artifact is not None)
        if self.world.plan.status:
            assert {c.type for c in status.conditions} == {"Succeeded", "Progressing"}
            assert all(attempt.end_time for attempt in status.attempts[:-1])

    def teardown(self) -> None:
        """Left alone with a healthy cluster, every run comes to an end."""
        if not hasattr(self, "world"):
            return
        world = self.world.edit(suspend=False)
        for _ in range(12):
            for job in [job for job in world.jobs.values() if job.deleting]:
                del world.jobs[job.name]
            if world.live():
                world.pod(suspended=False).ends(0, result_message())
            world.step(after=700)
        assert world.phase in ("Succeeded", "Failed")


Life.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase

PODS = st.builds(
    lambda waiting, exit_code, message, disrupted, deleting, unschedulable: (
        pod_state(exit_code=exit_code, termination_message=message, disrupted=disrupted, deleting=deleting)
        if waiting is None
        else waiting_pod(waiting_reason=waiting, unschedulable=unschedulable)
    ),
    st.sampled_from([None, None, "ErrImagePull", "ContainerCreating"]),
    st.sampled_from([None, 0, 1, 64, 65, 75, 137, 143, 255]),
    st.one_of(st.text(max_size=40), st.sampled_from([message for _, message in ENDS])),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, "no node"]),
)


@settings(max_examples=200, deadline=None)
@given(
    pods=st.lists(PODS, max_size=3),
    succeeded=st.booleans(),
    failed=st.booleans(),
    deleting=st.booleans(),
    progress=st.dictionaries(st.text(max_size=5), st.floats() | st.text(max_size=3), max_size=4),
)
def test_any_sight_of_a_job_gives_a_status_that_the_api_server_takes(
    pods: list[PodState], succeeded: bool, failed: bool, deleting: bool, progress: dict[str, Any]
) -> None:
    world = World(progress=progress).step()
    world.pod(*pods, succeeded=succeeded, failed=failed and not succeeded, deleting=deleting, finished=T0)
    world.step(after=20)
    TrainingRun.model_validate({**world.run.dump(), "status": world.plan.status})
    assert (world.plan.requeue_at is None) == (world.phase in ("Succeeded", "Failed"))
    assert len(world.created) == 1 or world.attempts[0].end_time is not None
    assert world.now == T0 + seconds(20)
