"""The router of one model service: Envoy and its agent, and the least rights the agent needs.

Envoy is a native sidecar, so that it stops after the agent: at SIGTERM the agent drains it and ends when nobody is served.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from flywheel.api.common import PodSettings
from flywheel.specs import pods
from flywheel.specs.envoy_bootstrap import LISTENER_PORT, RUN_DIRECTORY, STATS_PORT
from flywheel.specs.pods import LABEL, MANAGED_BY, STORAGE_PATH, Manifest

AGENT_PORT = 9903
SEED_DIRECTORY = "/etc/flywheel/routes"
CREDENTIALS_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
AGENT = ["python", "-m", "flywheel.runtime.router_agent"]
ENVOY = [
    *("envoy", "-c", f"{RUN_DIRECTORY}/bootstrap.json"),
    *("--file-flush-interval-msec", "200", "--drain-strategy", "immediate", "--disable-hot-restart", "--log-level", "warning"),
]
ENVOY_RESOURCES = {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}}
AGENT_RESOURCES = {"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"memory": "128Mi"}}


def router_manifests(
    *,
    service: str,
    namespace: str,
    image_envoy: str,
    image_operator: str,
    replicas: int,
    claim: str,
    owner_references: Sequence[Manifest] = (),
    labels: Mapping[str, str] | None = None,
    settings: PodSettings | None = None,
    drain_seconds: int = 600,
    concurrency: int = 2,
) -> list[Manifest]:
    """ServiceAccount, Role, RoleBinding, Deployment, Service and PodDisruptionBudget `<service>-router`.

    `drain_seconds` must be longer than the longest stream; a router that serves nobody ends at once.
    """
    name = f"{service}-router"
    selector = {LABEL + "flywheel": service, LABEL + "component": "router"}
    metadata: Manifest = {"name": name, "namespace": namespace, "labels": {**(labels or {}), **MANAGED_BY, **selector}}
    if owner_references:
        metadata["ownerReferences"] = list(owner_references)
    envoy = _envoy(service, image_envoy, concurrency)
    template = pods.pod_template(
        _agent(service, image_operator, drain_seconds),
        settings or PodSettings(),
        labels={**(labels or {}), **MANAGED_BY, **selector},
        annotations={"prometheus.io/scrape": "true", "prometheus.io/port": str(STATS_PORT), "prometheus.io/path": "/stats/prometheus"},
        volumes=_volumes(service, claim),
        init_containers=[_prepare(service, image_operator), envoy],
        serviceAccountName=name,
        terminationGracePeriodSeconds=drain_seconds + 30,
        topologySpreadConstraints=[
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
            }
        ],
    )
    deployment = {
        "replicas": replicas,
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "revisionHistoryLimit": 3,
        "template": template,
    }
    budget = {"maxUnavailable": 1, "selector": {"matchLabels": selector}, "unhealthyPodEvictionPolicy": "AlwaysAllow"}
    ports = [{"name": "http", "port": 80, "targetPort": LISTENER_PORT, "protocol": "TCP", "appProtocol": "http"}]
    manifests: list[Manifest] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": role_rules(service)},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": selector, "ports": ports}},
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": budget},
    ]
    return [copy.deepcopy(one) for one in manifests]


def role_rules(service: str) -> list[Manifest]:
    """Read one ConfigMap, and EndpointSlices, whose names can't be known. The operator must hold these rights to grant them."""
    verbs = ["get", "list", "watch"]
    return [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [f"{service}-routes"], "verbs": verbs},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
    ]


def _prepare(service: str, image: str) -> Manifest:
    """Writes Envoy's configuration and makes the directory of its log, where Envoy itself then gets no further than the logs."""
    return {
        "name": "prepare",
        "image": image,
        "command": [*AGENT, "prepare", "--service", service],
        "env": _identity(),
        "securityContext": pods.container_security(),
        "resources": AGENT_RESOURCES,
        "volumeMounts": [_run(), _seed(), pods.storage_mount(), _tmp()],
    }


def _envoy(service: str, image: str, concurrency: int) -> Manifest:
    return {
        "name": "envoy",
        "image": image,
        "restartPolicy": "Always",
        "command": [*ENVOY, "--concurrency", str(concurrency)],
        "ports": [{"name": "http", "containerPort": LISTENER_PORT}, {"name": "stats", "containerPort": STATS_PORT}],
        "livenessProbe": {"tcpSocket": {"port": STATS_PORT}, "periodSeconds": 10, "failureThreshold": 3},
        "securityContext": pods.container_security(),
        "resources": ENVOY_RESOURCES,
        "volumeMounts": [{**_run(), "readOnly": True}, _logs(service), _tmp()],
    }


def _agent(service: str, image: str, drain_seconds: int) -> Manifest:
    return {
        "name": "agent",
        "image": image,
        "command": [*AGENT, "run", "--service", service, "--port", str(AGENT_PORT), "--drain-seconds", str(drain_seconds)],
        "env": _identity(),
        "ports": [{"name": "agent", "containerPort": AGENT_PORT}],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": AGENT_PORT},
            "periodSeconds": 2,
            "failureThreshold": 2,
            "timeoutSeconds": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/metrics", "port": AGENT_PORT},
            "periodSeconds": 10,
            "failureThreshold": 6,
            "timeoutSeconds": 5,
        },
        "securityContext": pods.container_security(),
        "resources": AGENT_RESOURCES,
        "volumeMounts": [_run(), _seed(), {"name": "api", "mountPath": CREDENTIALS_DIRECTORY, "readOnly": True}, _logs(service), _tmp()],
    }


def _identity() -> list[Manifest]:
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}
    return [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]


def _run() -> Manifest:
    return {"name": "run", "mountPath": RUN_DIRECTORY}


def _logs(service: str) -> Manifest:
    """Of the storage, the logs of this service and no more."""
    return {"name": "storage", "mountPath": f"{STORAGE_PATH}/logs/{service}", "subPath": f"logs/{service}"}


def _seed() -> Manifest:
    return {"name": "routes", "mountPath": SEED_DIRECTORY, "readOnly": True}


def _tmp() -> Manifest:
    return {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - an emptyDir of the pod


def _volumes(service: str, claim: str) -> list[Manifest]:
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}
    authority = {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    return [
        {"name": "run", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "routes", "configMap": {"name": f"{service}-routes", "optional": True}},
        {"name": "api", "projected": {"sources": [token, authority]}},
        {"name": "storage", "persistentVolumeClaim": {"claimName": claim}},
    ]
