"""One attempt of a TrainingRun: a ConfigMap with run.json, and a Job or JobSet of its pods (ARCHITECTURE.md, section 2)."""

from __future__ import annotations

import hashlib
import json
import math

from flywheel.api.base import API_VERSION, parse_duration
from flywheel.api.common import Artifact
from flywheel.api.training_run import Backend, Custom, Inputs, TrainingRun
from flywheel.specs import gang, job_set, pods
from flywheel.specs.pods import LABEL, MANAGED_BY, Images, Manifest

CONTAINER = "trainer"
PORT = 8080
CONFIG_PATH = "/etc/flywheel"
GRACE_SECONDS = 120  # for the last checkpoint
DEFAULT_RESOURCES = {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}
ENVIRONMENT = {
    **pods.HOME_ENVIRONMENT,
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # OpenMP's spinning costs 3-5x on shared cores
    "TOKENIZERS_PARALLELISM": "false",
}
API_VERSIONS: dict[Backend, str] = {"Job": "batch/v1", "JobSet": job_set.API_VERSION}
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
INHERITED_LABELS = ("flywheel", "generation", "reward-model")


# ------------------------------------------------------------------------------------------------------------- run.json


def run_config(run: TrainingRun, inputs: Inputs, attempt: int) -> Manifest:
    """run.json. Attempts of one spec get the same one but for `run.attempt`, and share their checkpoints."""
    spec, root = run.spec, run.spec.storage.uri.rstrip("/")
    config: Manifest = {
        "apiVersion": f"trainers.{API_VERSION}",
        "method": spec.method,
        "seed": spec.seed,
        "model": _reference(inputs.model),
        "opponent": _reference(inputs.opponent),
        "pool": [_reference(model) for model in inputs.pool],
        "datasets": _datasets(run, inputs),
        "rewards": [
            {"name": reward.name, "role": reward.role, **(_reference(inputs.rewards[reward.name]) or {}), "weight": reward.weight}
            for reward in spec.rewards
        ],
        "adapter": spec.adapter.dump() if spec.adapter else None,
        "parameters": dict(spec.parameters),
        "output": {"uri": f"{root}/artifacts"},
        "progress": {"port": PORT},
    }
    config = {key: value for key, value in config.items() if value not in (None, [])}
    # Another spec must not go on from this one's checkpoints.
    lineage = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    checkpoint = {"uri": f"{root}/checkpoints/{run.metadata.uid}/{lineage}", **spec.checkpoint.dump()}
    identity = {"namespace": run.metadata.namespace, "name": run.metadata.name, "uid": run.metadata.uid, "attempt": attempt}
    if flywheel := run.metadata.labels.get(LABEL + "flywheel"):
        identity["flywheel"] = flywheel  # whose garbage it may become; not part of what a checkpoint depends on
    return {**config, "run": identity, "checkpoint": checkpoint}


def _reference(artifact: Artifact | None) -> Manifest | None:
    if artifact is None:
        return None
    return {"uri": artifact.uri, "digest": artifact.digest} if artifact.digest else {"uri": artifact.uri}


def _datasets(run: TrainingRun, inputs: Inputs) -> list[Manifest]:
    datasets = []
    for dataset in run.spec.datasets:
        entry: Manifest = {"name": dataset.name, **(_reference(inputs.datasets[dataset.name]) or {}), "weight": dataset.weight}
        datasets.append(entry | {"subset": dataset.subset} if dataset.subset else entry)
    return datasets


# ------------------------------------------------------------------------------------------------------------ manifests


def trainer_job(run: TrainingRun, *, attempt: int, job_name: str, config: Manifest, defaults: Images) -> list[Manifest]:
    """What one attempt is made of, the Job or JobSet last. Raises InvalidPodTemplate if the user's podTemplate doesn't fit."""
    owner = {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "name": run.metadata.name,
        "uid": run.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    metadata: Manifest = {
        "name": job_name,
        "namespace": run.metadata.namespace,
        "labels": job_labels(run, attempt),
        "annotations": {LABEL + "attempt": str(attempt), LABEL + "method": run.spec.method},
        "ownerReferences": [owner],
    }
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    # Named by its content: the one that was made for a Job that the API server has refused must not be read by the mended Job.
    config_name = f"{job_name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**{key: value for key, value in metadata.items() if key != "annotations"}, "name": config_name},
        "immutable": True,
        "data": {"run.json": text},
    }
    template = pod_template(run, metadata, config_name, defaults, gang.environment(run, job_name))
    spec = job_spec(run, template)
    if run.spec.backend == "JobSet":
        return [config_map, job_set.job_set(queued(run, metadata), metadata, spec, suspend=starts_suspended(run))]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": queued(run, metadata), "spec": {**spec, "suspend": starts_suspended(run)}}
    if run.spec.nodes == 1:
        return [config_map, job]
    template["spec"]["subdomain"] = gang.service_name(run)
    return [config_map, gang.service(run, owner), job]


