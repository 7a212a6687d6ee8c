"""From the pydantic models to CustomResourceDefinitions. Pure: models in, dictionaries out.

An OpenAPI v3 structural schema is narrower than JSON schema: no $ref, no title, no null, bounds as flags. Defaults are
kept in `spec`, so that the API server fills them in and `kubectl get -o yaml` shows what will happen. `status` has
neither defaults nor rules: an observation is never invented, and a rule there could only keep the operator from telling the truth.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flywheel.api.base import GROUP, MAX_NAME, VERSION, Resource
from flywheel.api.cel import MEND, VALIDATIONS, Rule, bounds_rule, pattern_rule, rule
from flywheel.api.flywheel import Flywheel
from flywheel.api.generation import Generation
from flywheel.api.reward_model import RewardModel
from flywheel.api.rollout import Rollout
from flywheel.api.training_run import TrainingRun

Schema = dict[str, Any]
# Kubernetes' own limit, written down so that rules on the name have a bounded cost.
_METADATA: Schema = {"type": "object", "properties": {key: {"type": "string", "maxLength": 253} for key in ("name", "generateName")}}
CATEGORY = "modelflywheel"  # not `flywheel`: a category equal to a singular name would break `kubectl get flywheel NAME`
INT_OR_STRING = "x-kubernetes-int-or-string"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_DROPPED = ("title", "propertyNames")
_KNOWN = {
    *("type", "format", "description", "default", "enum", "properties", "required", "items", "additionalProperties", "pattern"),
    *("minLength", "maxLength", "minItems", "maxItems", "maxProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *(VALIDATIONS, INT_OR_STRING, PRESERVE, "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; `wide` ones need `-o wide`."""

    name: str
    path: str
    type: str = "string"
    description: str = ""
    wide: bool = False

    def manifest(self) -> dict[str, Any]:
        """As `additionalPrinterColumns` has it."""
        body = {"name": self.name, "type": self.type, "jsonPath": self.path, "description": self.description}
        return body | ({"priority": 1} if self.wide else {})


AGE = Column("Age", ".metadata.creationTimestamp", "date", "Time since it was created.")


def _why(condition: str) -> Column:
    return Column("Message", f'.status.conditions[?(@.type=="{condition}")].message', description="Why, with numbers.", wide=True)


INPUTS = ("model", "opponent", "pool", "datasets", "rewards", "seed")  # `parameters` is schemaless, which CEL can't compare
UNCHANGED = " && ".join(
    f"has(self.spec.{name}) == has(oldSelf.spec.{name}) && (!has(self.spec.{name}) || self.spec.{name} == oldSelf.spec.{name})"
    for name in INPUTS
)


def _name_rules(longest: int) -> tuple[Rule, ...]:
    return (
        rule(
            f"self.metadata.name.size() <= {longest}",
            f"metadata.name '{{self.metadata.name}}' is too long; choose one of at most {longest} characters, since the names of its "
            "children are made from it",
            at=".metadata.name",
        ),
        rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name '{self.metadata.name}' must begin with a letter and have only a-z, 0-9 and '-' (no dots), since Services and "
            "labels carry it",
            at=".metadata.name",
        ),
    )


@dataclass(frozen=True)
class Kind:
    """What a CRD says beside its schema."""

    model: type[Resource]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]

    @property
    def name(self) -> str:
        """The kind."""
        return self.model.__name__


