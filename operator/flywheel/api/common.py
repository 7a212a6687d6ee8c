"""Structs shared by several kinds: references, storage, pods, and the identity of a model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from flywheel.api.base import DURATION, SCHEMALESS, Digest, Image, Name, ObjectName, PositiveDuration, Resource, Uri
from flywheel.api.cel import Rule, mend, quote, rule, rules


def union_rules(*cases: tuple[str, str], also: tuple[Rule, ...] = ()) -> dict[str, Any]:
    """CEL for a discriminated union: for each (type, field), the field stands exactly when `type` says so."""
    digest = rule("!has(self.digest) || self.type == 'Uri'", "'digest' belongs to type Uri, not to {self.type}; remove it")
    return rules(
        *(
            rule(
                f"(self.type == '{type_}') == has(self.{field})",
                f"type is {{self.type}}: '{field}' must be given when type is {type_}, and only then",
            )
            for type_, field in cases
        ),
        digest,
        *also,
    )


NOT_BUILTIN = rule(
    "!has(self.uri) || !self.uri.startsWith('builtin:')", "uri '{self.uri}' is no model; give the directory of one", at=".uri"
)
PINNED = rule(
    "!has(self.uri) || self.uri.startsWith('builtin:') || has(self.digest)",
    "uri '{self.uri}' needs its 'digest'; copy it from the manifest.json beside it",
    at=".digest",
)


class Artifact(Resource):
    """A model or dataset by content: where it lies and what it is."""

    uri: Annotated[Uri, Field(description="Where it lies, such as `file:///flywheel/artifacts/sha256-…`.")]
    digest: Annotated[
        Digest | None,
        Field(description="sha256 over what determines behaviour; a mismatch ends the run. Absent only for data that still grows."),
    ] = None
    size_bytes: Annotated[int | None, Field(ge=0, description="Size on the store in bytes.")] = None
    kind: Annotated[str | None, Field(max_length=32, description="`model`, `reward-model`, `dataset` or `evaluation`.")] = None


class ModelRef(Resource):
    """A model, by where it lies or by what made it."""

    model_config = Resource.model_config | {
        "json_schema_extra": union_rules(
            ("Uri", "uri"), ("Stage", "stage"), ("TrainingRun", "trainingRun"), ("Generation", "generation"), also=(NOT_BUILTIN, PINNED)
        )
    }

    type: Annotated[
        Literal["Uri", "Stage", "TrainingRun", "Generation", "Base", "Champion"],
        Field(
            description="Uri: `uri` and `digest`. Stage: an earlier stage of this Generation. TrainingRun, Generation: an object of this "
            "namespace. Base: the Generation's `base`. Champion: what serves users when the lap starts, read again if the champion changes."
        ),
    ]
    uri: Annotated[Uri | None, Field(description="Directory of safetensors, tokenizer and configuration.")] = None
    digest: Annotated[Digest | None, Field(description="Expected content digest; checked before use.")] = None
    stage: Annotated[Name | None, Field(description="Name of a stage of the same Generation.")] = None
    training_run: Annotated[ObjectName | None, Field(description="Name of a TrainingRun of this namespace.")] = None
    generation: Annotated[ObjectName | None, Field(description="Name of a Generation of this namespace.")] = None


class DataRef(Resource):
    """A dataset, by where it lies or by what made it."""

    model_config = Resource.model_config | {
        "json_schema_extra": union_rules(("Uri", "uri"), ("Stage", "stage"), ("TrainingRun", "trainingRun"))
    }

    type: Annotated[
        Literal["Uri", "Stage", "TrainingRun", "Conversations"],
        Field(
            description="Uri: `uri` (and `digest`). Stage, TrainingRun: what that made. Conversations: what the collector has kept of this "
            "Flywheel."
        ),
    ]
    uri: Annotated[Uri | None, Field(description="Directory of Parquet files.")] = None
    digest: Annotated[Digest | None, Field(description="Expected content digest; checked before use.")] = None
    stage: Annotated[Name | None, Field(description="Name of a stage of the same Generation.")] = None
    training_run: Annotated[ObjectName | None, Field(description="Name of a TrainingRun of this namespace.")] = None


class RewardRef(Resource):
    """A reward: a trained model or a rule that is shipped with the trainers."""

    model_config = Resource.model_config | {
        "json_schema_extra": union_rules(("Uri", "uri"), ("Stage", "stage"), ("RewardModel", "rewardModel"), also=(PINNED,))
    }

    type: Annotated[
        Literal["Uri", "Stage", "RewardModel"],
        Field(description="Uri: an artifact or `builtin:<rule>`. Stage: a rewardModel stage. RewardModel: an object."),
    ]
    uri: Annotated[Uri | None, Field(description="Directory of a sequence classifier, or `builtin:<rule>`.")] = None
    digest: Annotated[Digest | None, Field(description="Expected content digest; checked before use.")] = None
    stage: Annotated[Name | None, Field(description="Name of a rewardModel stage of the same Generation.")] = None
    reward_model: Annotated[ObjectName | None, Field(description="Name of a RewardModel of this namespace.")] = None


class SecretRef(Resource):
    """A Secret of the same namespace."""

    name: Annotated[ObjectName, Field(description="Name of the Secret; its keys become environment variables.")]


class Storage(Resource):
    """Where artifacts, checkpoints, logs and conversations live."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            rule("!self.uri.startsWith('builtin:')", "uri '{self.uri}' is no store; begin with file:///, s3://, gs:// or hf://", at=".uri")
        )
    }

    uri: Annotated[Uri, Field(description="Root of the store.")] = "file:///flywheel"
    claim_name: Annotated[ObjectName, Field(description="PersistentVolumeClaim mounted at /flywheel in every pod.")] = "flywheel-data"
    credentials_secret_ref: Annotated[
        SecretRef | None, Field(description="Secret with the store's credentials, as environment variables.")
    ] = None


