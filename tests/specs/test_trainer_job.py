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


@pytest.mark.parametrize(("name", "spec"), [("trainer_job", {}), ("trainer_job_gpu", GPU)])
def test_manifests_are_the_golden_ones(name: str, spec: dict[str, Any]) -> None:
    path, made = GOLDEN / f"{name}.yaml", manifests(**spec)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump_all(json.loads(json.dumps(made)), sort_keys=False, width=140))
    assert list(yaml.safe_load_all(path.read_text())) == made


def test_the_job_runs_one_pod_and_leaves_retries_to_the_operator() -> None:
    job = manifests()[1]["spec"]
    assert (job["backoffLimit"], job["podReplacementPolicy"], job["template"]["spec"]["restartPolicy"]) == (0, "Failed", "Never")
    assert job["podFailurePolicy"]["rules"][0]["action"] == "Ignore"


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
