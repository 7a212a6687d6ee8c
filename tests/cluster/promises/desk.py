"""The pod at which a person would sit: Python, the trainers' libraries, the claim, and the cluster's network."""

from __future__ import annotations

from tests.cluster.promises.space import DESK, Body


def desk_pod(namespace: str) -> Body:
    """Its manifest; it ends by itself after an hour."""
    container = {
        "name": "desk",
        "image": "localhost/flywheel/trainer:dev",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "3600"],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": "/flywheel"}],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "flywheel-data"}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": DESK, "namespace": namespace}, "spec": spec}
