"""Which CRD replaces which."""

from __future__ import annotations

import copy
from typing import Any

from flywheel.api.crd import KINDS, crd
from flywheel.api.crd_upgrade import fields, replacement, unknown

WANTED = crd(KINDS[2])


def changed(change: str, value: Any) -> dict[str, Any]:
    """The CRD with one more field in its spec, or without one."""
    body = copy.deepcopy(WANTED)
    properties = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    if value is None:
        del properties[change]
    else:
        properties[change] = value
    return body


def test_fields_are_named_by_their_paths_through_lists_and_maps() -> None:
    schema = {
        "properties": {
            "a": {"items": {"properties": {"b": {}}}},
            "c": {"additionalProperties": {"properties": {"d": {}}}},
            "e": {"additionalProperties": True},
        }
    }
    assert list(fields(schema)) == ["a", "a[].b", "c", "c[].d", "e"]


def test_a_crd_of_an_older_release_lacks_fields_and_has_none_of_its_own() -> None:
    assert unknown(WANTED, WANTED) == []
    assert unknown(changed("seed", None), WANTED) == []


def test_a_crd_of_a_newer_release_is_known_by_a_field_or_a_version_that_this_one_has_not() -> None:
    assert unknown(changed("color", {"type": "object", "properties": {"hue": {"type": "string"}}}), WANTED) == [
        "spec.color",
        "spec.color.hue",
    ]
    newer = copy.deepcopy(WANTED)
    newer["spec"]["versions"].append({**newer["spec"]["versions"][0], "name": "v1beta1"})
    assert unknown(newer, WANTED) == ["version v1beta1"]


def test_what_others_have_written_on_a_crd_stays_and_its_spec_is_this_releases_alone() -> None:
    metadata = {
        "name": "trainingruns.modelflywheel.dev",
        "resourceVersion": "7",
        "annotations": {"argocd": "x"},
        "labels": {"team": "a"},
        "managedFields": [{}],
    }
    found = {**changed("color", {"type": "string"}), "metadata": metadata, "status": {"storedVersions": ["v1alpha1"]}}
    made = replacement(found, WANTED)
    assert made["spec"] == WANTED["spec"]
    assert made["metadata"] == {key: value for key, value in metadata.items() if key != "managedFields"}
    assert "status" not in made
