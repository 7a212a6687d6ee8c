"""`kubectl flywheel` against a real API server, with the rights of an administrator and of somebody who may only look.

All objects are suspended and of no Flywheel, so that an operator that runs here leaves them as they are.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flywheel.cli.main import app
from tests.cluster.api_server import ApiServer
from tests.cluster.objects import Object, generation, rollout, sft

pytestmark = pytest.mark.cluster
KINDS = ["flywheels", "generations", "trainingruns", "rewardmodels", "rollouts"]


@pytest.fixture
def namespace(apiserver: ApiServer) -> Iterator[str]:
    """A namespace with a lap, a run and a rollout, all paused."""
    name = f"cli-{uuid.uuid4().hex[:8]}"
    apiserver.kubectl("create", "namespace", name)
    for body in (generation(suspend=True), sft(suspend=True), rollout(suspend=True)):
        assert apiserver.apply(body, name).accepted
    yield name
    apiserver.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def flywheel(apiserver: ApiServer, namespace: str) -> Callable[..., Result]:
    """The command, as the administrator unless another kubeconfig is given."""

    def run(*arguments: str, kubeconfig: Path = apiserver.kubeconfig) -> Result:
        return CliRunner().invoke(app, [*arguments, "-n", namespace, "--kubeconfig", str(kubeconfig)])

    return run


@pytest.fixture
def looker(apiserver: ApiServer, namespace: str, tmp_path: Path) -> Path:
    """The kubeconfig of a service account that may read the five kinds, and nothing else."""
    apiserver.kubectl("create", "serviceaccount", "looker", "-n", namespace)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "looker"},
        "rules": [{"apiGroups": ["modelflywheel.dev"], "resources": KINDS, "verbs": ["get", "list", "watch"]}],
    }
    assert apiserver.apply(role, namespace).accepted
    apiserver.kubectl("create", "rolebinding", "looker", "--role=looker", f"--serviceaccount={namespace}:looker", "-n", namespace)
    token = apiserver.kubectl("create", "token", "looker", "-n", namespace).output.strip()
    config = json.loads(apiserver.kubectl("config", "view", "--raw", "--flatten", "-o", "json").output)
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    file = tmp_path / "looker"
    file.write_text(json.dumps(config))
    return file


def get(apiserver: ApiServer, namespace: str, ref: str) -> Object:
    found: Object = json.loads(apiserver.kubectl("get", ref, "-n", namespace, "-o", "json").output)
    return found


def test_the_command_looks_at_and_steers_real_objects(apiserver: ApiServer, namespace: str, flywheel: Callable[..., Result]) -> None:
    shown = flywheel("tree", "-o", "json")
    assert shown.exit_code == 0, shown.output
    assert [(node["kind"], node["name"]) for node in json.loads(shown.output)] == [
        ("Generation", "g1"),
        ("Rollout", "ab"),
        ("TrainingRun", "trial"),
    ]
    assert flywheel("status", "fwtr/trial").exit_code == 0
    assert flywheel("explain", "trial").output.startswith("TrainingRun trial")

    assert flywheel("resume", "trainingrun/trial").output == "TrainingRun trial goes on.\n"
    assert get(apiserver, namespace, "trainingruns.modelflywheel.dev/trial")["spec"]["suspend"] is False
    assert flywheel("pause", "trainingrun/trial").exit_code == 0
    assert get(apiserver, namespace, "trainingruns.modelflywheel.dev/trial")["spec"]["suspend"] is True
    assert flywheel("abort", "rollout/ab").exit_code == 0
    assert get(apiserver, namespace, "rollouts.modelflywheel.dev/ab")["spec"]["abort"] is True

    decision = {"verdict": "Rejected", "reason": "GateRejected", "message": "too good", "time": "2026-11-24T23:00:00Z", "revision": 1}
    status = json.dumps({"status": {"phase": "Rejected", "revision": 1, "decision": decision}})
    apiserver.kubectl("patch", "generations.modelflywheel.dev/g1", "-n", namespace, "--subresource=status", "--type=merge", "-p", status)
    assert "GateRejected: too good" in flywheel("explain", "generation/g1").output
    assert flywheel("retry", "generation/g1").exit_code == 0
    assert get(apiserver, namespace, "generations.modelflywheel.dev/g1")["metadata"]["annotations"]["modelflywheel.dev/retry"]


def test_who_may_only_look_can_look_and_is_told_why_not_more(flywheel: Callable[..., Result], looker: Path) -> None:
    assert flywheel("tree", kubeconfig=looker).exit_code == 0
    assert flywheel("explain", "generation/g1", kubeconfig=looker).exit_code == 0
    refused = flywheel("resume", "generation/g1", kubeconfig=looker)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("You may not patch Generation g1 (")
    checks = {check["name"]: check for check in json.loads(flywheel("doctor", "-o", "json", kubeconfig=looker).output)}
    assert checks["rights: reading"]["state"] == "ok"
    assert checks["rights: writing"]["message"].startswith("you may only look at namespace")
    assert checks["CRDs"]["message"].endswith("you may not read whether they are of this version")
    assert checks["operator"]["state"] == "not checked"


def test_doctor_knows_the_crds_of_this_checkout_again(flywheel: Callable[..., Result]) -> None:
    checks = {check["name"]: check for check in json.loads(flywheel("doctor", "-o", "json").output)}
    assert checks["CRDs"] == {"name": "CRDs", "state": "ok", "message": "all five kinds are served in v1alpha1, as this command knows them"}
