"""Objects for tests, in the state a sentence names: `make_training_run(method="SFT")`, `pod_state(exit_code=75)`."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from flywheel.api.common import Artifact
from flywheel.api.reward_model import RewardModel
from flywheel.api.training_run import TrainingRun
from flywheel.plan.kube import JobState, PodState

T0 = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
DIGEST = "sha256:" + "ab" * 32
OTHER_DIGEST = "sha256:" + "cd" * 32


def seconds(count: float) -> dt.timedelta:
    return dt.timedelta(seconds=count)


def uri(name: str) -> dict[str, str]:
    """A model or dataset on the store."""
    return {"type": "Uri", "uri": f"file:///flywheel/{name}", "digest": DIGEST}


def metadata(name: str, *, generation: int = 1, **fields: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "demo", "uid": f"uid-of-{name}", "generation": generation, **fields}


def make_training_run(
    name: str = "sft",
    *,
    generation: int = 1,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    status: Mapping[str, Any] | None = None,
    owners: tuple[Mapping[str, Any], ...] = (),
    **spec: Any,
) -> TrainingRun:
    """A TrainingRun as the API server hands it out; SFT of a base model on one dataset unless told otherwise."""
    given = {"method": "SFT", "model": uri("base"), "datasets": [{"name": "train", "from": uri("data")}], **spec}
    meta = metadata(
        name, generation=generation, labels=dict(labels or {}), annotations=dict(annotations or {}), ownerReferences=list(owners)
    )
    return TrainingRun.model_validate({"metadata": meta, "spec": given, "status": dict(status or {})})


def make_reward_model(
    name: str = "preference",
    *,
    generation: int = 1,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> RewardModel:
    """A RewardModel that trains on preferences unless an artifact is given."""
    training = {"method": "Reward", "model": uri("base"), "datasets": [{"name": "train", "from": uri("pairs")}]}
    given = spec if "artifact" in spec else {"training": training, **spec}
    meta = metadata(name, generation=generation, labels=dict(labels or {}), annotations=dict(annotations or {}))
    return RewardModel.model_validate({"metadata": meta, "spec": given, "status": dict(status or {})})


def make_artifact(kind: str = "model", digest: str = DIGEST) -> Artifact:
    return Artifact(uri=f"file:///flywheel/artifacts/{digest.replace(':', '-')}", digest=digest, size_bytes=10, kind=kind)


def result_message(kind: str = "model", metrics: Mapping[str, Any] | None = None, **artifact: Any) -> str:
    """What a trainer that ended well says."""
    return json.dumps(
        {"artifact": {**make_artifact(kind).dump(), **artifact}, "metrics": {"loss": 0.5} if metrics is None else dict(metrics)}
    )


def error_message(reason: str, message: str = "what went wrong; how to mend it") -> str:
    """What a trainer that gives up says."""
    return json.dumps({"error": {"reason": reason, "message": message}})


def pod_state(name: str = "pod", **fields: Any) -> PodState:
    """A pod; running since T0 unless told otherwise."""
    given: dict[str, Any] = {"phase": "Running", "ip": "10.0.0.7", "created": T0, "started": T0, **fields}
    if given.get("exit_code") is not None:
        given = {"finished": T0 + seconds(60), **given, "phase": "Succeeded" if given["exit_code"] == 0 else "Failed"}
    return PodState(name=name, uid=f"uid-of-{name}", **given)


def waiting_pod(name: str = "pod", **fields: Any) -> PodState:
    """A pod whose container has not started."""
    return PodState(name=name, uid=f"uid-of-{name}", created=T0, **{"waiting_reason": "ContainerCreating", **fields})


def make_job_state(name: str, *pods: PodState, attempt: int = 1, **fields: Any) -> JobState:
    """A Job with its pods, newest first."""
    return JobState(name=name, attempt=attempt, pods=pods, **{"uid": f"uid-of-{name}", "created": T0, **fields})
