"""What the API server must take: the examples, minimal objects, and what the operator itself writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Generation
from flywheel.api.reward_model import RewardModel
from flywheel.api.rollout import Rollout
from flywheel.api.training_run import TrainingRun
from flywheel.plan.default_stages import default_stages
from tests.cluster.api_server import ApiServer
from tests.cluster.objects import Object, data, flywheel, from_stage, generation, model, reward, reward_model, rollout, run, sft, stage

pytestmark = pytest.mark.cluster
REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
MODELS = {"Flywheel": Flywheel, "Generation": Generation, "RewardModel": RewardModel, "Rollout": Rollout, "TrainingRun": TrainingRun}
MINIMAL = [
    flywheel(),
    generation(),
    generation(
        stage("dpo", "DPO", model={"type": "Stage", "stage": "sft"}, datasets=[from_stage("train", "curate")]),
        defaultStages="Extend",
        skip=["evaluate"],
        candidate="rl",
        stagePatches=[{"name": "rl", "patch": {"run": {"gpusPerNode": 8, "parameters": {"maxSteps": 5}}}}],
        cache="Always",
        approval={"message": "fifty samples"},
        rollout={},
        ttlAfterFinished="720h",
        approvals=[{"stage": "rollout", "digest": "sha256:" + "a" * 64, "decision": "Approve", "by": "alice"}],
    ),
    sft(),
    run("Record"),
    run("Curate", datasets=[data("conversations")]),
    run("DPO", model=model(), datasets=[data("train")]),
    run("GRPO", model=model(), datasets=[data("prompts")], rewards=[reward()]),
    run("Evaluate", model=model(), opponent=model(), datasets=[data("user")], rewards=[reward("Judge")]),
    reward_model(),
    rollout(),
]


def in_own_name(apiserver: ApiServer, body: Object) -> Object:
    """The object with its approvals given by whoever asks: where the chart is installed, no other is taken."""
    if "approvals" not in body["spec"]:
        return body
    me = json.loads(apiserver.kubectl("auth", "whoami", "-o", "json").output)["status"]["userInfo"]["username"]
    approvals = [{**approval, "by": me} for approval in body["spec"]["approvals"]]
    return {**body, "spec": {**body["spec"], "approvals": approvals}}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("server_side", [False, True], ids=["client-side", "server-side"])
def test_an_example_is_accepted(apiserver: ApiServer, path: Path, server_side: bool) -> None:
    answer = apiserver.kubectl("apply", f"--server-side={server_side}".lower(), "--dry-run=server", "-f", str(path))
    assert answer.accepted, answer.error


@pytest.mark.parametrize("body", MINIMAL, ids=lambda body: f"{body['kind']} {body['spec'].get('method', '')}".strip())
def test_the_api_server_and_the_operator_fill_in_the_same_defaults(apiserver: ApiServer, body: Object) -> None:
    """An object read from the API server and one read from YAML mean the same to the operator."""
    body = in_own_name(apiserver, body)
    answer = apiserver.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(body))
    assert answer.accepted, answer.error
    kind = MODELS[body["kind"]]
    assert kind.model_validate(json.loads(answer.output)).spec.dump() == kind.model_validate(body).spec.dump()  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", MINIMAL, ids=lambda body: f"{body['kind']} {body['spec'].get('method', '')}".strip())
def test_what_the_operator_would_write_is_accepted(apiserver: ApiServer, body: Object) -> None:
    body = in_own_name(apiserver, body)
    spec = MODELS[body["kind"]].model_validate(body).spec.dump()  # type: ignore[attr-defined]
    answer = apiserver.check({**body, "spec": spec})
    assert answer.accepted, answer.error


def test_the_default_stages_would_be_accepted_if_a_person_wrote_them(apiserver: ApiServer) -> None:
    answer = apiserver.check(generation(*(stage.dump() for stage in default_stages())))
    assert answer.accepted, answer.error


def test_a_bare_generation_shows_its_rollout_defaults(apiserver: ApiServer) -> None:
    answer = apiserver.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(generation(rollout={})))
    shown = json.loads(answer.output)["spec"]["rollout"]
    assert shown["analysis"]["window"] == "168h"
    assert [step["weightPercent"] for step in shown["traffic"]["steps"]] == [1, 5, 10]
    assert {metric["name"] for metric in shown["metrics"]} == {"breadth", "depth", "errors", "thumbs_down"}


def test_explain_is_useful(apiserver: ApiServer) -> None:
    answer = apiserver.kubectl("explain", "rollouts.modelflywheel.dev.spec.analysis")
    assert answer.accepted, answer.error
    for words in ("When and how the verdict is reached", "How long users are enrolled", "Default: the 99.9th percentile"):
        assert words in " ".join(answer.output.split())
