"""Manifests of router and collector. `UPDATE_GOLDEN=1 pytest tests/specs/test_router.py` rewrites the golden files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel.api.common import PodSettings
from flywheel.specs.collector import collector_manifests
from flywheel.specs.router import router_manifests

GOLDEN = Path(__file__).parent / "golden"
OWNER = {
    "apiVersion": "modelflywheel.dev/v1alpha1",
    "kind": "Flywheel",
    "name": "demo",
    "uid": "6f3c2f0e-0000-4000-8000-000000000001",
    "controller": True,
    "blockOwnerDeletion": True,
}


class Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def router(**changes: Any) -> list[dict[str, Any]]:
    arguments: dict[str, Any] = {
        "service": "demo",
        "namespace": "lab",
        "image_envoy": "localhost/flywheel/envoy:dev",
        "image_operator": "localhost/flywheel/operator:dev",
        "replicas": 2,
        "claim": "flywheel-data",
        "owner_references": [OWNER],
        "labels": {"team": "models"},
    }
    return router_manifests(**{**arguments, **changes})


def collector(**changes: Any) -> list[dict[str, Any]]:
    arguments: dict[str, Any] = {
        "service": "demo",
        "namespace": "lab",
        "image": "localhost/flywheel/collector:dev",
        "claim": "flywheel-data",
        "owner_references": [OWNER],
        "labels": {"team": "models"},
        "conversation_idle": 20.0,
    }
    return collector_manifests(**{**arguments, **changes})


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [one for one in manifests if one["kind"] == kind]
    return found


@pytest.mark.parametrize(("name", "manifests"), [("router", router()), ("collector", collector())])
def test_manifests_are_as_committed(name: str, manifests: list[dict[str, Any]]) -> None:
    text = yaml.dump_all(manifests, Dumper=Plain, sort_keys=False, width=140)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("manifests", [router(), collector()], ids=["router", "collector"])
def test_pods_are_restricted(manifests: list[dict[str, Any]]) -> None:
    spec = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == 10001
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_only_the_agent_gets_a_token_and_it_reads_two_things() -> None:
    manifests = router()
    spec = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]
    containers = [*spec["containers"], *spec["initContainers"]]
    with_token = [one["name"] for one in containers if any(mount["name"] == "api" for mount in one["volumeMounts"])]
    assert with_token == ["agent"]
    rules = of_kind(manifests, "Role")["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert rules[0]["resourceNames"] == ["demo-routes"]


def test_envoy_outlives_the_agent_and_reaches_only_the_logs() -> None:
    spec = of_kind(router(drain_seconds=90), "Deployment")["spec"]["template"]["spec"]
    prepare, envoy = spec["initContainers"]
    assert "restartPolicy" not in prepare
    assert envoy["restartPolicy"] == "Always"
    assert spec["terminationGracePeriodSeconds"] > 90
    assert [mount["mountPath"] for mount in envoy["volumeMounts"] if mount["name"] == "storage"] == ["/flywheel/logs/demo"]


def test_selectors_match_their_pods_and_nothing_of_the_other() -> None:
    selectors = []
    for manifests in (router(), collector()):
        labels = of_kind(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
        for selector in (
            of_kind(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
            of_kind(manifests, "Service")["spec"]["selector"],
        ):
            assert selector.items() <= labels.items()
            selectors.append(selector)
    assert selectors[0] != selectors[2]


def test_the_users_settings_place_the_pods() -> None:
    settings = PodSettings(node_selector={"pool": "edge"}, priority_class_name="high", pod_template={"spec": {"hostNetwork": True}})
    for manifests in (router(settings=settings), collector(settings=settings)):
        spec = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]
        assert (spec["nodeSelector"], spec["priorityClassName"], spec["hostNetwork"]) == ({"pool": "edge"}, "high", True)


def test_without_owner_and_labels_nothing_empty_is_written() -> None:
    for manifest in [*router(owner_references=(), labels=None), *collector(owner_references=(), labels=None)]:
        assert "ownerReferences" not in manifest["metadata"]
        assert manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "flywheel-operator"


def test_manifests_share_nothing_that_a_caller_could_change_in_two_places() -> None:
    manifests = router()
    manifests[0]["metadata"]["labels"]["changed"] = "yes"
    assert all("changed" not in one["metadata"]["labels"] for one in manifests[1:])


@pytest.mark.parametrize(("seconds", "text"), [(20.0, "20"), (300, "300"), (2_592_000, "2592000"), (0.5, "0.5")])
def test_conversation_idle_is_written_as_a_plain_number(seconds: float, text: str) -> None:
    command = of_kind(collector(conversation_idle=seconds), "Deployment")["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[command.index("--conversation-idle") + 1] == text
