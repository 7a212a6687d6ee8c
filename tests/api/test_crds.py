"""The CRDs as text and as schema: complete, bounded, described, and the same as on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.crds import DIRECTORIES, drift, rendered
from flywheel.api.base import parse_duration
from flywheel.api.crd import CATEGORY, KINDS, Kind, crd, crds, root_schema
from flywheel.api.rollout import MAX_HORIZON
from flywheel_collector.experiments import MAX_HORIZON_SECONDS

REPOSITORY = Path(__file__).resolve().parents[2]
LAST_APPLIED_LIMIT = 256 * 1024  # of all annotations: above it `kubectl apply` without --server-side fails
# A bound for each, so that a struct that is inlined once more is noticed. Raise it knowingly.
SIZE_LIMITS_KIB = {"flywheels": 220, "generations": 200, "trainingruns": 72, "rewardmodels": 66, "rollouts": 66}
ALL = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field below a schema with its path."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from fields(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield f"{path}[]", schema[key]
            yield from fields(schema[key], f"{path}[]")


def test_the_files_on_disk_are_what_the_models_say() -> None:
    assert drift() == [], "run `make crds`"


def test_the_chart_carries_the_same_files() -> None:
    plain, chart = ({path.name: path.read_text() for path in directory.glob("*.yaml")} for directory in DIRECTORIES)
    assert plain == chart == rendered()


@ALL
def test_a_crd_stays_small_enough_for_every_way_of_applying_it(kind: Kind) -> None:
    size = len(rendered()[f"modelflywheel.dev_{kind.plural}.yaml"].encode())
    assert size < LAST_APPLIED_LIMIT
    assert size / 1024 < SIZE_LIMITS_KIB[kind.plural], f"{kind.plural}: {size / 1024:.0f} KiB"


@ALL
def test_every_field_has_a_description(kind: Kind) -> None:
    nameless = [path for path, schema in fields(root_schema(kind)) if not path.startswith(".metadata") and not path.endswith("[]")]
    schemas = dict(fields(root_schema(kind)))
    assert [path for path in nameless if not schemas[path].get("description")] == []


@ALL
def test_every_list_map_and_string_of_a_spec_is_bounded(kind: Kind) -> None:
    """CEL's cost estimate multiplies what is unbounded; so does what a user can put into etcd."""
    unbounded = []
    for path, schema in fields(root_schema(kind)["properties"]["spec"], "spec"):
        if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string"):
            continue
        bound = {"array": "maxItems", "string": "maxLength"}.get(schema.get("type", ""))
        if "additionalProperties" in schema:
            bound = "maxProperties"
        if bound and bound not in schema and "enum" not in schema:
            unbounded.append(path)
    assert unbounded == []


@ALL
def test_a_schema_is_structural(kind: Kind) -> None:
    """No references, unions, titles or nulls: the API server prunes and defaults by it."""
    for path, schema in [("", root_schema(kind)), *fields(root_schema(kind))]:
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "const", "nullable", "$defs", "x-mend"} & set(schema), path
        assert "type" in schema or "x-kubernetes-int-or-string" in schema, path


@ALL
def test_the_status_invents_nothing_and_refuses_nothing(kind: Kind) -> None:
    for path, schema in fields(root_schema(kind)["properties"]["status"]):
        assert not {"default", "x-kubernetes-validations", "pattern", "minimum", "maximum"} & set(schema), path


@ALL
def test_conditions_are_a_map_by_type(kind: Kind) -> None:
    conditions = root_schema(kind)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@ALL
def test_every_printer_column_shows_a_field_that_exists(kind: Kind) -> None:
    schemas = dict(fields(root_schema(kind)))
    for column in kind.columns:
        path = re.sub(r"\[[^\]]*\]", "[]", column.path)
        parent = path.rsplit(".", 1)[0]
        known = path in schemas or path.startswith(".metadata.") or "additionalProperties" in schemas.get(parent, {})
        assert known, f"{column.name}: {column.path}"


@ALL
def test_status_is_a_subresource_and_the_category_is_no_kinds_name(kind: Kind) -> None:
    spec = crd(kind)["spec"]
    assert spec["versions"][0]["subresources"] == {"status": {}}
    assert spec["names"]["categories"] == [CATEGORY]
    assert CATEGORY not in {name for other in KINDS for name in (other.name.lower(), other.plural, other.short_name)}


@ALL
def test_every_rule_says_something_and_about_a_known_field(kind: Kind) -> None:
    for path, schema in [("", root_schema(kind)), *fields(root_schema(kind))]:
        for rule in schema.get("x-kubernetes-validations", ()):
            assert ("message" in rule) != ("messageExpression" in rule), (path, rule)
            if target := rule.get("fieldPath"):
                assert f"{path}{target}" in dict(fields(root_schema(kind))), (path, target)


@ALL
def test_no_bound_is_broken_since_the_api_server_would_cut_it_in_its_error(kind: Kind) -> None:
    for path, schema in fields(root_schema(kind)):
        assert all(float(schema[key]).is_integer() for key in ("minimum", "maximum") if key in schema), path


def test_no_rule_needs_a_newer_api_server_than_the_chart() -> None:
    """Two-variable comprehensions and formats came after Kubernetes 1.29."""
    chart = yaml.safe_load((REPOSITORY / "helm/flywheel/Chart.yaml").read_text())
    assert chart["kubeVersion"] == ">=1.29.0-0"
    assert not re.search(
        r"\.(all|exists|map)\(\w+, \w+, [^)]*\w|format\.|cel\.bind|transformList", str(crds()).replace("self.map(s, s", "")
    )


def test_the_longest_horizon_is_the_collectors() -> None:
    assert parse_duration(MAX_HORIZON).total_seconds() == MAX_HORIZON_SECONDS


def test_what_the_api_server_reads_back_as_yaml_has_no_anchors() -> None:
    for text in rendered().values():
        assert not re.search(r"[:-] [&*]id\d+", text)
        assert yaml.safe_load(text)["apiVersion"] == "apiextensions.k8s.io/v1"