class Toleration(Resource):
    """A Kubernetes toleration."""

    key: Annotated[str | None, Field(max_length=316, description="Key of the taint; absent with Exists: every taint.")] = None
    operator: Annotated[Literal["Exists", "Equal"] | None, Field(description="How key and value are compared. Default: Equal.")] = None
    value: Annotated[str | None, Field(max_length=63, description="Value of the taint.")] = None
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None, Field(description="Effect of the taint; absent: every effect.")
    ] = None


class LocalReference(Resource):
    """A name of the same namespace."""

    name: Annotated[ObjectName, Field(description="Its name.")]


IS_QUANTITY = "type({0}) == int || isQuantity(string({0}))"
NO_QUANTITY = f"self.filter(k, !({IS_QUANTITY.format('self[k]')}))[0]"
NEGATIVE = "self.filter(k, string(self[k]).startsWith('-'))[0]"
Quantities = Annotated[
    dict[str, int | str],
    Field(
        max_length=16,
        json_schema_extra={
            "additionalProperties": {"x-kubernetes-int-or-string": True, "maxLength": 32},
            "x-kubernetes-validations": [
                rule(
                    f"self.all(k, {IS_QUANTITY.format('self[k]')})",
                    f"{{{NO_QUANTITY}}} '{{string(self[{NO_QUANTITY}])}}' is not a quantity; write such as 500m, 2 or 4Gi (not 4GB)",
                ),
                rule(
                    "self.all(k, !string(self[k]).startsWith('-'))",
                    f"{{{NEGATIVE}}} '{{string(self[{NEGATIVE}])}}' is less than nothing, which no pod may ask for; "
                    "write such as 500m or 4Gi",
                ),
            ],
        },
    ),
]


class Resources(Resource):
    """Kubernetes resource requests and limits."""

    requests: Annotated[Quantities, Field(description="What the pod is scheduled by.")] = {}
    limits: Annotated[Quantities, Field(description="What the pod may use; passing the memory limit kills it.")] = {}


