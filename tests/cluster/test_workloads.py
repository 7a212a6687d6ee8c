"""What the operator makes for training and serving, taken by a real API server, and its pods under restricted Pod Security."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel.specs.trainer_job import suspend_patch
from tests.builders import make_training_run
from tests.cluster.api_server import ApiServer

pytestmark = pytest.mark.cluster
GOLDEN = Path(__file__).parents[1] / "specs" / "golden"
FILES = ("trainer_job", "trainer_job_gpu", "vllm", "vllm_gpu")


def workloads(name: str, namespace: str) -> list[dict[str, Any]]:
    manifests = [copy.deepcopy(manifest) for manifest in yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text())]
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace
        manifest["metadata"].pop("ownerReferences", None)
    return manifests


@pytest.fixture(scope="module")
def namespace(apiserver: ApiServer) -> Iterator[str]:
    name, labels = f"workloads-test-{uuid.uuid4().hex[:8]}", {"pod-security.kubernetes.io/enforce": "restricted"}
    made = apiserver.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    assert made.accepted, made.error
    yield name
    apiserver.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("name", FILES)
def test_the_api_server_takes_the_golden_manifests(apiserver: ApiServer, namespace: str, name: str) -> None:
    for manifest in workloads(name, namespace):
        answer = apiserver.check(manifest, namespace)
        assert answer.accepted, answer.error


@pytest.mark.parametrize("name", FILES)
def test_their_pods_pass_restricted_pod_security(apiserver: ApiServer, namespace: str, name: str) -> None:
    template = next(m["spec"]["template"] for m in workloads(name, namespace) if "template" in m.get("spec", {}))
    for field in ("serviceAccountName", "priorityClassName"):
        template["spec"].pop(field, None)
    template["spec"]["containers"] = template["spec"]["containers"][:1]  # the sidecar is the user's
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "probe"}, "spec": template["spec"]}
    answer = apiserver.check(pod, namespace)
    assert answer.accepted, answer.error


def test_a_job_can_be_suspended_and_resumed_but_not_made_by_the_patch(apiserver: ApiServer, namespace: str) -> None:
    job = workloads("trainer_job", namespace)[1]
    job["spec"]["suspend"] = True
    name = job["metadata"]["name"]
    assert apiserver.apply(job, namespace=namespace).accepted
    uid = apiserver.kubectl("get", "job", name, "-n", namespace, "-o", "jsonpath={.metadata.uid}").output
    run = make_training_run()
    run = run.model_copy(update={"metadata": run.metadata.model_copy(update={"namespace": namespace})})

    def patch(wanted: str, suspended: bool) -> tuple[bool, str]:
        body = yaml.safe_dump(suspend_patch(run, name, wanted, suspended))
        arguments = ("apply", "--server-side", "--force-conflicts", "--field-manager=flywheel-operator", "-n", namespace, "-f", "-")
        answer = apiserver.kubectl(*arguments, stdin=body)
        return answer.accepted, apiserver.kubectl("get", "job", name, "-n", namespace, "-o", "jsonpath={.spec.suspend}").output

    assert patch(uid, True) == (True, "true")
    assert patch("00000000-0000-0000-0000-000000000000", False) == (False, "true")
    apiserver.kubectl("delete", "job", name, "-n", namespace, "--cascade=background", "--wait=true")
    assert patch(uid, False)[0] is False
