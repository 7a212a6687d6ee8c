"""One arm: a model served by vLLM. Deployment, Service, and a disruption budget."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

from flywheel.api.base import parse_duration
from flywheel.api.common import Artifact, Serving, Storage
from flywheel.specs import pods, verify_model
from flywheel.specs.pods import LABEL, MANAGED_BY, Images, Manifest

CONTAINER = "vllm"
PORT = 8000
SETTLE_SECONDS = 5  # until every router has heard that the pod leaves
STOP_SECONDS = 90  # from SIGTERM to SIGKILL
STARTUP_PERIOD = 5
DEFAULT_RESOURCES = {"requests": {"cpu": "250m", "memory": "2Gi"}}
ENVIRONMENT = {**pods.HOME_ENVIRONMENT, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
# Without a GPU: one thread and no pinning (several servers would share core 0), 1 GiB of KV cache, no C++ compilation at the
# first request with logprobs (27 s). A bigger machine sets its own in serving.env.
CPU_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCH_COMPILE_DISABLE": "1",
}

# Ready means that the model has answered, not that a port is open.
COMPLETION_PROBE = f"""
import json, sys, urllib.request
body = json.dumps({{"model": sys.argv[1], "prompt": "Hi", "max_tokens": 1}}).encode()
request = urllib.request.Request("http://127.0.0.1:{PORT}/v1/completions", body, {{"Content-Type": "application/json"}})
try:
    with urllib.request.urlopen(request, timeout=55) as reply:
        answered = bool(json.load(reply).get("choices"))
except Exception as error:
    sys.exit(f"no completion yet: {{error}}")
sys.exit(0 if answered else "the reply has no choices")
"""

# Before SIGTERM, at which vLLM cuts its streams: wait until it has been seen to answer nobody twice, or is dead. One that keeps no
# count (--disable-log-stats) or is too busy to tell gets the whole time.
DRAIN = f"""
import sys, time, urllib.request
end, quiet = time.monotonic() + float(sys.argv[1]), 0
time.sleep({SETTLE_SECONDS})
while quiet < 2 and time.monotonic() < end:
    try:
        with urllib.request.urlopen("http://127.0.0.1:{PORT}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        counts = [float(line.split()[-1]) for line in lines if line.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting"))]
        busy = not counts or any(counts)
    except Exception as error:
        busy = isinstance(getattr(error, "reason", error), TimeoutError)
    quiet = 0 if busy else quiet + 1
    time.sleep(1)
