"""An attempt as a JobSet (jobset.x-k8s.io): its controller makes the Job, the headless Service and the host names."""

from __future__ import annotations

from flywheel.specs.pods import Manifest

API_VERSION = "jobset.x-k8s.io/v1alpha2"
REPLICATED_JOB = "node"


def leader(name: str) -> str:
    """Host name of the pod with rank 0: <JobSet>-<replicated job>-<job>-<pod>.<subdomain>."""
    return f"{name}-{REPLICATED_JOB}-0-0.{name}"


def job_set(metadata: Manifest, marks: Manifest, job_spec: Manifest, *, suspend: bool) -> Manifest:
    """One replicated Job of all pods, with the labels and annotations of `marks`. The defaults of JobSet's webhook are spelt out, so that
    nothing depends on it."""
    template = {"metadata": {key: marks[key] for key in ("labels", "annotations")}, "spec": job_spec}
    return {
        "apiVersion": API_VERSION,
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "suspend": suspend,
            "network": {"enableDNSHostnames": True, "subdomain": metadata["name"], "publishNotReadyAddresses": True},
            "successPolicy": {"operator": "All"},
            "failurePolicy": {"maxRestarts": 0},  # the operator retries, after it has read why
            "startupPolicy": {"startupPolicyOrder": "AnyOrder"},
            "replicatedJobs": [{"name": REPLICATED_JOB, "replicas": 1, "template": template}],
        },
    }