def job_labels(run: TrainingRun, attempt: int) -> dict[str, str]:
    """Labels of an attempt's objects: whose it is, and what the run itself belongs to."""
    inherited = {LABEL + key: run.metadata.labels[LABEL + key] for key in INHERITED_LABELS if LABEL + key in run.metadata.labels}
    own = {LABEL + "training-run": run.metadata.name, LABEL + "component": "trainer", LABEL + "attempt": str(attempt)}
    return {**MANAGED_BY, **inherited, **own}


def starts_suspended(run: TrainingRun) -> bool:
    """Whether nobody may start the pods yet: the user, or Kueue, which lifts it at admission and has the field to itself from then on."""
    return run.spec.suspend or run.spec.queue_name is not None


def queued(run: TrainingRun, metadata: Manifest) -> Manifest:
    """Metadata with the label that Kueue reads, on the Job or JobSet alone."""
    if run.spec.queue_name is None:
        return metadata
    return {**metadata, "labels": {**metadata["labels"], QUEUE_LABEL: run.spec.queue_name}}


def job_spec(run: TrainingRun, template: Manifest) -> Manifest:
    """A Job of the run's pods, but for `suspend`. The operator retries, after it has read why: any failed pod ends the Job."""
    one = run.spec.nodes == 1
    # A lone pod that the cluster takes away is replaced by the Job. One of many takes the others along: the whole attempt is made again.
    disruption = {"action": "Ignore" if one else "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    spec: Manifest = {
        "backoffLimit": 0,
        "completions": run.spec.nodes,
        "parallelism": run.spec.nodes,
        "podReplacementPolicy": "Failed",  # never two pods on one checkpoint
        "podFailurePolicy": {"rules": [disruption]},
        "template": template,
    }
    if not one or run.spec.backend == "JobSet":
        spec["completionMode"] = "Indexed"  # gives each pod its rank and its host name
    if run.spec.deadline is not None:
        spec["activeDeadlineSeconds"] = max(1, math.ceil(parse_duration(run.spec.deadline).total_seconds()))
    return spec


def pod_template(run: TrainingRun, metadata: Manifest, config_name: str, defaults: Images, environment: dict[str, str]) -> Manifest:
    """The pod of a trainer."""
    tmp, tmp_mount = pods.scratch("tmp", "/tmp")  # noqa: S108 - an emptyDir
    shm, shm_mount = pods.scratch("shm", "/dev/shm", memory=True)  # noqa: S108 - torch's workers talk through it
    config = {"name": "config", "configMap": {"name": config_name}}
    container: Manifest = {
        "name": CONTAINER,
        "image": run.spec.image or defaults.trainer_image,
        "imagePullPolicy": "IfNotPresent",
        **_command(run),
        "env": pods.environment(ENVIRONMENT | environment),
        "ports": [{"name": "progress", "containerPort": PORT}],
        "resources": pods.resources(run.spec, DEFAULT_RESOURCES, gpus=run.spec.gpus_per_node),
        "securityContext": pods.container_security(),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [pods.storage_mount(), {"name": "config", "mountPath": CONFIG_PATH, "readOnly": True}, tmp_mount, shm_mount],
    }
    if env_from := pods.credentials(run.spec.storage):
        container["envFrom"] = env_from
    return pods.pod_template(
        container,
        run.spec,
        labels=metadata["labels"],
        annotations=metadata["annotations"],
        volumes=[pods.storage_volume(run.spec.storage), config, tmp, shm],
        restartPolicy="Never",
        terminationGracePeriodSeconds=GRACE_SECONDS,
    )


def _command(run: TrainingRun) -> Manifest:
    """`command` and `args` of the container. A user's own trainer starts its processes itself."""
    if run.spec.method == "Custom":
        given = run.spec.custom or Custom()
        return {key: list(words) for key, words in (("command", given.command), ("args", given.args)) if words}
    program, config = ["python", "-m", "flywheel_trainers"], ["--config", f"{CONFIG_PATH}/run.json"]
    processes = gang.processes_per_node(run)
    if run.spec.nodes == 1 and processes == 1:
        return {"command": [*program, "run", *config]}
    many = ["--nodes", str(run.spec.nodes), "--processes-per-node", str(processes), "--leader", f"$({gang.LEADER})"]
    return {"command": [*program, "launch", *config, *many]}


def suspend_patch(run: TrainingRun, name: str, uid: str, suspended: bool, *, backend: Backend = "Job") -> Manifest:
    """What pauses or resumes an attempt; its uid keeps it from making one that is gone. Never sent to what Kueue admits."""
    return {
        "apiVersion": API_VERSIONS[backend],
        "kind": backend,
        "metadata": {"name": name, "namespace": run.metadata.namespace, "uid": uid},
        "spec": {"suspend": suspended},
    }
