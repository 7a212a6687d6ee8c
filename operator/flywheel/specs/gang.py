"""Several pods that train one model: how they find each other, and how many processes each of them starts."""

from __future__ import annotations

from flywheel.api.inputs import MANY_NODES
from flywheel.api.training_run import TrainingRun
from flywheel.specs import job_set
from flywheel.specs.pods import LABEL, MANAGED_BY, Manifest

LEADER, NODES, PROCESSES = "FLYWHEEL_LEADER", "FLYWHEEL_NODES", "FLYWHEEL_PROCESSES_PER_NODE"
# An attempt's name is part of its pods' names and host names: `<name>-node-0-63-x1y2z` must not be longer than 63.
LONGEST_NAME = 47


def alone(run: TrainingRun) -> bool:
    """Whether the run is one pod of a plain Job."""
    return run.spec.nodes == 1 and run.spec.backend == "Job"


def processes_per_node(run: TrainingRun) -> int:
    """One a GPU, where the method trains with several."""
    return max(1, run.spec.gpus_per_node) if run.spec.method in MANY_NODES else 1


def environment(run: TrainingRun, job_name: str) -> dict[str, str]:
    """What a trainer of several processes is told, a user's own one too; $JOB_COMPLETION_INDEX is the rank of its pod."""
    processes = processes_per_node(run)
    if run.spec.nodes == 1 and processes == 1:
        return {}
    leader = "127.0.0.1"
    if run.spec.nodes > 1:
        leader = job_set.leader(job_name) if run.spec.backend == "JobSet" else f"{job_name}-0.{service_name(run)}"
    return {NODES: str(run.spec.nodes), PROCESSES: str(processes), LEADER: leader}


def service_name(run: TrainingRun) -> str:
    """The headless Service that gives the pods of a run their host names: one for all its attempts."""
    return f"{run.metadata.name[:40].rstrip('-.')}-pods"


def service(run: TrainingRun, owner: Manifest) -> Manifest:
    """Pods find each other before they are ready: none is, until all have met."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service_name(run),
            "namespace": run.metadata.namespace,
            "labels": {**MANAGED_BY, LABEL + "training-run": run.metadata.name, LABEL + "component": "trainer"},
            "ownerReferences": [owner],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL + "training-run": run.metadata.name, LABEL + "component": "trainer"},
        },
    }
