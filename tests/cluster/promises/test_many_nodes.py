"""Runs of several pods, runs that a queue admits, and trainers of the user's own: real pods that meet over a real headless Service."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.cluster.promises import data, objects, space
from tests.cluster.promises.conftest import Store
from tests.cluster.promises.space import Body, condition, get, patch, phase, reason, status, watch

pytestmark = pytest.mark.cluster
PATIENCE = 300  # seconds; several trainers share two cores
STEPS = 400

# A trainer that somebody else wrote: it knows the contract, and takes only the artifact's form from the shipped trainers.
CUSTOM = """
import json, pathlib
from flywheel_trainers import artifacts
config = json.loads(pathlib.Path("/etc/flywheel/run.json").read_text())
content = pathlib.Path("/tmp/content")
content.mkdir()
(content / "config.json").write_text(json.dumps({"temperature": config["parameters"]["temperature"]}))
made = artifacts.publish(content, config["output"]["uri"], kind="model", card="by hand", metrics={}, created_by=config["run"])
pathlib.Path("/dev/termination-log").write_text(json.dumps({"artifact": made.to_json(), "metrics": {"seed": config["seed"]}}))
"""


def custom(name: str, **parameters: Any) -> Body:
    schema = {
        "type": "object",
        "required": ["temperature"],
        "additionalProperties": False,
        "properties": {"temperature": {"type": "number", "minimum": 0, "maximum": 2}},
    }
    spec = {
        "method": "Custom",
        "seed": 5,
        "image": "localhost/flywheel/trainer:dev",
        "custom": {"command": ["python", "-c", CUSTOM], "parametersSchema": schema},
        "parameters": parameters,
        "resources": objects.SMALL,
    }
    return {"apiVersion": objects.API, "kind": "TrainingRun", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def asked_for(store: Store) -> Store:
    """All at once: they share the machine, and the suite its time."""
    space.apply(objects.sft("two-nodes", store.base, store.sft, steps=STEPS, nodes=2, checkpoint={"everySteps": 10}))
    space.apply(custom("own-trainer", temperature=0.5))
    space.apply(custom("own-trainer-misled", temperature=3))
    space.apply(objects.sft("no-jobset", store.base, store.sft, backend="JobSet"))
    space.apply(objects.sft("queued", store.base, store.sft, steps=3, queueName="gpus"))
    return store


def pods_of(job: str) -> list[Body]:
    return space.children("pods", f"batch.kubernetes.io/job-name={job}")


def test_two_pods_train_one_model_and_one_that_is_taken_away_costs_a_checkpoint_at_most(asked_for: Store) -> None:
    begun = watch("trainingrun", "two-nodes", lambda b: (status(b).get("progress") or {}).get("step", 0) >= 12, timeout=PATIENCE).last
    (first,) = status(begun)["attempts"]
    pods = {pod["spec"]["hostname"]: pod for pod in pods_of(first["job"])}
    assert sorted(pods) == [f"{first['job']}-0", f"{first['job']}-1"]
    assert {pod["spec"]["subdomain"] for pod in pods.values()} == {"two-nodes-pods"}
    assert get("service", "two-nodes-pods")["spec"]["clusterIP"] == "None"
    space.kubectl("delete", "pod", pods[f"{first['job']}-1"]["metadata"]["name"], "--wait=false")
    ended = watch("trainingrun", "two-nodes", phase("Succeeded", "Failed"), timeout=PATIENCE).last
    assert status(ended)["phase"] == "Succeeded", condition(ended, "Succeeded")
    interrupted, second = status(ended)["attempts"]
    assert (interrupted["reason"], second["reason"]) == ("Interrupted", "Succeeded"), interrupted
    assert "sha256:" in second["imageId"]
    logs = space.kubectl(
        "logs", "--tail=-1", next(p["metadata"]["name"] for p in pods_of(second["job"]) if p["spec"]["hostname"].endswith("-0"))
    )
    resumed = re.search(r"resuming at step (\d+)", logs)
    assert resumed, logs[-2000:]
    assert int(resumed[1]) >= 10
    made = status(ended)["artifact"]
    assert data.digest_of(made["uri"]) == made["digest"]


def test_a_trainer_of_the_users_own_makes_an_artifact_like_any_other(asked_for: Store) -> None:
    body = watch("trainingrun", "own-trainer", phase("Succeeded", "Failed"), timeout=PATIENCE).last
    assert status(body)["phase"] == "Succeeded", condition(body, "Succeeded")
    made = status(body)["artifact"]
    assert (made["kind"], status(body)["metrics"]) == ("model", {"seed": 5})
    assert data.digest_of(made["uri"]) == made["digest"]


def test_a_custom_trainers_parameters_are_checked_before_there_is_a_pod(asked_for: Store) -> None:
    body = watch("trainingrun", "own-trainer-misled", phase("Failed"), timeout=60).last
    assert condition(body, "Succeeded")["reason"] == "InvalidParameter"
    assert "spec.parameters.temperature: Input should be less than or equal to 2, not '3'" in condition(body, "Succeeded")["message"]
    assert not status(body).get("attempts")
    assert space.children("jobs", "modelflywheel.dev/training-run=own-trainer-misled") == []


def test_a_backend_that_is_not_installed_is_named_and_nothing_crashes(asked_for: Store) -> None:
    if "jobset.x-k8s.io" in space.kubectl("get", "customresourcedefinitions", "-o", "name"):
        pytest.skip("JobSet is installed in this cluster")
    body = watch("trainingrun", "no-jobset", reason("Succeeded", "BackendMissing"), timeout=60).last
    assert "install JobSet" in condition(body, "Succeeded")["message"]
    assert status(body)["phase"] == "Pending"
    patch("trainingrun", "no-jobset", {"spec": {"backend": "Job", "parameters": {"maxSteps": 2}}})
    watch("trainingrun", "no-jobset", lambda b: bool(status(b).get("attempts")), timeout=60)
    space.kubectl("delete", "trainingrun", "no-jobset", "--wait=false")


def test_what_a_queue_holds_back_is_queued_until_the_queue_lifts_suspend(asked_for: Store) -> None:
    """Kueue's part is played by kubectl: it sets `spec.suspend` of the Job, and nothing else."""
    body = watch("trainingrun", "queued", reason("Succeeded", "Queued"), timeout=60).last
    assert "waits for admission by Kueue queue gpus" in condition(body, "Succeeded")["message"]
    job = status(body)["attempts"][0]["job"]
    assert get("job", job)["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    patch("job", job, {"spec": {"suspend": False}})
    watch("trainingrun", "queued", lambda b: bool(status(b)["attempts"][0].get("startTime")), timeout=PATIENCE)
    patch("job", job, {"spec": {"suspend": True}})  # as it evicts for somebody more important
    watch("trainingrun", "queued", reason("Succeeded", "Queued"), timeout=60)
    patch("job", job, {"spec": {"suspend": False}})
    ended = watch("trainingrun", "queued", phase("Succeeded", "Failed"), timeout=PATIENCE).last
    assert status(ended)["phase"] == "Succeeded", condition(ended, "Succeeded")
    assert [(a["number"], a["reason"]) for a in status(ended)["attempts"]] == [(1, "Succeeded")]