KINDS = (
    Kind(
        Flywheel,
        "flywheels",
        "fw",
        (
            Column("Phase", ".status.phase", description="What it does now."),
            Column("Champion", ".status.champion.generation", description="The generation that serves users."),
            Column("Lap", ".status.active[0]", description="The lap that runs now."),
            Column("Laps", ".status.laps", "integer", "Laps started so far."),
            Column("Conversations", ".status.conversations", "integer", "Conversations kept so far."),
            Column("Next", ".status.nextLapTime", description="When the schedule starts the next lap."),
            Column("Address", ".status.address", description="Where users' requests go.", wide=True),
            Column("Suspended", ".spec.suspend", "boolean", "Whether laps are started.", wide=True),
            AGE,
        ),
        _name_rules(MAX_NAME),
    ),
    Kind(
        Generation,
        "generations",
        "fwgen",
        (
            Column("Flywheel", ".spec.flywheel", description="The Flywheel it belongs to."),
            Column("Phase", ".status.phase", description="Where the lap is."),
            Column("Stage", ".status.currentStage", description="What runs now."),
            Column("%", ".status.percent", "integer", "Share of the stages done."),
            Column("Summary", ".status.summary", description="The lap in one line."),
            Column("Parent", ".status.parent.generation", description="The champion when the lap started.", wide=True),
            Column("GPU-seconds", ".status.gpuSeconds", "integer", "What its training has cost.", wide=True),
            AGE,
        ),
        _name_rules(MAX_NAME),
    ),
    Kind(
        TrainingRun,
        "trainingruns",
        "fwtr",
        (
            Column("Method", ".spec.method", description="What it runs."),
            Column("Phase", ".status.phase", description="Where it is."),
            Column("Step", ".status.progress.step", "integer", "Optimiser steps done."),
            Column("Of", ".status.progress.totalSteps", "integer", "Optimiser steps in all."),
            Column("%", ".status.progress.percent", "integer", "Share done."),
            Column("ETA(s)", ".status.progress.etaSeconds", "integer", "Seconds to go."),
            Column("Reason", '.status.conditions[?(@.type=="Succeeded")].reason', description="Why it is where it is."),
            _why("Succeeded"),
            Column("Artifact", ".status.artifact.digest", description="What it made.", wide=True),
            AGE,
        ),
        (
            *_name_rules(63),
            rule(
                f"!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase != 'Succeeded' || ({UNCHANGED})",
                f"the run has succeeded and its artifact was made from these inputs ({', '.join(INPUTS)}); create another TrainingRun",
                at=".spec",
            ),
        ),
    ),
    Kind(
        RewardModel,
        "rewardmodels",
        "fwrm",
        (
            Column("Type", ".spec.type", description="How it scores."),
            Column("Phase", ".status.phase", description="Where it is."),
            Column("Accuracy", ".status.metrics.accuracy", "number", "Share of preference pairs it orders as people did."),
            Column("At least", ".status.metrics.accuracy_lower", "number", "Lower bound of that share."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', description="Why it is where it is."),
            _why("Ready"),
            Column("Run", ".status.trainingRun", description="The TrainingRun that makes it.", wide=True),
            AGE,
        ),
        _name_rules(63),
    ),
    Kind(
        Rollout,
        "rollouts",
        "fwro",
        (
            Column("Baseline", ".spec.baseline.generation", description="What served users before."),
            Column("Candidate", ".spec.candidate.generation", description="What may replace it."),
            Column("Phase", ".status.phase", description="Where it is."),
            Column(
                "Weight", ".status.weights.acknowledged", "integer", "Percent of users with the candidate, as every router has confirmed."
            ),
            Column("Summary", ".status.summary", description="The question and its answer in one line."),
            Column("Flywheel", ".spec.flywheel", description="Whose users are asked.", wide=True),
            Column("Verdict due", ".status.windowEndTime", description="When the window ends.", wide=True),
            AGE,
        ),
        (
            *_name_rules(63),
            rule(
                f"has(self.spec.flywheel) || self.metadata.name.size() <= {MAX_NAME}",
                f"metadata.name '{{self.metadata.name}}' is too long for a Rollout without spec.flywheel, which names a service of its "
                f"own; choose one of at most {MAX_NAME} characters",
                at=".metadata.name",
            ),
        ),
    ),
)


def crds() -> dict[str, dict[str, Any]]:
    """Every CRD by its file's name."""
    return {f"{GROUP}_{kind.plural}.yaml": crd(kind) for kind in KINDS}


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    singular = kind.name.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": singular,
                "shortNames": [kind.short_name],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.manifest() for column in kind.columns],
                    "schema": {"openAPIV3Schema": root_schema(kind)},
                }
            ],
        },
    }


