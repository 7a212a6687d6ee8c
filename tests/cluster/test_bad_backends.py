"""Where a run may run, and what a trainer of the user's own needs: a real API server says so at once, with the mend."""

from __future__ import annotations

import json

import pytest

from tests.cluster.api_server import ApiServer
from tests.cluster.objects import Object, data, generation, model, reward_model, run, sft, spoilt, stage

pytestmark = pytest.mark.cluster

OWN = {"image": "registry/mine:1", "custom": {"command": ["/train"]}}
REWARD = {"method": "Reward", "model": model(), "datasets": [data("train")]}

# what the mistake is: (object, field in the error, words of the error)
MISTAKES: dict[str, tuple[Object, str, str]] = {
    "Curate on two nodes": (
        run("Curate", datasets=[data("conversations")], nodes=2),
        "spec.nodes",
        "method Curate runs on one node; remove 'nodes' (Reward, SFT, DPO, KTO, GRPO, RLOO, Custom train on many)",
    ),
    "a stage's Record on two nodes": (
        generation(stage("record", "Record", nodes=3)),
        "spec.stages[0].run.nodes",
        "method Record runs on one node; remove 'nodes'",
    ),
    "no node at all": (sft(nodes=0), "spec.nodes", "should be greater than or equal to 1"),
    "more nodes than a Service is meant for": (sft(nodes=65), "spec.nodes", "should be less than or equal to 64"),
    "a backend that nobody knows": (sft(backend="Ray"), "spec.backend", 'supported values: "Job", "JobSet"'),
    "a queue with a capital": (
        sft(queueName="GPUs"),
        "spec.queueName",
        "'GPUs' is not the name of a queue; write a-z, 0-9 and '-', as `kubectl get localqueues` shows it",
    ),
    "Custom without an image": (
        run("Custom", custom={}),
        "spec.image",
        "method Custom runs a trainer of yours; set 'image' to it, and 'custom' to its command and parametersSchema",
    ),
    "Custom without its own settings": (run("Custom", image="registry/mine:1"), "spec.image", "method Custom runs a trainer of yours"),
    "custom settings for a method that is shipped": (
        sft(custom={"command": ["/train"]}),
        "spec.custom",
        "'custom' belongs to method Custom, not to SFT; remove it, or set method to Custom",
    ),
    "custom settings for a reward model's training": (
        reward_model(training={**REWARD, "custom": {"command": ["/train"]}}),
        "spec.training.custom",
        "'custom' belongs to method Custom, not to Reward",
    ),
    "a command of too many words": (
        run("Custom", image="registry/mine:1", custom={"command": ["x"] * 33}),
        "spec.custom.command",
        "must have at most 32 items",
    ),
}
GOOD: dict[str, Object] = {
    "SFT on many nodes in a queue": sft(nodes=64, gpusPerNode=8, backend="JobSet", queueName="gpus"),
    "a trainer of one's own": run("Custom", **OWN, parameters={"a": 1}),
    "a trainer of one's own with a schema": run(
        "Custom",
        image="registry/mine:1",
        nodes=2,
        custom={"command": ["/train"], "args": ["-v"], "parametersSchema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    ),
    "a stage whose own trainer makes what the next one learns from": generation(
        stage("mine", "Custom", **OWN),
        stage("sft", "SFT", model={"type": "Base"}, datasets=[{"name": "train", "from": {"type": "Stage", "stage": "mine"}}]),
    ),
}
# Lint's words where the API server's are its own.
LINT_WORDS = {
    "a backend that nobody knows": "input should be 'Job' or 'JobSet'",
    "a command of too many words": "at most 32 items",
    "no node at all": "greater than or equal to 1",
    "more nodes than a Service is meant for": "less than or equal to 64",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_api_server_names_field_and_mend(apiserver: ApiServer, mistake: str) -> None:
    body, field, words = MISTAKES[mistake]
    answer = apiserver.check(body)
    assert not answer.accepted, answer.output
    assert field in answer.error
    assert words in answer.error


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_is_taken(apiserver: ApiServer, name: str) -> None:
    answer = apiserver.check(GOOD[name])
    assert answer.accepted, answer.error


def test_a_stored_run_of_an_older_version_is_one_pod_of_a_job(apiserver: ApiServer) -> None:
    """Defaults that are filled in when it is read mean what it meant before."""
    answer = apiserver.kubectl("apply", "--dry-run=server", "-o", "jsonpath={.spec.nodes}/{.spec.backend}/{.spec.queueName}", "-f", "-",
                               stdin=json.dumps(spoilt(sft(), "metadata.name", "older")))  # fmt: skip
    assert answer.output == "1/Job/"
