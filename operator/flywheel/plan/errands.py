"""Runs that the operator makes for itself (records, garbage collection): small pods that touch the storage and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flywheel.api.generation import Stage
from flywheel.api.training_run import DATA_ONLY

RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
_EVERYWHERE = ("image", "serviceAccountName", "imagePullSecrets", "tolerations", "priorityClassName")
_WITHOUT_GPU = (*_EVERYWHERE, "nodeSelector")


def errand_pod(stages: Iterable[Stage]) -> dict[str, Any]:
    """Pod settings for an errand: those of the lap's first stage without a GPU, for what such a pod needs to run at all (registry,
    service account, taints) is the same. If all stages hold GPUs, their nodes are not asked for."""
    runs = [stage.run for stage in stages if stage.run is not None]
    light = next((run for run in runs if run.method in DATA_ONLY), None)
    like = light or (runs[0] if runs else None)
    if like is None:
        return {"resources": RESOURCES}
    asked = like.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {key: asked[key] for key in (_WITHOUT_GPU if light else _EVERYWHERE) if key in asked} | {"resources": RESOURCES}
