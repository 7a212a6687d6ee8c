"""Where each kind lives in the API. A table instead of discovery: the operator touches a closed set of kinds. Whether the cluster
serves those that not every one has is for `adapters.discovery` to find out."""

from __future__ import annotations

from flywheel.api.base import API_VERSION
from flywheel.ports import ClusterError

_PLURALS = {
    (API_VERSION, "Flywheel"): "flywheels",
    (API_VERSION, "Generation"): "generations",
    (API_VERSION, "TrainingRun"): "trainingruns",
    (API_VERSION, "RewardModel"): "rewardmodels",
    (API_VERSION, "Rollout"): "rollouts",
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "Event"): "events",
    ("v1", "Pod"): "pods",
    ("v1", "Service"): "services",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("apps/v1", "ControllerRevision"): "controllerrevisions",
    ("apps/v1", "Deployment"): "deployments",
    ("batch/v1", "Job"): "jobs",
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): "jobsets",
    ("coordination.k8s.io/v1", "Lease"): "leases",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("rbac.authorization.k8s.io/v1", "Role"): "roles",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "rolebindings",
}


def collection_path(api_version: str, kind: str, namespace: str | None) -> str:
    """URL path of a kind's objects in one namespace, or in all of them."""
    plural = _PLURALS.get((api_version, kind))
    if plural is None:
        raise ClusterError(f"the operator does not know the kind {api_version} {kind}", status=0, retryable=False)
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def object_path(api_version: str, kind: str, namespace: str, name: str) -> str:
    """URL path of one object."""
    return f"{collection_path(api_version, kind, namespace)}/{name}"


def resource_of(path: str) -> str:
    """The plural of the resource that a URL path is about: a subresource belongs to its object."""
    _, *parts = path.split("/")
    kind = parts[2:] if parts[0] == "api" else parts[3:]
    return kind[2] if len(kind) > 2 and kind[0] == "namespaces" else kind[0] if kind else "other"
