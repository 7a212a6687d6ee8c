"""The engagement collector of one model service: one pod, because its state is one SQLite file."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from flywheel.api.common import PodSettings
from flywheel.specs import pods
from flywheel.specs.pods import LABEL, MANAGED_BY, STORAGE_PATH, Manifest

PORT = 8080
TOKEN_DIRECTORY = "/etc/flywheel/token"  # noqa: S105 - a place
RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}


def collector_manifests(
    *,
    service: str,
    namespace: str,
    image: str,
    claim: str,
    owner_references: Sequence[Manifest] = (),
    labels: Mapping[str, str] | None = None,
    conversation_idle: float = 300,
    settings: PodSettings | None = None,
) -> list[Manifest]:
    """Deployment and Service `<service>-collector`. `conversation_idle` is in seconds.

    All it keeps is on the claim, whatever the store's URI.
    """
    selector = {LABEL + "flywheel": service, LABEL + "component": "collector"}
    all_labels = {**(labels or {}), **MANAGED_BY, **selector}
    metadata: Manifest = {"name": f"{service}-collector", "namespace": namespace, "labels": all_labels}
    if owner_references:
        metadata["ownerReferences"] = list(owner_references)
    tmp, tmp_mount = pods.scratch("tmp", "/tmp")  # noqa: S108 - an emptyDir of the pod
    chosen = settings or PodSettings()
    container: Manifest = {
        "name": "collector",
        "image": image,
        "command": _command(service, namespace, conversation_idle),
        "env": pods.environment(pods.HOME_ENVIRONMENT),
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 2, "failureThreshold": 150},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": PORT}, "periodSeconds": 5, "timeoutSeconds": 3},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 10, "failureThreshold": 6, "timeoutSeconds": 5},
        "securityContext": pods.container_security(),
        "resources": pods.resources(chosen, RESOURCES),
        "volumeMounts": [tmp_mount, pods.storage_mount(), {"name": "token", "mountPath": TOKEN_DIRECTORY, "readOnly": True}],
    }
    template = pods.pod_template(
        container,
        chosen,
        labels=all_labels,
        annotations={"prometheus.io/scrape": "true", "prometheus.io/port": str(PORT), "prometheus.io/path": "/metrics"},
        volumes=[tmp, {"name": "storage", "persistentVolumeClaim": {"claimName": claim}}, _token(service)],
        terminationGracePeriodSeconds=60,
    )
    deployment = {
        "replicas": 1,
        "selector": {"matchLabels": selector},
        "strategy": {"type": "Recreate"},
        "revisionHistoryLimit": 3,
        "template": template,
    }
    ports = [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP", "appProtocol": "http"}]
    manifests: list[Manifest] = [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": selector, "ports": ports}},
    ]
    return [copy.deepcopy(one) for one in manifests]


def _token(service: str) -> Manifest:
    """The app's bearer token, if somebody made the Secret; then `/v1/events` asks for it, and users can be deleted."""
    items = [{"key": "token", "path": "token"}]
    return {"name": "token", "secret": {"secretName": f"{service}-collector-token", "optional": True, "items": items, "defaultMode": 0o440}}


def _command(service: str, namespace: str, conversation_idle: float) -> list[str]:
    return [
        *("python", "-m", "flywheel_collector", "--flywheel", service, "--namespace", namespace),
        *("--logs", f"{STORAGE_PATH}/logs/{service}"),
        *("--data", f"{STORAGE_PATH}/conversations/{service}"),
        *("--state", f"{STORAGE_PATH}/collector/{service}/state.sqlite"),
        *("--token-file", f"{TOKEN_DIRECTORY}/token"),
        *("--port", str(PORT), "--conversation-idle", f"{conversation_idle:.10g}"),
    ]
