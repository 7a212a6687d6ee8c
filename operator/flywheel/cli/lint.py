"""Is an object valid, as far as that can be told without a cluster? Pure: a document in, findings out.

Three witnesses, all of `api` and `plan`: the pydantic models (types, bounds, spelling), the CRD's rules (`lint_rules`), and the
planner's own check of a lap's graph. Where two of them say something about one field, the one with the mend is heard.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from flywheel.api.base import API_VERSION, GROUP
from flywheel.api.crd import KINDS, Kind, root_schema
from flywheel.api.generation import GenerationTemplate
from flywheel.cli.kinds import BY_KIND
from flywheel.cli.lint_rules import Finding, broken_rules, defaulted
from flywheel.plan.generation_inputs import InputError
from flywheel.plan.generation_lap import check_lap, lap_stages

SCHEMAS = {kind.name: root_schema(kind) for kind in KINDS}
MENDED = {"string_pattern_mismatch", "string_too_short", "greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def is_ours(document: Any) -> bool:
    """Whether a document of a file is an object of this group; others are none of lint's business."""
    return isinstance(document, Mapping) and str(document.get("apiVersion", "")).partition("/")[0] == GROUP


def lint(document: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with an object."""
    if document.get("apiVersion") != API_VERSION:
        return [Finding("apiVersion", f"'{document.get('apiVersion')}' is not served; write {API_VERSION}")]
    kind = BY_KIND.get(str(document.get("kind")))
    if kind is None:
        return [Finding("kind", f"'{document.get('kind')}' is unknown; write one of {', '.join(BY_KIND)}")]
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping) or not (metadata.get("name") or metadata.get("generateName")):
        return [Finding("metadata.name", "is required; give the object a name")]
    schema = SCHEMAS[kind.name]
    rules = list(broken_rules(schema, defaulted(schema, _plain(document))))
    mended = {finding.path for finding in rules if finding.certain}
    found = [*_shape(kind, document, mended), *rules]
    return [finding for finding in found if finding.certain] or found or _graph(kind, document)


def _plain(document: Mapping[str, Any]) -> Any:
    """As the API server gets it: JSON. YAML has dates and keys that are no strings."""
    return json.loads(json.dumps({key: document[key] for key in document if key != "status"}, default=str))


def _shape(kind: Kind, document: Mapping[str, Any], mended: set[str]) -> list[Finding]:
    """Types, bounds, required and unknown fields. Strict, by the names of the wire: the API server converts nothing."""
    metadata = {key: document["metadata"][key] for key in ("name", "namespace") if key in document["metadata"]}
    wire = json.dumps({"metadata": {"name": "-", **metadata}, "spec": document.get("spec")}, default=str)
    try:
        kind.model.model_validate_json(wire, strict=True, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        found = [(_path(one["loc"]), one) for one in error.errors(include_url=False)]
        # A list with a bad item is too short without it: the item's own finding is the one to hear.
        told = [(path, one) for path, one in found if not any(other.startswith((f"{path}.", f"{path}[")) for other, _ in found)]
        return [Finding(path, _words(one, SCHEMAS[kind.name])) for path, one in told if not (path in mended and one["type"] in MENDED)]
    return []


def _path(location: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _words(error: Any, schema: Mapping[str, Any]) -> str:
    """pydantic's finding with the value and the mend."""
    value = json.dumps(error["input"], ensure_ascii=False, default=str)
    value = value if len(value) <= 80 else value[:77] + "..."
    if error["type"] == "missing":
        return "is required; add it"
    if error["type"] == "extra_forbidden":
        known = list(_at(schema, error["loc"][:-1]).get("properties", {}))
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"unknown field; did you mean '{close[0]}'?" if close else f"unknown field; remove it (known: {', '.join(known) or 'none'})"
    return f"{value} is not valid: {error['msg'][0].lower()}{error['msg'][1:]}"


def _at(schema: Mapping[str, Any], location: Sequence[int | str]) -> Mapping[str, Any]:
    for part in location:
        schema = schema.get("items", {}) if isinstance(part, int) else schema.get("properties", {}).get(part, {})
    return schema


def _graph(kind: Kind, document: Mapping[str, Any]) -> list[Finding]:
    """What no rule of the schema can find in a lap: circles, what needs a skipped stage, patches that don't fit. Only of an object that is
    valid so far."""
    field = {"Generation": "spec", "Flywheel": "spec.generationTemplate"}.get(kind.name)
    if field is None:
        return []
    template = document["spec"] if field == "spec" else document["spec"].get("generationTemplate") or {}
    lap = GenerationTemplate.model_validate(template)
    try:
        check_lap(lap, lap_stages(lap))
    except InputError as error:
        return [Finding(f"{field}.stages", str(error))]
    return []
