"""Cached by content: a stage takes over what an earlier run has made of the same inputs, parameters, seed and image.

What decides a result is known by digest, or the stage runs: data that still grows has none, and a tag of an image says nothing of what it
will stand for when the next pod starts.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from flywheel.api.common import Artifact, Storage
from flywheel.api.generation import CachePolicy, Generation, GenerationSpec, Stage
from flywheel.api.training_run import Inputs, TrainingRun, TrainingTemplate
from flywheel.plan.base import Defaults, stable_hash
from flywheel.plan.generation_inputs import template_of
from flywheel.plan.references import Problem, resolve_inputs

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PINNED = re.compile(r"@(sha256:[0-9a-f]{64})$")
LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)
REFERENCES = {"model", "opponent", "pool", "datasets", "rewards"}  # count by digest
# Where and how patiently it runs, not what comes out. A field that is not listed counts, so that a new one can only cost a run.
CIRCUMSTANCES = {
    *("image", "resources", "service_account_name", "image_pull_secrets", "node_selector", "tolerations", "priority_class_name"),
    *("checkpoint", "retry", "deadline", "backend", "queue_name", "storage", "suspend"),
}


@dataclass(frozen=True)
class Earlier:
    """The runs whose results may be taken over."""

    runs: Iterable[TrainingRun] = ()
    gone: frozenset[str] = field(default_factory=frozenset)  # digests of artifacts that were deleted from the store


def looks_back(generation: Generation, spec: GenerationSpec, stages: Iterable[Stage], defaults: Defaults) -> bool:
    """Whether a pass over the lap may ask for earlier runs: something has yet to start, and its policy and image allow it."""
    status = generation.status
    if status.decision is not None or status.rollout is not None or generation.spec.suspend:
        return False
    if status.stages and not any(stage.phase == "Waiting" for stage in status.stages):
        return False
    templates = [(template_of(stage), stage.cache or spec.cache) for stage in stages if stage.name not in spec.skip]
    return any(
        template is not None and (policy == "Always" or (policy == "Auto" and image_digest(template, defaults) is not None))
        for template, policy in templates
    )


def reusable(
    template: TrainingTemplate, policy: CachePolicy, earlier: Earlier, storage: Storage, defaults: Defaults
) -> tuple[TrainingRun, Artifact] | None:
    """The newest earlier run that has made what this (resolved) template would make, with its artifact."""
    image = image_digest(template, defaults)
    inputs = resolve_inputs(template, {})
    if policy == "Never" or (policy == "Auto" and image is None) or isinstance(inputs, Problem):
        return None
    wanted = content(template, inputs)
    if wanted is None:
        return None
    found = [
        (run, run.status.artifact)
        for run in earlier.runs
        if run.status.phase == "Succeeded"
        and run.status.artifact is not None
        and run.status.artifact.digest not in (None, *earlier.gone)
        and run.status.inputs is not None
        and (run.spec.storage.uri, run.spec.storage.claim_name) == (storage.uri, storage.claim_name)
        and (policy == "Always" or image in images_run(run))
        and content(run.spec, run.status.inputs) == wanted
    ]
    return max(found, key=lambda one: (one[0].status.completion_time or LONG_AGO, one[0].metadata.name), default=None)


def content(template: TrainingTemplate, inputs: Inputs) -> str | None:
    """A hash of everything but the image that decides what a run makes; None if that is not known by its content."""
    models = [inputs.model, inputs.opponent, *inputs.pool]
    data = [(d.name, d.subset, d.weight, inputs.datasets.get(d.name)) for d in template.datasets]
    rewards = [(r.name, r.role, r.weight, inputs.rewards.get(r.name)) for r in template.rewards]
    known = [_known(artifact) for artifact in (*(m for m in models if m), *(d[-1] for d in data), *(r[-1] for r in rewards))]
    if None in known:
        return None
    asked = template.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=CIRCUMSTANCES | REFERENCES)
    named = [[d[:-1] for d in data], [r[:-1] for r in rewards], [m is not None for m in models]]
    return stable_hash(asked, named, known, length=64)


def _known(artifact: Artifact | None) -> str | None:
    """What an input is: its digest, or the rule or data that comes with the image."""
    if artifact is None:
        return None
    return artifact.uri if artifact.uri.startswith("builtin:") else artifact.digest


def image_digest(template: TrainingTemplate, defaults: Defaults) -> str | None:
    """The digest that the image is named by. A tag is none, nor is an image that podTemplate may bring."""
    pinned = PINNED.search(template.image or defaults.trainer_image)
    return pinned[1] if pinned and not _brings_image(template) else None


def images_run(run: TrainingRun) -> set[str]:
    """Digests of the image that made the artifact: as the kubelet named it, and as the spec did."""
    ran = DIGEST.search(run.status.attempts[-1].image_id or "") if run.status.attempts else None
    asked = None if run.spec.image is None or _brings_image(run.spec) else PINNED.search(run.spec.image)
    return {found[0] for found in (ran,) if found} | {found[1] for found in (asked,) if found}


def _brings_image(template: TrainingTemplate) -> bool:
    spec = template.pod_template.get("spec")
    containers = spec.get("containers") if isinstance(spec, dict) else None
    return any(isinstance(c, dict) and "image" in c for c in containers) if isinstance(containers, list) else False