class PodSettings(Resource):
    """How pods are placed and run; on everything that makes pods."""

    image: Annotated[Image | None, Field(description="Container image. Default: the operator's setting for this kind of pod.")] = None
    resources: Annotated[Resources | None, Field(description="Requests and limits of the main container.")] = None
    service_account_name: Annotated[ObjectName | None, Field(description="Service account of the pods; its token is not mounted.")] = None
    image_pull_secrets: Annotated[tuple[LocalReference, ...], Field(max_length=8, description="Secrets for private registries.")] = ()
    node_selector: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16, description="Labels a node must have.")
    ] = {}
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16, description="Taints the pods tolerate.")] = ()
    priority_class_name: Annotated[ObjectName | None, Field(description="Priority of the pods; serving should outrank training.")] = None
    pod_template: Annotated[
        dict[str, Any],
        Field(
            description="Strategic additions to the pod template (metadata and spec), merged over what the operator builds.",
            json_schema_extra=SCHEMALESS,
        ),
    ] = {}


class EnvVar(Resource):
    """An environment variable with a plain value; secrets go by `podTemplate` and secretKeyRef."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Name of the variable.")]
    value: Annotated[str, Field(max_length=4096, description="Its value.")] = ""


# vLLM's parser takes '_' for '-', and any prefix that names one option; no other option is called like these.
RESERVED_ARGUMENT = "^--(por?t?|hos?t?|mode?l?|serv?e?d?|served[-_][^=]*)(=|$)"
UNTRUSTED_ARGUMENT = "trust[-_]remote[-_]code|^--tr(u|us|ust|ust[-_]|ust[-_]r|ust[-_]re|ust[-_]rem[^=]*)?(=|$)"
IS_RESERVED, IS_UNTRUSTED = (f"a.matches({quote(pattern)})" for pattern in (RESERVED_ARGUMENT, UNTRUSTED_ARGUMENT))


ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._/:]*[A-Za-z0-9])?$",
        json_schema_extra=mend("is not the name of a model; write such as companion or org/model-8B, letters or digits at both ends"),
    ),
]


class Serving(PodSettings):
    """How an arm is served by vLLM."""

    model_config = Resource.model_config | {
        "json_schema_extra": rules(
            rule(
                f"!self.drain.matches({quote(DURATION)}) || duration(self.drain) <= duration('24h')",
                "drain {self.drain} is longer than a day, and would hold up a node's drain as long; shorten it to 24h or less",
                at=".drain",
            )
        )
    }

    replicas: Annotated[int, Field(ge=1, le=256, description="Replicas an arm starts with.")] = 1
    args: Annotated[
        tuple[Annotated[str, Field(max_length=512)], ...],
        Field(
            max_length=64,
            description="Arguments added to `vllm serve MODEL --served-model-name … --port …`.",
            json_schema_extra=rules(
                rule(
                    f"!self.exists(a, {IS_RESERVED})",
                    f"{{self.filter(a, {IS_RESERVED})[0]}} is set by the operator; remove it (the name users call is 'modelName')",
                ),
                rule(
                    f"!self.exists(a, {IS_UNTRUSTED})",
                    f"{{self.filter(a, {IS_UNTRUSTED})[0]}} runs code of whoever made the model; remove it",
                ),
            ),
        ),
    ] = ()
    env: Annotated[
        tuple[EnvVar, ...],
        Field(
            max_length=64,
            description="Environment of the vLLM container.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    model_name: Annotated[
        ModelName | None, Field(description="Name both arms answer to in the OpenAI API. Default: the service's name.")
    ] = None
    ready_timeout: Annotated[PositiveDuration, Field(description="How long an arm may take to answer its first completion.")] = "30m"
    drain: Annotated[
        PositiveDuration,
        Field(description="How long a pod that leaves may finish its replies; one that answers nobody leaves within seconds. At most 24h."),
    ] = "10m"
