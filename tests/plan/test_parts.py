"""What somebody deleted or changed, read off the API server's book of whose each field is."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from flywheel.api.names import MANAGER
from flywheel.plan import arms
from flywheel.plan.base import Apply, Emit
from flywheel.plan.kube import deployment_state
from flywheel.plan.parts import UNKNOWN, damaged, fields_of_ours
from tests.plan.rollout_world import OLD_ARM
from tests.plan.test_service import arm, made

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "f-router", "namespace": "demo", "labels": {"a": "1", "b": "2"}, "ownerReferences": [{"uid": "u"}]},
    "spec": {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "finalizers": None},
}
FIELDS: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:a": {}, "f:b": {}}, "f:ownerReferences": {'k:{"uid":"u"}': {}}},
    "f:spec": {
        "f:selector": {},
        "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}},
    },
}
KEY = ("Service", "f-router")


def live(*fields: dict[str, Any], manager: str = MANAGER, operation: str = "Apply", **more: str) -> dict[str, Any]:
    managed = [{"manager": manager, "operation": operation, "fieldsV1": one, **more} for one in fields]
    return {"metadata": {"managedFields": managed}}


def without(*path: str) -> dict[str, Any]:
    fields = copy.deepcopy(FIELDS)
    *parents, last = path
    below = fields
    for name in parents:
        below = below[name]
    del below[last]
    return fields


def test_a_part_whose_every_stated_field_is_ours_is_whole() -> None:
    assert damaged([SERVICE], {KEY: fields_of_ours(live(FIELDS))}) == {}


def test_a_part_that_is_gone_is_applied_again() -> None:
    assert damaged([SERVICE], {}) == {"Service f-router was deleted": SERVICE}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (("f:spec", "f:selector"), ".spec.selector"),
        (("f:metadata", "f:labels", "f:a"), ".metadata.labels.a"),
        (("f:spec", "f:ports", 'k:{"port":80,"protocol":"TCP"}', "f:name"), ".spec.ports[0].name"),
        (("f:spec",), ".spec"),
        (("f:metadata",), ".metadata"),
    ],
)
def test_a_field_that_somebody_has_taken_from_us_is_named(path: tuple[str, ...], field: str) -> None:
    assert list(damaged([SERVICE], {KEY: fields_of_ours(live(without(*path)))})) == [f"Service f-router was changed by hand ({field})"]


def test_a_list_item_that_was_replaced_by_another_is_a_change() -> None:
    fields = copy.deepcopy(FIELDS)
    ports = fields["f:spec"]["f:ports"]
    ports['k:{"port":81,"protocol":"TCP"}'] = ports.pop('k:{"port":80,"protocol":"TCP"}')
    assert list(damaged([SERVICE], {KEY: fields_of_ours(live(fields))})) == ["Service f-router was changed by hand (.spec.ports[0])"]


@pytest.mark.parametrize("other", [{"manager": "kubectl-edit"}, {"operation": "Update"}, {"subresource": "status"}])
def test_what_others_hold_or_we_hold_otherwise_is_not_ours_to_state(other: dict[str, str]) -> None:
    assert len(damaged([SERVICE], {KEY: fields_of_ours(live(FIELDS, **other))})) == 1


def test_an_object_of_which_the_server_tells_nothing_counts_as_whole_while_it_is_there() -> None:
    assert fields_of_ours({"metadata": {}}) == UNKNOWN
    assert damaged([SERVICE], {KEY: UNKNOWN}) == {}


def test_parts_of_one_making_have_one_string_whoever_owns_them() -> None:
    other = copy.deepcopy(FIELDS)
    other["f:metadata"]["f:ownerReferences"] = {'k:{"uid":"another"}': {}}
    assert fields_of_ours(live(FIELDS)) == fields_of_ours(live(other))


def test_the_number_of_replicas_is_anybodys() -> None:
    deployment = {"kind": "Deployment", "metadata": {"name": "f"}, "spec": {"replicas": 2, "paused": False}}
    ours = {"f:spec": {"f:paused": {}}}
    assert damaged([deployment], {("Deployment", "f"): fields_of_ours(live(ours))}) == {}


def test_an_arm_is_restored_in_its_role_and_at_the_number_of_replicas_that_runs() -> None:
    objects = made(arm)
    frozen, body = objects["ControllerRevision", OLD_ARM], copy.deepcopy(objects["Deployment", OLD_ARM])
    body["spec"]["replicas"] = 5  # an autoscaler's choice
    parts = dict.fromkeys(objects, UNKNOWN)
    parts["Deployment", OLD_ARM] = fields_of_ours(live({"f:spec": {"f:replicas": {}}}))
    del parts["Service", OLD_ARM]
    actions = arms.arm_actions(frozen, deployment_state(body), lambda: frozen, arms.STABLE, parts=parts)
    applied = [action.manifest for action in actions if isinstance(action, Apply)]
    assert [manifest["kind"] for manifest in applied] == ["Service", "Deployment"]
    assert applied[1]["spec"]["replicas"] == 5
    assert applied[1]["metadata"]["labels"][arms.ROLE] == arms.STABLE
    said = sorted(action.message for action in actions if isinstance(action, Emit))
    assert [message.split(":")[0] for message in said] == [
        f"Deployment {OLD_ARM} was changed by hand (.spec.selector)",
        f"Service {OLD_ARM} was deleted",
    ]


def test_a_whole_arm_is_left_alone() -> None:
    objects = made(arm)
    body = objects["Deployment", OLD_ARM]
    parts = dict.fromkeys(objects, UNKNOWN)
    frozen = objects["ControllerRevision", OLD_ARM]
    assert arms.arm_actions(frozen, deployment_state(body), lambda: frozen, arms.STABLE, parts=parts) == []
