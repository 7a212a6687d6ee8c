"""The objects of the promises: small, but as a user would write them."""

from __future__ import annotations

from typing import Any

from dev.demo.install import Model

Body = dict[str, Any]
API = "modelflywheel.dev/v1alpha1"
STORE = "file:///flywheel/artifacts"
SERVICE = "svc"
SMALL = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}}
ARGUMENTS = ["--dtype=float32", "--max-model-len=256", "--max-num-seqs=8", "--enforce-eager", "--distributed-executor-backend=uni"]
# One process instead of two, which starts in half the time and takes half the memory; its threads go where there is room.
ENVIRONMENT = [
    {"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"},
    {"name": "VLLM_ENABLE_V1_MULTIPROCESSING", "value": "0"},
    {"name": "VLLM_CPU_OMP_THREADS_BIND", "value": "nobind"},
]


def claim(namespace: str) -> Body:
    """The claim that every pod mounts, on the volume named like the namespace."""
    volume = {"storageClassName": "", "volumeName": namespace, "accessModes": ["ReadWriteMany"]}
    spec = {**volume, "resources": {"requests": {"storage": "10Gi"}}}
    metadata = {"name": "flywheel-data", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def model(base: Model) -> Body:
    """A model by content."""
    return {"uri": f"{STORE}/{base.name}", "digest": base.digest}


def data(name: str, directory: str, digest: str | None = None) -> Body:
    """A dataset, by the name of its directory on the store."""
    source = {"type": "Uri", "uri": f"{STORE}/{directory}"}
    return {"name": name, "from": {**source, "digest": digest} if digest else source}


def sft(name: str, base: Model, digest: str, *, steps: int = 2, **spec: Any) -> Body:
    """A run of a few optimiser steps."""
    defaults: Body = {
        "method": "SFT",
        "seed": 7,
        "model": {"type": "Uri", **model(base)},
        "datasets": [data("train", "promises-sft", digest)],
        "parameters": {"maxSteps": steps, "batchSize": 4, "learningRate": 0.001, "maxLength": 64},
        "checkpoint": {"everySteps": 5},
    }
    return _run(name, defaults | spec)


def curate(name: str, dataset: Body, **spec: Any) -> Body:
    """A run that takes a second or two once its pod has started."""
    return _run(name, {"method": "Curate", "datasets": [dataset], **spec})


def _run(name: str, spec: Body) -> Body:
    common = {"retry": {"limit": 1, "backoff": "1s"}, "resources": SMALL}
    return {"apiVersion": API, "kind": "TrainingRun", "metadata": {"name": name}, "spec": common | spec}


def serving(*more: str, **fields: Any) -> Body:
    """How vLLM serves the tiny model on a CPU."""
    return {
        "args": [*ARGUMENTS, *more],
        "env": ENVIRONMENT,
        "resources": {"requests": {"cpu": "200m", "memory": "1500Mi"}, "limits": {"memory": "4Gi"}},
        "readyTimeout": "8m",
        **fields,
    }


def flywheel(base: Model, name: str = SERVICE) -> Body:
    """A service in front of users, whose laps are started by hand."""
    spec = {"base": model(base), "serving": serving(), "engagement": {"conversationIdle": "5s"}}
    return {"apiVersion": API, "kind": "Flywheel", "metadata": {"name": name}, "spec": spec}


def rollout(name: str, champion: Body, candidate: Body, **spec: Any) -> Body:
    """An A/B on the users of the service; its window is longer than any test."""
    baseline = {key: champion[key] for key in ("generation", "uri", "digest")}
    defaults: Body = {
        "flywheel": SERVICE,
        "baseline": baseline,
        "candidate": {"generation": name, "uri": candidate["uri"], "digest": candidate["digest"]},
        "serving": serving(),
        "traffic": {"steps": [{"weightPercent": 10, "duration": "20s"}, {"weightPercent": 50}]},
        "analysis": {"interval": "2s", "window": "1h", "horizon": "10s", "minimumUsers": 1000, "winsorCap": 6},
    }
    return {"apiVersion": API, "kind": "Rollout", "metadata": {"name": name}, "spec": defaults | spec}


def lap(name: str, digest: str) -> Body:
    """A lap of one stage whose model meets users for seconds: days would show no more."""
    train = {
        "method": "SFT",
        "seed": 11,
        "model": {"type": "Base"},
        "datasets": [data("train", "promises-sft", digest)],
        "parameters": {"maxSteps": 2, "batchSize": 4, "learningRate": 0.001, "maxLength": 64},
        "resources": SMALL,
    }
    ask = {
        "traffic": {"steps": [{"weightPercent": 50}]},
        "metrics": [{"name": name, "role": "Success", "margin": 0.05} for name in ("breadth", "depth")],
        "analysis": {"interval": "1s", "window": "20s", "horizon": "6s", "minimumUsers": 10, "winsorCap": 6, "patience": "20s"},
        "watch": {"duration": "3s"},
    }
    spec = {"flywheel": SERVICE, "stages": [{"name": "sft", "run": train}], "rollout": ask}
    return {"apiVersion": API, "kind": "Generation", "metadata": {"name": name}, "spec": spec}
