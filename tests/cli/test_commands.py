"""The commands from the shell's side: what is printed, what is sent, and the exit code."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from flywheel.cli.errors import Problem
from flywheel.cli.live import folded, watch
from flywheel.cli.tree import Node, forest
from tests.cli.conftest import Flywheel
from tests.cli.fake_api import FakeApi
from tests.cli.recorded import asking_rollout, everything, recorded, running_lap
from tests.cluster.objects import sft
from tests.processes import free_ports


def test_tree_shows_the_namespace_of_the_context(api: FakeApi, flywheel: Flywheel) -> None:
    api.hold(*everything())
    shown = flywheel("tree")
    assert shown.exit_code == 0, shown.output
    assert "Flywheel companion  Serving" in shown.output
    assert "    ├── Metric breadth  Harm  -64.5 % [-94.0 %, -23.6 %]" in shown.output
    (root,) = json.loads(flywheel("tree", "companion", "-o", "json").output)
    assert [child["kind"] for child in root["children"]] == ["Champion", "Generation", "Generation", "Generation"]


async def test_a_watched_tree_outlives_an_api_server_that_is_away_for_a_while() -> None:
    looks: list[list[Node] | Problem] = [[Node("Flywheel", "companion", "Serving")], Problem("away"), []]
    out = Console(file=io.StringIO(), width=80)

    async def look() -> list[Node]:
        if not looks:
            raise asyncio.CancelledError
        seen = looks.pop(0)
        if isinstance(seen, Problem):
            raise seen
        return seen

    with pytest.raises(asyncio.CancelledError):
        await watch(look, 0, out)
    assert isinstance(out.file, io.StringIO)
    assert out.file.getvalue().startswith("Flywheel companion  Serving\nFlywheel companion  Serving\naway\n")


def test_a_watched_tree_shows_finished_laps_as_one_line() -> None:
    (root,) = folded(forest([*everything()[:1], running_lap(), recorded("Generation", "companion-3")]))
    assert [(child.phase, bool(child.children)) for child in root.children if child.kind == "Generation"] == [
        ("Training", True),
        ("RolledBack", False),
    ]


def test_an_empty_namespace_is_said_to_be_so(api: FakeApi, flywheel: Flywheel) -> None:
    api.hold(namespace="other")
    shown = flywheel("tree", "-n", "other")
    assert (shown.exit_code, shown.stderr) == (
        1,
        "There is nothing of Flywheel in namespace other; choose another with -n, or look with `kubectl get modelflywheel -A`.\n",
    )


@pytest.mark.parametrize("ref", ["generation/companion-2", "fwgen/companion-2", "generations.modelflywheel.dev/companion-2", "companion-2"])
def test_an_object_is_found_by_any_of_its_names(api: FakeApi, flywheel: Flywheel, ref: str) -> None:
    api.hold(*everything())
    assert flywheel("explain", ref).output.startswith("Generation companion-2 has ended: Rejected")


def test_a_name_of_two_kinds_wants_its_kind(api: FakeApi, flywheel: Flywheel) -> None:
    lap = running_lap()
    lap["metadata"]["name"] = "companion"
    api.hold(*everything(), lap)
    answer = flywheel("status", "companion")
    assert (answer.exit_code, answer.stderr) == (2, "2 objects are named companion; write flywheel/companion or generation/companion.\n")


def test_what_is_not_there_is_told_with_where_to_look(api: FakeApi, flywheel: Flywheel) -> None:
    api.hold()
    answer = flywheel("status", "rollout/x")
    assert answer.exit_code == 1
    assert answer.stderr == "There is no Rollout x in namespace demo; `kubectl get rollouts.modelflywheel.dev -n demo` lists them.\n"
    assert flywheel("status", "pod/x").exit_code == 2


@pytest.mark.parametrize("body", everything(), ids=lambda body: f"{body['kind']} {body['metadata']['name']}")
def test_every_object_has_a_page_and_its_json(api: FakeApi, flywheel: Flywheel, body: dict[str, object]) -> None:
    api.hold(*everything())
    ref = f"{body['kind']}/{body['metadata']['name']}"  # type: ignore[index]
    page = flywheel("status", ref)
    assert page.exit_code == 0, page.output
    assert "Conditions" in page.output
    assert json.loads(flywheel("status", ref, "-o", "json").output) == body


def test_a_kind_that_is_not_installed_is_no_object_that_is_missing(api: FakeApi, flywheel: Flywheel) -> None:
    api.answers["/apis/modelflywheel.dev/v1alpha1/namespaces/demo/rollouts/x"] = 404
    answer = flywheel("status", "rollout/x")
    assert (answer.exit_code, "install them with the chart or crds/" in answer.stderr) == (1, True)


def test_explain_reads_what_it_needs_besides(api: FakeApi, flywheel: Flywheel) -> None:
    rollout = asking_rollout()
    api.hold(running_lap(phase="RollingOut", rollout=rollout["metadata"]["name"]), rollout)
    assert "The lap ends with Rollout companion-1-rollout" in flywheel("explain", "generation/companion-2").output


def test_an_act_patches_the_object_that_was_read(api: FakeApi, flywheel: Flywheel) -> None:
    lap = running_lap()
    api.hold(lap)
    assert flywheel("pause", "generation/companion-2").output.startswith("Generation companion-2 is paused: nothing new starts")
    assert api.patches == [{"spec": {"suspend": True}, "metadata": {"uid": lap["metadata"]["uid"]}}]


def test_a_refused_act_sends_nothing(api: FakeApi, flywheel: Flywheel) -> None:
    api.hold(*everything())
    answer = flywheel("abort", "companion-1-rollout-f250148c")
    assert answer.exit_code == 1
    assert "is decided (Promote)" in answer.stderr
    assert api.patches == []


def test_retry_keeps_the_uid_beside_the_annotation(api: FakeApi, flywheel: Flywheel) -> None:
    api.hold(*everything())
    assert flywheel("retry", "companion-2").exit_code == 0
    (patch,) = api.patches
    assert patch["metadata"]["uid"]
    assert patch["metadata"]["annotations"]["modelflywheel.dev/retry"]


WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def test_an_approval_carries_the_name_that_the_api_server_knows(api: FakeApi, flywheel: Flywheel) -> None:
    lap = running_lap()
    made = {"digest": "sha256:" + "a" * 64, "kind": "evaluation"}
    lap["status"] |= {
        "phase": "AwaitingApproval",
        "stages": [{"name": "evaluate", "kind": "TrainingRun", "phase": "AwaitingApproval", "artifact": made}],
    }
    api.hold(lap)
    api.answers[WHO] = {"status": {"userInfo": {"username": "alice"}}}
    answer = flywheel("approve", "generation/companion-2", "--reject", "--comment", "it flatters")
    assert "is rejected by alice: the lap ends." in answer.output
    ((entry,),) = [patch["spec"]["approvals"] for patch in api.patches]
    assert (entry["by"], entry["decision"], entry["comment"]) == ("alice", "Reject", "it flatters")


def test_a_lap_is_promoted_by_its_rollout(api: FakeApi, flywheel: Flywheel) -> None:
    rollout, lap = asking_rollout(), recorded("Generation", "companion-1")
    lap["status"]["rollout"] = rollout["metadata"]["name"]
    api.hold(lap, rollout)
    api.answers[WHO] = {"status": {"userInfo": {"username": "alice"}}}
    answer = flywheel("promote", "generation/companion-1", "--reason", "Prometheus is down")
    assert answer.output.startswith(f"Rollout {rollout['metadata']['name']} is promoted by alice")
    (patch,) = api.patches
    assert patch["spec"]["promote"]["by"] == "alice"
    assert patch["metadata"]["uid"] == rollout["metadata"]["uid"]


def test_lineage_marks_the_champion(api: FakeApi, flywheel: Flywheel) -> None:
    api.hold(*everything())
    assert "\n* companion-1        companion-initial  5441a99077cb  Promoted" in flywheel("lineage", "companion").output
    entries = json.loads(flywheel("lineage", "companion", "--json").output)
    assert [entry["generation"] for entry in entries if entry["champion"]] == ["companion-1"]


def test_lint_takes_stdin_and_ends_with_1_on_a_finding(flywheel: Flywheel) -> None:
    assert flywheel("lint", "-", stdin=json.dumps(sft())).output == "1 objects checked, 0 findings\n"
    bad = flywheel("lint", "-", "-o", "json", stdin=json.dumps(sft(seed=-1)))
    assert bad.exit_code == 1
    assert json.loads(bad.output)[0]["path"] == "spec.seed"


def test_lint_of_nothing_and_of_no_yaml_says_so(flywheel: Flywheel, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: {{ .Values.x }}: b")
    assert "render" in flywheel("lint", str(tmp_path)).stderr
    assert "There is no object of Flywheel in -." in flywheel("lint", "-", stdin="a: 1").stderr
    assert flywheel("lint", str(tmp_path / "absent")).exit_code == 2


# ------------------------------------------------------------------------------------------------------- when it can't be asked


def test_no_kubeconfig_and_no_server_are_sentences(flywheel: Flywheel, tmp_path: Path) -> None:
    answer = flywheel("tree", "--kubeconfig", str(tmp_path / "none"))
    assert (answer.exit_code, answer.stderr) == (
        2,
        f"There is no kubeconfig at {tmp_path / 'none'}; set KUBECONFIG, or give --kubeconfig.\n",
    )
    answer = flywheel("tree", "--context", "none")
    assert answer.exit_code == 2
    assert "set KUBECONFIG, or give --kubeconfig and --context." in answer.stderr
    (port,) = free_ports(1)
    away = FakeApi()
    away.url = f"http://127.0.0.1:{port}"
    answer = flywheel("tree", "--kubeconfig", str(away.kubeconfig(tmp_path / "away", "demo")))
    assert answer.exit_code == 2
    assert "The API server did not answer" in answer.stderr


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, 2, "You may not list flywheels"),
        (401, 2, "does not know you"),
        (404, 1, "does not know the kinds of Flywheel"),
        (500, 1, "refused"),
    ],
)
def test_an_answer_that_is_no_success_is_told_with_the_mend(api: FakeApi, flywheel: Flywheel, status: int, code: int, words: str) -> None:
    api.hold()
    api.answers["/apis/modelflywheel.dev/v1alpha1/namespaces/demo/flywheels"] = status
    answer = flywheel("tree")
    assert answer.exit_code == code
    assert words in answer.stderr
    assert answer.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------------------- doctor

DEPLOYMENTS = "/apis/apps/v1/namespaces/flywheel-system/deployments"
PROXY = "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query"
CLAIM = "/api/v1/namespaces/demo/persistentvolumeclaims/flywheel-data"
POLICIES = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/flywheel-system/leases/flywheel-operator"


def healthy(api: FakeApi) -> None:
    api.hold(*everything())
    api.install()
    env = [{"name": "FLYWHEEL_PROMETHEUS_ADDRESS", "value": "http://prometheus.monitoring:9090"}]
    deployment = {
        "metadata": {"name": "flywheel"},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "operator", "env": env}]}}},
        "status": {"readyReplicas": 1},
    }
    api.answers[DEPLOYMENTS] = {"items": [deployment]}
    api.answers[LEASE] = {"spec": {"holderIdentity": "flywheel-0", "renewTime": "2999-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15}}
    api.answers[CLAIM] = {"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound", "capacity": {"storage": "20Gi"}}}
    api.answers[PROXY] = {"data": {"result": [{"value": [0, "5"]}]}}
    api.answers[POLICIES] = {"items": [{"metadata": {"name": f"flywheel-{what}"}} for what in ("approvals", "promotions")]}


def examined(flywheel: Flywheel) -> tuple[int, dict[str, tuple[str, str]]]:
    answer = flywheel("doctor", "-o", "json")
    return answer.exit_code, {check["name"]: (check["state"], check["message"]) for check in json.loads(answer.output)}


def test_a_healthy_cluster_has_nothing_to_mend(api: FakeApi, flywheel: Flywheel) -> None:
    healthy(api)
    code, checks = examined(flywheel)
    assert code == 0
    assert {state for state, _ in checks.values()} == {"ok"}
    assert checks["Prometheus"][1] == "http://prometheus.monitoring:9090 answers and scrapes 5 targets"
    guarded = "guarded by the API server; you may approve and promote in namespace demo (ClusterRole admin)"
    assert checks["approvals"][1] == guarded


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (404, "not checked", "before Kubernetes 1.30): whoever may patch a Generation or a Rollout may approve or promote, in any name"),
        ({"items": []}, "failed", "no admission policy guards approvals and promotions"),
        ({"items": [{"metadata": {"name": "flywheel-approvals"}}]}, "failed", "no admission policy guards promotions"),
    ],
)
def test_it_is_said_when_nothing_guards_approvals(
    api: FakeApi, flywheel: Flywheel, answer: dict[str, object] | int, state: str, words: str
) -> None:
    healthy(api)
    api.answers[POLICIES] = answer
    found = examined(flywheel)[1]["approvals"]
    assert found[0] == state
    assert words in found[1]


def test_each_thing_that_is_missing_is_found_with_its_mend(api: FakeApi, flywheel: Flywheel) -> None:
    healthy(api)
    api.answers[CLAIM] = 404
    api.answers[PROXY] = 503
    api.answers[LEASE] = {"spec": {"holderIdentity": "flywheel-0", "renewTime": "2026-11-24T23:00:00Z"}}
    api.denied = {"list rollouts", "patch generations"}
    rollouts = api.answers["/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rollouts.modelflywheel.dev"]
    assert isinstance(rollouts, dict)
    rollouts["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "Another version."
    code, checks = examined(flywheel)
    assert code == 1
    assert checks["storage"] == ("failed", "claim flywheel-data is not in namespace demo; create it, with access mode ReadWriteMany")
    assert checks["Prometheus"][0] == "failed"
    assert "nobody holds the lease" in checks["lease"][1]
    assert "rollouts differ from those of this command" in checks["CRDs"][1]
    assert checks["rights: reading"] == (
        "failed",
        "you may not list rollouts in namespace demo; the ClusterRole view there allows it",
    )
    assert checks["rights: writing"] == (
        "ok",
        "you may only look at namespace demo, not patch generations; the ClusterRole edit there allows it",
    )


def test_what_a_plain_user_may_not_read_is_not_checked_and_no_failure(api: FakeApi, flywheel: Flywheel) -> None:
    healthy(api)
    for forbidden in [
        key for key in api.answers if key.startswith(("/apis/apiext", "/apis/apps", "/apis/admiss", "/apis/coord", "/api/v1"))
    ]:
        api.answers[forbidden] = 403
    code, checks = examined(flywheel)
    assert code == 0
    unread = {name for name, (state, _) in checks.items() if state == "not checked"}
    assert unread == {"operator", "lease", "storage", "Prometheus", "approvals"}
    assert "you may not read whether they are of this version" in checks["CRDs"][1]


def test_a_cluster_without_flywheel_is_told_to_install_it(api: FakeApi, flywheel: Flywheel) -> None:
    api.answers[DEPLOYMENTS] = {"items": []}
    code, checks = examined(flywheel)
    assert code == 1
    assert "install the chart, or `kubectl apply --server-side -f crds/`" in checks["CRDs"][1]
    assert "no operator is installed in namespace flywheel-system" in checks["operator"][1]