"""


def arm_name(generation: str, digest: str) -> str:
    """`<generation>-<first 8 hex of digest>`, a valid Service name of at most 63 characters."""
    suffix = "-" + digest.removeprefix("sha256:")[:8]
    stem = re.sub(r"[^a-z0-9-]+", "-", generation.lower()).strip("-")
    if not stem[:1].isalpha():  # a Service's name starts with a letter
        stem = f"g-{stem}".rstrip("-")
    if len(stem) > 63 - len(suffix):
        stem = f"{stem[:45].rstrip('-')}-{hashlib.sha256(generation.encode()).hexdigest()[:8]}"
    return stem + suffix


def arm_manifests(
    *,
    arm: str,
    service: str,
    generation: str,
    model: Artifact,
    serving: Serving,
    storage: Storage,
    namespace: str,
    owner_references: Sequence[Manifest],
    labels: Mapping[str, str],
    defaults: Images,
) -> list[Manifest]:
    """Deployment, Service and PodDisruptionBudget of an arm. Raises InvalidPodTemplate if the user's podTemplate doesn't fit."""
    selector = {LABEL + "arm": arm, LABEL + "component": "vllm"}
    all_labels = {**MANAGED_BY, LABEL + "generation": generation, **labels, **selector}
    metadata: Manifest = {"name": arm, "namespace": namespace, "labels": all_labels}
    if owner_references:
        metadata["ownerReferences"] = [dict(reference) for reference in owner_references]
    template = _template(service, model, serving, storage, all_labels, defaults)
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": _deployment_spec(serving, selector, template)},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": selector, "ports": [{"name": "http", "port": PORT, "targetPort": PORT, "protocol": "TCP"}]},
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata,
            # A drain takes one replica at a time; a broken pod never blocks it.
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector}, "unhealthyPodEvictionPolicy": "AlwaysAllow"},
        },
    ]


def _deployment_spec(serving: Serving, selector: Mapping[str, str], template: Manifest) -> Manifest:
    return {
        "replicas": serving.replicas,
        "selector": {"matchLabels": dict(selector)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "progressDeadlineSeconds": _ready_seconds(serving) + 60,
        "revisionHistoryLimit": 2,
        "template": template,
    }


def _ready_seconds(serving: Serving) -> int:
    return _whole_seconds(serving.ready_timeout)


def _whole_seconds(duration: str) -> int:
    return max(1, math.ceil(parse_duration(duration).total_seconds()))


def _template(service: str, model: Artifact, serving: Serving, storage: Storage, labels: Mapping[str, str], defaults: Images) -> Manifest:
    tmp, tmp_mount = pods.scratch("tmp", "/tmp")  # noqa: S108 - an emptyDir
    shm, shm_mount = pods.scratch("shm", "/dev/shm", memory=True)  # noqa: S108 - tensor-parallel workers talk through it
    name, image = serving.model_name or service, serving.image or defaults.vllm_image
    drain = max(SETTLE_SECONDS, _whole_seconds(serving.drain))
    container: Manifest = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["vllm", "serve", model_path(model.uri), "--served-model-name", name, "--host", "0.0.0.0", "--port", str(PORT)],  # noqa: S104
        "args": list(serving.args),
        "env": pods.environment(_environment(model, serving)),
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": pods.resources(serving, DEFAULT_RESOURCES),
        "securityContext": pods.container_security(),
        "lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", DRAIN, str(drain)]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [pods.storage_mount(read_only=True), tmp_mount, shm_mount],
        **_probes(name, serving),
    }
    if env_from := pods.credentials(storage):
        container["envFrom"] = env_from
    return pods.pod_template(
        container,
        serving,
        labels=labels,
        annotations={LABEL + "digest": model.digest} if model.digest else None,
        volumes=[pods.storage_volume(storage), tmp, shm],
        init_containers=[_verification(model, image)] if is_local(model.uri) else [],
        terminationGracePeriodSeconds=drain + STOP_SECONDS,
    )


def _probes(name: str, serving: Serving) -> Manifest:
    health = {"httpGet": {"path": "/health", "port": PORT}}
    attempts = max(1, math.ceil(_ready_seconds(serving) / STARTUP_PERIOD))
    return {
        "startupProbe": {
            "exec": {"command": ["python3", "-c", COMPLETION_PROBE, name]},
            "periodSeconds": STARTUP_PERIOD,
            "timeoutSeconds": 60,
            "failureThreshold": attempts,
        },
        "readinessProbe": {**health, "periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 3},
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def _verification(model: Artifact, image: str) -> Manifest:
    return {
        "name": "verify-model",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", verify_model.SCRIPT, model_path(model.uri), model.digest or ""],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": pods.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [pods.storage_mount(read_only=True)],
    }


def _environment(model: Artifact, serving: Serving) -> dict[str, str]:
    values = dict(ENVIRONMENT)
    if is_local(model.uri):
        values |= OFFLINE
    if not wants_gpu(serving):
        values |= CPU_ENVIRONMENT
    return values | {variable.name: variable.value for variable in serving.env}


def wants_gpu(serving: Serving) -> bool:
    """Whether the pods ask for an accelerator, such as `nvidia.com/gpu`."""
    asked = {**serving.resources.requests, **serving.resources.limits} if serving.resources else {}
    return any("/" in resource and str(amount) != "0" for resource, amount in asked.items())


def is_local(uri: str) -> bool:
    """Whether the model lies on the mounted store."""
    return urlsplit(uri).scheme == "file"


def model_path(uri: str) -> str:
    """What `vllm serve` is given: a path for file://, a repository name for hf://, any other URI as it is."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return unquote(parts.path)
    return f"{parts.netloc}{parts.path}" if parts.scheme == "hf" else uri
