"""What may not change once an object is there, and names that must work on the command line."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.api_server import ApiServer
from tests.cluster.objects import Object, data, flywheel, generation, rollout, sft, spoilt

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def namespace(apiserver: ApiServer) -> Iterator[str]:
    """A namespace that goes away. Objects in it are suspended: an operator that runs makes nothing of them."""
    name = f"api-test-{uuid.uuid4().hex[:8]}"
    assert apiserver.kubectl("create", "namespace", name).accepted
    yield name
    apiserver.kubectl("delete", "namespace", name, "--wait=false")


def _create(apiserver: ApiServer, namespace: str, body: Object) -> None:
    answer = apiserver.apply(body, namespace=namespace)
    assert answer.accepted, answer.error


@pytest.mark.parametrize(
    ("body", "path", "value", "words"),
    [
        (sft(suspend=True), "spec.method", "DPO", "method can't be changed from SFT to DPO; create another TrainingRun"),
        (
            generation(suspend=True),
            "spec.flywheel",
            "other",
            "flywheel can't be changed from 'companion' to 'other'; create another Generation",
        ),
        (
            rollout(suspend=True, flywheel="companion"),
            "spec.flywheel",
            "other",
            "flywheel can't be changed: these users have been assigned",
        ),
        (
            flywheel(suspend=True, storage={"claimName": "one"}),
            "spec.storage.claimName",
            "two",
            "storage can't move from file:///flywheel on claim one",
        ),
    ],
    ids=["a run's method", "a lap's flywheel", "a rollout's users", "a flywheel's store"],
)
def test_identity_does_not_change(apiserver: ApiServer, namespace: str, body: Object, path: str, value: Any, words: str) -> None:
    # A Flywheel would start to serve where an operator runs: dry-run can't show a change, so it is created and removed at once.
    _create(apiserver, namespace, body)
    try:
        answer = apiserver.check(spoilt(body, path, value), namespace=namespace)
        assert not answer.accepted
        assert words in answer.error
    finally:
        kind = body["kind"].lower()
        apiserver.kubectl("delete", f"{kind}s.modelflywheel.dev", body["metadata"]["name"], "-n", namespace, "--wait=false")


def test_a_failed_runs_inputs_can_be_mended_and_a_succeeded_ones_can_not(apiserver: ApiServer, namespace: str) -> None:
    body = spoilt(sft(suspend=True), "metadata.name", "record")
    mended = {**body, "spec": {**body["spec"], "datasets": [data("train"), data("more")]}}
    _create(apiserver, namespace, body)
    assert _status(apiserver, namespace, "Failed").accepted
    assert apiserver.check(mended, namespace=namespace).accepted
    assert _status(apiserver, namespace, "Succeeded").accepted
    answer = apiserver.check(mended, namespace=namespace)
    assert not answer.accepted
    assert "the run has succeeded and its artifact was made from these inputs" in answer.error
    assert apiserver.check(spoilt(body, "spec.suspend", False), namespace=namespace).accepted


def _status(apiserver: ApiServer, namespace: str, phase: str) -> Any:
    patch = json.dumps({"status": {"phase": phase}})
    return apiserver.kubectl("patch", "fwtr", "record", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)


def test_a_flywheel_can_be_asked_for_by_name_and_all_kinds_by_category(apiserver: ApiServer, namespace: str) -> None:
    _create(apiserver, namespace, generation(suspend=True))
    by_category = apiserver.kubectl("get", "modelflywheel", "-n", namespace)
    assert by_category.accepted, by_category.error
    assert "generation.modelflywheel.dev/g1" in by_category.output
    by_name = apiserver.kubectl("get", "flywheel", "nobody", "-n", namespace)
    assert 'flywheels.modelflywheel.dev "nobody" not found' in by_name.error
    for short_name in ("fw", "fwgen", "fwtr", "fwrm", "fwro"):
        assert apiserver.kubectl("get", short_name, "-n", namespace).accepted


def test_no_short_name_belongs_to_another_kind(apiserver: ApiServer) -> None:
    answer = apiserver.kubectl("api-resources", "--no-headers")
    rows = [line.split() for line in answer.output.splitlines()]
    ours = {"fw", "fwgen", "fwtr", "fwrm", "fwro"}
    clashes = [row for row in rows if "modelflywheel.dev" not in " ".join(row) and ours & set(row[1].split(","))]
    assert clashes == []
