"""A RewardModel: trained by a child, judged by its metric, or imported by digest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flywheel.api.reward_model import RewardModel
from flywheel.api.training_run import TrainingRun
from flywheel.plan.base import Apply, Emit, Plan
from flywheel.plan.reward_model import RewardModelObserved, plan_reward_model, training_run_name
from tests.builders import DIGEST, T0, make_artifact, make_reward_model, make_training_run, seconds

ARTIFACT = make_artifact("reward-model")


class World:
    """The RewardModel, its child, and the last plan."""

    def __init__(self, model: RewardModel) -> None:
        self.model, self.children, self.now = model, dict[str, TrainingRun](), T0
        self.plan = Plan({})

    def step(self) -> World:
        child = self.children.get(training_run_name(self.model))
        self.plan = plan_reward_model(RewardModelObserved(self.model, child), self.now)
        self.model = RewardModel.model_validate(json.loads(json.dumps({**self.model.dump(), "status": self.plan.status}, allow_nan=False)))
        for action in self.plan.actions:
            if isinstance(action, Apply):
                name = action.manifest["metadata"]["name"]
                status = self.children[name].status.dump() if name in self.children else {}
                self.children[name] = TrainingRun.model_validate({**action.manifest, "status": status})
        self.now += seconds(30)
        return self

    def child_is(self, phase: str, metrics: dict[str, float] | None = None, **status: Any) -> World:
        name = training_run_name(self.model)
        made = {"artifact": ARTIFACT.dump(), "metrics": metrics or {}} if phase == "Succeeded" else {}
        self.children[name] = TrainingRun.model_validate({**self.children[name].dump(), "status": {"phase": phase, **made, **status}})
        return self.step()

    def edit(self, **spec: Any) -> World:
        body = self.model.dump()
        body["spec"] |= spec
        body["metadata"]["generation"] += 1
        self.model = RewardModel.model_validate(body)
        return self.step()

    @property
    def phase(self) -> str:
        return self.model.status.phase

    @property
    def ready(self) -> tuple[str, str]:
        condition = self.model.status.conditions[0]
        return condition.status, condition.reason

    @property
    def message(self) -> str:
        return self.model.status.conditions[0].message


def test_it_makes_one_training_run_with_labels_owner_and_its_storage() -> None:
    labels = {"modelflywheel.dev/generation": "g1", "modelflywheel.dev/flywheel": "demo", "app": "x"}
    world = World(make_reward_model(labels=labels, storage={"claimName": "other"})).step()
    (child,) = world.children.values()
    assert child.metadata.name == world.model.status.training_run
    assert child.metadata.owner_references[0].uid == world.model.metadata.uid
    assert child.metadata.labels == {
        "app.kubernetes.io/managed-by": "flywheel-operator",
        "modelflywheel.dev/generation": "g1",
        "modelflywheel.dev/flywheel": "demo",
        "modelflywheel.dev/reward-model": "preference",
    }
    assert (child.spec.method, child.spec.storage.claim_name) == ("Reward", "other")
    assert world.step().step().plan.actions == ()
    assert len(world.children) == 1


def test_it_shows_how_far_its_training_is() -> None:
    world = World(make_reward_model()).step().child_is("Running", progress={"step": 3, "totalSteps": 60, "percent": 5})
    assert (world.phase, world.ready[0]) == ("Training", "False")
    assert world.model.status.progress is not None
    assert world.model.status.progress.step == 3
    assert world.plan.requeue_at is not None


def test_it_is_ready_when_its_metric_reaches_the_minimum_and_says_both_numbers() -> None:
    world = World(make_reward_model(validation={"metric": "accuracy", "minimum": 0.6})).step().child_is("Succeeded", {"accuracy": 0.71})
    assert (world.phase, world.ready) == ("Ready", ("True", "Ready"))
    assert "accuracy is 0.71, at least 0.6" in world.message
    assert world.model.status.artifact == ARTIFACT
    assert world.plan.requeue_at is None


@pytest.mark.parametrize(
    ("metrics", "said"),
    [({"accuracy": 0.55}, "accuracy is 0.55, below spec.validation.minimum 0.6"), ({"loss": 1.0}, "did not report accuracy")],
)
def test_it_fails_its_validation_below_the_minimum_or_without_the_metric(metrics: dict[str, float], said: str) -> None:
    world = World(make_reward_model(validation={"metric": "accuracy", "minimum": 0.6})).step().child_is("Succeeded", metrics)
    assert (world.phase, world.ready) == ("Failed", ("False", "ValidationFailed"))
    assert said in world.message
    assert world.model.status.artifact is None
    world.children.clear()
    assert world.step().plan.actions == (), "a run that was tidied away is not made again"


def test_a_lowered_minimum_makes_it_ready_without_another_training() -> None:
    world = World(make_reward_model(validation={"metric": "accuracy", "minimum": 0.6})).step().child_is("Succeeded", {"accuracy": 0.55})
    world.edit(validation={"metric": "accuracy", "minimum": 0.5})
    assert (world.phase, len(world.children)) == ("Ready", 1)


def test_a_changed_training_after_a_failed_validation_makes_another_run() -> None:
    world = World(make_reward_model(validation={"metric": "accuracy", "minimum": 0.6})).step().child_is("Succeeded", {"accuracy": 0.55})
    training = world.model.dump()["spec"]["training"] | {"seed": 3}
    world.edit(training=training).step()
    assert (len(world.children), world.phase) == (2, "Pending")
    world.child_is("Succeeded", {"accuracy": 0.8})
    assert world.phase == "Ready"


def test_a_failed_training_is_told_and_goes_on_after_a_mend_in_the_same_run() -> None:
    world = World(make_reward_model()).step()
    condition = {
        "type": "Succeeded",
        "status": "False",
        "reason": "DatasetEmpty",
        "message": "no rows",
        "lastTransitionTime": T0.isoformat(),
    }
    world.child_is("Failed", conditions=[condition])
    assert (world.phase, world.ready) == ("Failed", ("False", "DatasetEmpty"))
    assert "no rows" in world.message
    world.edit(training=world.model.dump()["spec"]["training"] | {"seed": 3})
    (child,) = world.children.values()
    assert child.spec.seed == 3
    world.child_is("Running")
    assert world.phase == "Training"


def test_suspend_is_passed_on() -> None:
    world = World(make_reward_model()).step().edit(suspend=True)
    (child,) = world.children.values()
    assert child.spec.suspend is True


def test_a_retry_annotation_is_passed_on() -> None:
    world = World(make_reward_model(annotations={"modelflywheel.dev/retry": "1"})).step()
    (child,) = world.children.values()
    assert child.metadata.annotations == {"modelflywheel.dev/retry": "1"}


def test_what_is_ready_stays_ready_when_its_run_is_deleted_or_its_training_edited() -> None:
    world = World(make_reward_model()).step().child_is("Succeeded", {"accuracy_lower": 0.9})
    world.children.clear()
    world.edit(training=world.model.dump()["spec"]["training"] | {"seed": 3}).step()
    assert (world.phase, world.children) == ("Ready", {})


def test_a_training_run_of_somebody_else_is_not_touched() -> None:
    world = World(make_reward_model())
    name = training_run_name(world.model)
    world.children[name] = make_training_run(name)
    world.step()
    assert world.ready == ("False", "NameConflict")
    assert all(isinstance(action, Emit) for action in world.plan.actions)


def test_an_imported_artifact_is_ready_by_its_digest() -> None:
    world = World(make_reward_model(artifact=ARTIFACT.dump())).step()
    assert (world.phase, world.ready) == ("Ready", ("True", "Ready"))
    assert DIGEST in world.message
    assert "not checked" in world.message
    assert world.children == {}


@pytest.mark.parametrize(
    ("artifact", "said"),
    [
        ({"uri": "file:///flywheel/rm"}, "give spec.artifact.digest"),
        ({"uri": "file:///flywheel/rm", "digest": DIGEST, "kind": "model"}, "is a model"),
    ],
)
def test_an_import_without_digest_or_of_another_kind_is_refused(artifact: dict[str, str], said: str) -> None:
    world = World(make_reward_model(artifact=artifact)).step()
    assert (world.phase, world.ready) == ("Failed", ("False", "InvalidSpec"))
    assert said in world.message


def test_a_failed_one_that_is_asked_again_has_not_failed_until_its_run_has_answered() -> None:
    world = World(make_reward_model()).step()
    failed = {"number": 1, "job": "j", "revision": 1, "specHash": "x", "reason": "OutOfMemory", "endTime": T0.isoformat()}
    assert world.child_is("Failed", attempts=[failed]).phase == "Failed"
    body = world.model.dump()
    body["metadata"]["annotations"] = {"modelflywheel.dev/retry": "now"}
    world.model = RewardModel.model_validate(body)
    assert world.step().phase == "Training"
    assert world.step().phase == "Training"  # its run wears the annotation, and has yet to look at it
    assert world.child_is("Failed", attempts=[{**failed, "retryToken": "now"}]).phase == "Failed"
    assert world.model.status.retry == "now"