def root_schema(kind: Kind) -> Schema:
    """The structural schema of a whole object. Metadata is the API server's business."""
    whole = structural(kind.model.model_json_schema(by_alias=True))
    spec, status = whole["properties"]["spec"], observed(whole["properties"]["status"])
    for part, text in ((spec, "What is wanted."), (status, "What the operator has seen and decided; only the operator writes it.")):
        part["description"] = text
    root: Schema = {
        "description": whole["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"`{GROUP}/{VERSION}`."},
            "kind": {"type": "string", "description": f"`{kind.name}`."},
            "metadata": _METADATA,
            "spec": spec,
            "status": status,
        },
    }
    return root | ({VALIDATIONS: list(kind.rules)} if kind.rules else {})


def structural(schema: Mapping[str, Any]) -> Schema:
    """A pydantic JSON schema as an OpenAPI v3 structural schema."""
    definitions = schema.get("$defs", {})
    return _convert({key: value for key, value in schema.items() if key != "$defs"}, definitions)


def _convert(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    node = _resolve(schema, definitions)
    if node.get(PRESERVE):
        return {"type": "object"} | {key: node[key] for key in (PRESERVE, "description", "maxProperties") if key in node}
    if INT_OR_STRING in node:
        return {key: value for key, value in node.items() if key not in _DROPPED}
    result = {key: value for key, value in node.items() if key not in _DROPPED}
    if "const" in result:
        result["enum"] = [result.pop("const")]
    if "properties" in result:
        result["properties"] = {name: _convert(child, definitions) for name, child in result["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(result.get(key), Mapping):
            result[key] = _convert(result[key], definitions)
    if result.get("type") == "integer":
        result.setdefault("format", "int64")
    _apply_mend(result)
    _flag_exclusive_bounds(result)
    _tidy_default(result)
    if unknown := set(result) - _KNOWN:
        raise ValueError(f"no place in a structural schema for {', '.join(sorted(unknown))}: {schema}")
    return result


def _resolve(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """Inline $ref and unwrap `T | None`; what stands beside them wins, rules add up."""
    node = dict(schema)
    while True:
        if "$ref" in node:
            inner = definitions[node.pop("$ref").removeprefix("#/$defs/")]
        elif "anyOf" in node and INT_OR_STRING not in node:
            options = [option for option in node.pop("anyOf") if option.get("type") != "null"]
            if len(options) != 1:
                raise ValueError(f"a structural schema has no unions: {schema}")
            inner = options[0]
        else:
            return copy.deepcopy(node)
        added = [*inner.get(VALIDATIONS, ()), *node.get(VALIDATIONS, ())]
        node = {**inner, **node} | ({VALIDATIONS: added} if added else {})


def _apply_mend(node: Schema) -> None:
    """Turn a pattern or bounds into a rule whose error has the mend; a pattern's own error has only the regular expression."""
    sentence = node.pop(MEND, None)
    if sentence is None:
        return
    added = bounds_rule(node, sentence) if node["type"] == "number" else pattern_rule(node["pattern"], sentence)
    for key in ("pattern", "minLength", *_BOUNDS):
        node.pop(key, None)
    node[VALIDATIONS] = [added, *node.get(VALIDATIONS, ())]


def _flag_exclusive_bounds(node: Schema) -> None:
    for exclusive, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            node[plain], node[exclusive] = node[exclusive], True


def _tidy_default(node: Schema) -> None:
    """Keep a default only where it says something; a struct's is complete, since CEL checks it before nested defaults are filled in."""
    if "default" not in node:
        return
    default = _without_empty(node.pop("default"))
    if default not in (None, "", [], {}) or (default == {} and "properties" in node):
        node["default"] = default


def _without_empty(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    fields = {name: _without_empty(item) for name, item in value.items()}
    return {name: item for name, item in fields.items() if item not in (None, "", [], {})}


def observed(schema: Mapping[str, Any]) -> Schema:
    """A schema without defaults, rules and patterns, for `status`."""
    result: Schema = {}
    for key, value in schema.items():
        if key in ("default", VALIDATIONS, "pattern", *_BOUNDS):
            continue
        if key == "properties":
            result[key] = {name: observed(child) for name, child in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, Mapping):
            result[key] = observed(value)
        else:
            result[key] = value
    return result
