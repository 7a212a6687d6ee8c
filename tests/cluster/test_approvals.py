"""Who may approve a lap's result or promote a model by hand, as a real API server sees it: a right of its own, and one's own name."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from flywheel.cli.main import app
from tests.cluster.api_server import Answer, ApiServer, find_program
from tests.cluster.objects import DIGEST, OTHER_DIGEST, Object, generation, rollout

pytestmark = pytest.mark.cluster
CHART = Path(__file__).resolve().parents[2] / "helm" / "flywheel"
ALICE, BOB, EVE = "alice", "bob", "eve"  # alice and bob may approve, eve may only edit
POLICY_SECONDS = 60  # an API server takes a moment to enforce a policy
READY = "policy-probe"


@pytest.fixture(scope="module")
def guarded(apiserver: ApiServer) -> Iterator[ApiServer]:
    """The API server with the chart's policies and roles."""
    helm = find_program("helm")
    if helm is None:
        pytest.skip("helm is neither on PATH nor in the cache of `make cluster-up`")
    command = [str(helm), "template", "guard", str(CHART), "--kube-version", "1.34.0"]
    for template in ("approval-policy.yaml", "aggregate-roles.yaml"):
        command += ["--show-only", f"templates/{template}"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    answer = apiserver.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    assert answer.accepted, answer.error
    yield apiserver
    apiserver.kubectl("delete", "--wait=false", "-f", "-", stdin=text)


@pytest.fixture(scope="module")
def namespace(guarded: ApiServer) -> Iterator[str]:
    """A namespace in which the three have their rights, once the policies are enforced. Its objects are suspended."""
    name = f"approvals-{uuid.uuid4().hex[:8]}"
    assert guarded.kubectl("create", "namespace", name).accepted
    everything = ["create", "get", "list", "update", "patch", "delete"]
    edit = {"apiGroups": ["modelflywheel.dev"], "resources": ["generations", "rollouts"], "verbs": everything}
    rules = {"editor": [edit], "approver": [approving("guard-flywheel-approve", guarded)]}
    for role, granted in rules.items():
        body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": role}, "rules": sum_of(granted)}
        assert guarded.apply(body, name).accepted
    for role, users in (("editor", (ALICE, BOB, EVE)), ("approver", (ALICE, BOB))):
        accounts = [f"--user={user}" for user in users] + [f"--serviceaccount={name}:{user}" for user in users]
        assert guarded.kubectl("create", "rolebinding", role, f"--role={role}", *accounts, "-n", name).accepted
    for user in (ALICE, BOB, EVE):
        assert guarded.kubectl("create", "serviceaccount", user, "-n", name).accepted
    probe = generation(suspend=True, approvals=[approval(EVE)])
    probe["metadata"]["name"] = READY
    deadline = time.monotonic() + POLICY_SECONDS
    while as_user(guarded, EVE, name, probe).accepted:
        guarded.kubectl("delete", f"generations.modelflywheel.dev/{READY}", "-n", name)
        assert time.monotonic() < deadline, "the policy is not enforced"
        time.sleep(0.5)
    yield name
    guarded.kubectl("delete", "namespace", name, "--wait=false")


def approving(role: str, server: ApiServer) -> list[Object]:
    """What the chart adds to the ClusterRole admin."""
    found: Object = json.loads(server.kubectl("get", "clusterrole", role, "-o", "json").output)
    assert found["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-edit" not in found["metadata"]["labels"]
    rules: list[Object] = found["rules"]
    return rules


def sum_of(rules: list[Any]) -> list[Object]:
    return [rule for one in rules for rule in (one if isinstance(one, list) else [one])]


def approval(by: str, decision: str = "Approve", digest: str = DIGEST, **fields: str) -> Object:
    return {"stage": "evaluate", "digest": digest, "decision": decision, "by": by, **fields}


def as_user(server: ApiServer, user: str, namespace: str, body: Object) -> Answer:
    return server.kubectl("create", "--as", user, "-n", namespace, "-f", "-", stdin=json.dumps(body))


def say(server: ApiServer, user: str, namespace: str, *approvals: Object, name: str = "g1") -> Answer:
    patch = json.dumps({"spec": {"approvals": list(approvals)}})
    return server.kubectl("patch", f"generations.modelflywheel.dev/{name}", "--as", user, "-n", namespace, "--type=merge", "-p", patch)


@pytest.fixture
def lap(guarded: ApiServer, namespace: str) -> Iterator[str]:
    """A fresh, suspended Generation."""
    assert as_user(guarded, EVE, namespace, generation(suspend=True)).accepted
    yield "g1"
    guarded.kubectl("delete", "generations.modelflywheel.dev/g1", "-n", namespace)


@pytest.mark.usefixtures("lap")
def test_an_approval_needs_the_right_to_approve_and_not_just_to_edit(guarded: ApiServer, namespace: str) -> None:
    refused = say(guarded, EVE, namespace, approval(EVE))
    assert not refused.accepted
    assert "eve lacks the verb approve on generations.modelflywheel.dev in namespace" in refused.error
    assert say(guarded, ALICE, namespace, approval(ALICE)).accepted


@pytest.mark.usefixtures("lap")
def test_nobody_approves_in_the_name_of_another(guarded: ApiServer, namespace: str) -> None:
    refused = say(guarded, ALICE, namespace, approval(BOB))
    assert not refused.accepted
    assert "an approval is given in one's own name; set by to alice" in refused.error


@pytest.mark.usefixtures("lap")
def test_what_one_has_said_nobody_else_changes_or_removes(guarded: ApiServer, namespace: str) -> None:
    assert say(guarded, ALICE, namespace, approval(ALICE, "Reject", comment="it flatters")).accepted
    for spoilt in ([approval(ALICE, "Approve")], [approval(BOB)], []):
        refused = say(guarded, BOB, namespace, *spoilt)
        assert not refused.accepted, spoilt
    assert "what others have said can't be changed or removed by bob" in say(guarded, BOB, namespace).error
    beside = [approval(ALICE, "Reject", comment="it flatters"), approval(BOB, digest=OTHER_DIGEST)]
    assert say(guarded, BOB, namespace, *beside).accepted  # of another result he speaks for himself
    assert say(guarded, ALICE, namespace, approval(ALICE, comment="it does not, after all"), beside[1]).accepted


@pytest.mark.usefixtures("lap")
def test_other_edits_need_no_right_to_approve(guarded: ApiServer, namespace: str) -> None:
    assert say(guarded, ALICE, namespace, approval(ALICE)).accepted
    for patch in ({"spec": {"seed": 3}}, {"metadata": {"labels": {"team": "a"}}}):
        ref = ("patch", "generations.modelflywheel.dev/g1", "--as", EVE, "-n", namespace, "--type=merge", "-p", json.dumps(patch))
        answer = guarded.kubectl(*ref)
        assert answer.accepted, answer.error


def test_a_lap_is_not_created_with_approvals_by_one_who_may_not_give_them(guarded: ApiServer, namespace: str) -> None:
    body = generation(suspend=True, approvals=[approval(EVE)])
    assert "eve lacks the verb approve" in as_user(guarded, EVE, namespace, body).error


def test_a_promotion_by_hand_needs_a_right_of_its_own_and_ones_own_name(guarded: ApiServer, namespace: str) -> None:
    assert as_user(guarded, EVE, namespace, rollout(suspend=True)).accepted

    def promote(user: str, by: str, digest: str = OTHER_DIGEST) -> Answer:
        wish = {"by": by, "digest": digest, "reason": "Prometheus is down for the week"}
        patch = json.dumps({"spec": {"promote": wish}})
        ref = ("patch", "rollouts.modelflywheel.dev/ab", "--as", user, "-n", namespace, "--type=merge", "-p", patch)
        return guarded.kubectl(*ref)

    assert "eve lacks the verb promote on rollouts.modelflywheel.dev" in promote(EVE, EVE).error
    assert "a model is promoted in one's own name; set by to alice" in promote(ALICE, BOB).error
    assert "is not the candidate's; give" in promote(ALICE, ALICE, DIGEST).error
    assert promote(ALICE, ALICE).accepted
    undone = guarded.kubectl(
        "patch",
        "rollouts.modelflywheel.dev/ab",
        "--as",
        EVE,
        "-n",
        namespace,
        "--type=json",
        "-p",
        '[{"op":"remove","path":"/spec/promote"}]',
    )
    assert undone.accepted, undone.error


@pytest.fixture
def flywheel(guarded: ApiServer, namespace: str, tmp_path: Path) -> Callable[..., Result]:
    """The command, by one of the three as a service account, for it has no `--as`."""

    def run(user: str, *arguments: str) -> Result:
        token = guarded.kubectl("create", "token", user, "-n", namespace).output.strip()
        config = json.loads(guarded.kubectl("config", "view", "--raw", "--flatten", "-o", "json").output)
        config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
        file = tmp_path / user
        file.write_text(yaml.safe_dump(config))
        return CliRunner().invoke(app, [*arguments, "-n", namespace, "--kubeconfig", str(file)])

    return run


@pytest.mark.usefixtures("lap")
def test_the_command_approves_in_the_name_that_the_api_server_knows(
    guarded: ApiServer, namespace: str, flywheel: Callable[..., Result]
) -> None:
    made = {"uri": "file:///flywheel/artifacts/e", "digest": DIGEST, "kind": "evaluation"}
    waits = {"name": "evaluate", "kind": "TrainingRun", "phase": "AwaitingApproval", "artifact": made}
    status = json.dumps({"status": {"phase": "AwaitingApproval", "stages": [waits]}})
    guarded.kubectl("patch", "generations.modelflywheel.dev/g1", "-n", namespace, "--subresource=status", "--type=merge", "-p", status)
    refused = flywheel(EVE, "approve", "generation/g1")
    assert refused.exit_code == 2
    assert f"system:serviceaccount:{namespace}:eve lacks the verb approve" in refused.stderr
    assert flywheel(BOB, "approve", "generation/g1", "--comment", "read 50 samples").exit_code == 0
    found = json.loads(guarded.kubectl("get", "generations.modelflywheel.dev/g1", "-n", namespace, "-o", "json").output)
    (entry,) = found["spec"]["approvals"]
    assert (entry["by"], entry["digest"], entry["decision"]) == (f"system:serviceaccount:{namespace}:bob", DIGEST, "Approve")
    assert entry["comment"] == "read 50 samples"
    doctor = {check["name"]: check for check in json.loads(flywheel(BOB, "doctor", "-o", "json").output)}
    assert doctor["approvals"]["state"] == "not checked"  # who may not read policies is told so
