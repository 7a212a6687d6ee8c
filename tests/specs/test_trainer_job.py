"""Manifests of a training attempt. `UPDATE_GOLDEN=1 pytest tests/specs/test_trainer_job.py` rewrites the golden files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel.api.training_run import Inputs
from flywheel.plan.base import Defaults
from flywheel.plan.references import resolve_inputs
from flywheel.specs.pods import InvalidPodTemplate, overlay
from flywheel.specs.trainer_job import run_config, suspend_patch, trainer_job
from tests.builders import DIGEST, make_training_run, uri

GOLDEN = Path(__file__).parent / "golden"
GPU = {
    "image": "registry/trainer:2",
    "gpusPerNode": 8,
    "resources": {"requests": {"cpu": 16}, "limits": {"memory": "200Gi"}},
    "deadline": "36h",
    "suspend": True,
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"gpu": "h100"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "priorityClassName": "training",
    "storage": {"uri": "s3://bucket/flywheel", "credentialsSecretRef": {"name": "s3"}},
    "adapter": {"rank": 8, "alpha": 16},
    "podTemplate": {
        "metadata": {"annotations": {"team": "ml"}, "labels": {"modelflywheel.dev/attempt": "77", "team": "ml"}},
        "spec": {
            "containers": [
                {"name": "trainer", "env": [{"name": "OMP_NUM_THREADS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
                {"name": "sidecar", "image": "proxy:1"},
            ],
            "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}}],
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "hostNetwork": None,
        },
    },
}


def manifests(**spec: Any) -> list[dict[str, Any]]:
    run = make_training_run(
        "g1-sft", labels={"modelflywheel.dev/generation": "g1", "app": "x"}, parameters={"maxSteps": 50}, seed=17, **spec
    )
    inputs = resolve_inputs(run.spec, {})
    assert isinstance(inputs, Inputs)
    return trainer_job(run, attempt=2, job_name="g1-sft-a2-0a1b2c3d", config=run_config(run, inputs, 2), defaults=Defaults())


CASES: dict[str, dict[str, Any]] = {
    "trainer_job": {},
    "trainer_job_gpu": GPU,
    "trainer_job_nodes": {"nodes": 4, "gpusPerNode": 8, "deadline": "36h"},
    "trainer_job_set": {"nodes": 4, "gpusPerNode": 8, "backend": "JobSet", "queueName": "gpus", "deadline": "36h"},
    "trainer_job_custom": {
        "method": "Custom",
        "image": "registry/mine:1",
        "custom": {"command": ["/train"], "args": ["--nodes", "$(FLYWHEEL_NODES)"]},
        "nodes": 2,
        "queueName": "gpus",
    },
}


@pytest.mark.parametrize(("name", "spec"), CASES.items())
def test_manifests_are_the_golden_ones(name: str, spec: dict[str, Any]) -> None:
    path, made = GOLDEN / f"{name}.yaml", manifests(**spec)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump_all(json.loads(json.dumps(made)), sort_keys=False, width=140))
    assert list(yaml.safe_load_all(path.read_text())) == made


def test_the_job_runs_one_pod_and_leaves_retries_to_the_operator() -> None:
    assert len(manifests()) == 2
    job = manifests()[1]["spec"]
    assert (job["backoffLimit"], job["podReplacementPolicy"], job["template"]["spec"]["restartPolicy"]) == (0, "Failed", "Never")
    assert job["podFailurePolicy"]["rules"][0]["action"] == "Ignore"


def test_one_lost_pod_of_many_ends_the_job_and_a_lone_one_is_replaced() -> None:
    action = {nodes: manifests(nodes=nodes)[-1]["spec"]["podFailurePolicy"]["rules"][0]["action"] for nodes in (1, 2)}
    assert action == {1: "Ignore", 2: "FailJob"}


@pytest.mark.parametrize("backend", ["Job", "JobSet"])
def test_the_leaders_host_name_is_the_one_that_its_pod_will_have(backend: str) -> None:
    """<Job>-<index>.<Service> of an Indexed Job; <JobSet>-<replicated job>-<job>-<pod>.<subdomain> of a JobSet."""
    made = manifests(nodes=2, backend=backend)
    pod = (made[-1]["spec"] if backend == "Job" else made[-1]["spec"]["replicatedJobs"][0]["template"]["spec"])["template"]["spec"]
    leader = next(entry["value"] for entry in pod["containers"][0]["env"] if entry["name"] == "FLYWHEEL_LEADER")
    if backend == "Job":
        service = made[1]
        assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
        assert pod["subdomain"] == service["metadata"]["name"]
        assert leader == f"g1-sft-a2-0a1b2c3d-0.{service['metadata']['name']}"
    else:
        assert made[-1]["spec"]["network"]["subdomain"] == "g1-sft-a2-0a1b2c3d"
        assert leader == "g1-sft-a2-0a1b2c3d-node-0-0.g1-sft-a2-0a1b2c3d"


def test_the_service_finds_the_pods_of_every_attempt() -> None:
    _, service, job = manifests(nodes=2)
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_what_a_queue_admits_begins_suspended_and_only_the_job_carries_the_queue() -> None:
    job = manifests(queueName="gpus")[-1]
    assert (job["spec"]["suspend"], job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]) == (True, "gpus")
    made = manifests(queueName="gpus", backend="JobSet")[-1]
    assert (made["spec"]["suspend"], made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]) == (True, "gpus")
    inner = made["spec"]["replicatedJobs"][0]["template"]
    assert "suspend" not in inner["spec"]
    assert "kueue.x-k8s.io/queue-name" not in inner["metadata"]["labels"] | inner["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize(
    ("spec", "processes"),
    [({"gpusPerNode": 4}, 4), ({"nodes": 2}, 1), ({"method": "Evaluate", "opponent": uri("champion"), "gpusPerNode": 4}, None)],
)
def test_a_process_is_started_for_each_gpu_where_the_method_trains_with_several(spec: dict[str, Any], processes: int | None) -> None:
    command = manifests(**spec)[-1]["spec"]["template"]["spec"]["containers"][0]["command"]
    if processes is None:
        assert command[3] == "run"
    else:
        assert command[command.index("--processes-per-node") + 1] == str(processes)


def test_run_json_does_not_depend_on_how_many_pods_read_it() -> None:
    """Else another number of nodes would not go on from the checkpoint of this one."""
    inputs = resolve_inputs(make_training_run().spec, {})
    assert isinstance(inputs, Inputs)
    assert run_config(make_training_run(), inputs, 1) == run_config(make_training_run(nodes=4, backend="JobSet", queueName="q"), inputs, 1)


def test_nobody_but_the_user_of_the_store_runs_and_nothing_but_volumes_can_be_written() -> None:
    spec = manifests()[1]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["automountServiceAccountToken"] is False
    security = spec["containers"][0]["securityContext"]
    assert security == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}


def test_run_json_is_what_the_trainers_read() -> None:
    run = make_training_run(
        method="GRPO",
        opponent=uri("champion"),
        rewards=[{"name": "judge", "from": uri("rm"), "role": "Judge"}],
        adapter={"rank": 8, "alpha": 16},
    )
    inputs = resolve_inputs(run.spec, {})
    assert isinstance(inputs, Inputs)
    config = run_config(run, inputs, 1)
    assert config["rewards"] == [{"name": "judge", "role": "Judge", "uri": "file:///flywheel/rm", "digest": DIGEST, "weight": 1.0}]
    assert config["checkpoint"]["uri"].startswith("file:///flywheel/checkpoints/uid-of-sft/")
    assert {key: config["checkpoint"][key] for key in ("everySteps", "keep")} == {"everySteps": 50, "keep": 2}
    assert "pool" not in config
    trainers = pytest.importorskip("flywheel_trainers.config")
    parsed = trainers.parse(json.loads(json.dumps(config)))
    assert (parsed.method, parsed.opponent.uri, parsed.adapter.rank) == ("GRPO", "file:///flywheel/champion", 8)


def test_suspending_names_the_one_job_it_means() -> None:
    assert suspend_patch(make_training_run(), "job", "uid-7", True)["metadata"] == {"name": "job", "namespace": "demo", "uid": "uid-7"}


# -------------------------------------------------------------------------------------------------------------- overlay

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {"containers": [{"name": "main", "image": "i", "env": [{"name": "X", "value": "1"}]}], "volumes": []},
}


@pytest.mark.parametrize(
    ("additions", "expected"),
    [
        ({}, TEMPLATE["spec"]["containers"]),
        (
            {"spec": {"containers": [{"name": "main", "env": [{"name": "Y", "value": "2"}]}]}},
            [{"name": "main", "image": "i", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}],
        ),
        ({"spec": {"containers": [{"name": "main", "image": None}]}}, [{"name": "main", "env": [{"name": "X", "value": "1"}]}]),
        (
            {"spec": {"containers": [{"name": "main", "args": ["-v"]}]}},
            [{"name": "main", "image": "i", "env": [{"name": "X", "value": "1"}], "args": ["-v"]}],
        ),
        ({"spec": {"containers": [{"name": "other"}]}}, [*TEMPLATE["spec"]["containers"], {"name": "other"}]),
    ],
)
def test_additions_are_merged_by_name(additions: dict[str, Any], expected: list[Any]) -> None:
    before = json.dumps(TEMPLATE)
    assert overlay(TEMPLATE, additions)["spec"]["containers"] == expected
    assert json.dumps(TEMPLATE) == before


@pytest.mark.parametrize("additions", [{"spce": {}}, {"spec": 3}, {"metadata": {"labels": []}}, {"spec": {"containers": [7]}}])
def test_additions_that_do_not_fit_are_refused(additions: dict[str, Any]) -> None:
    with pytest.raises(InvalidPodTemplate, match="podTemplate"):
        overlay(TEMPLATE, additions)


def test_a_run_of_a_flywheel_says_whose_it_is_and_goes_on_from_the_same_checkpoints() -> None:
    spec: dict[str, Any] = {"method": "Record", "model": None, "datasets": []}
    labels = {"modelflywheel.dev/flywheel": "companion"}
    before, after = (run_config(one, Inputs(), 1) for one in (make_training_run(**spec), make_training_run(labels=labels, **spec)))
    assert after["run"] == {**before["run"], "flywheel": "companion"}
    assert {**after, "run": None} == {**before, "run": None}
