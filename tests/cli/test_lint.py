"""`lint` says offline what the API server would say: about the same field, and where the rule is ours in the same words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from flywheel.cli.lint import lint
from flywheel.cli.lint_files import checked
from flywheel.plan.default_stages import default_stages
from tests.cluster.hostile_objects import HOSTILE
from tests.cluster.objects import Object, data, flywheel, generation, model, run, sft, spoilt, stage
from tests.cluster.test_bad_flywheels import FLYWHEEL_MISTAKES
from tests.cluster.test_bad_objects import MISTAKES
from tests.cluster.test_good_objects import EXAMPLES, MINIMAL

# The API server's own words, and lint's: neither are rules of ours.
OWN_WORDS = {
    "an approval of nothing": "is required; add it",
    "a promotion without a reason": "string should have at least 1 character",
    "a field is misspelt": "unknown field; did you mean 'datasets'?",
    "a method is unknown": "\"PPO\" is not valid: input should be 'Curate', 'Reward', 'RejectionSample'",
    "a number is a text": '"17" is not valid: input should be a valid integer',
    "a retention policy is unknown": "\"Always\" is not valid: input should be 'None' or 'Delete'",
    "two datasets have one name": 'duplicate value {"name": "train"}; rename or remove one',
    "two stages have one name": 'duplicate value {"name": "curate"}; rename or remove one',
    "an adapter has no rank": "0 is not valid: input should be greater than or equal to 1",
    "a gate's operator is a sign": "\">\" is not valid: input should be 'GreaterThan'",
    "a weight is above 50": "60 is not valid: input should be less than or equal to 50",
    "the base has no digest": "is required; add it",
    "a backoff waits for no failure": "0 is not valid: input should be greater than or equal to 1",
    "laps are to run side by side": "\"Allow\" is not valid: input should be 'Forbid' or 'Replace'",
    "a GPU budget is negative": "-1 is not valid: input should be greater than or equal to 0",
    "an adopted Deployment has no name": "is required; add it",
    "an adopted Deployment listens nowhere": "0 is not valid: input should be greater than or equal to 1",
}


@pytest.mark.parametrize("mistake", [*MISTAKES, *FLYWHEEL_MISTAKES])
def test_lint_agrees_with_the_api_server_on_every_typical_mistake(mistake: str) -> None:
    body, field, words = {**MISTAKES, **FLYWHEEL_MISTAKES}[mistake]
    (finding,) = lint(body)
    assert finding.path == field
    assert OWN_WORDS.get(mistake, words) in finding.message


@pytest.mark.parametrize("what", HOSTILE)
def test_lint_agrees_with_the_api_server_on_every_hostile_object(what: str) -> None:
    body, field, words, *own = HOSTILE[what]
    (finding,) = lint(body)
    assert finding.path == field
    assert (own[0] if own else words) in finding.message


@pytest.mark.parametrize("body", MINIMAL, ids=lambda body: f"{body['kind']} {body['spec'].get('method', '')}".strip())
def test_a_minimal_object_passes(body: Object) -> None:
    assert lint(body) == []


def test_the_default_stages_pass() -> None:
    assert lint(generation(*(one.dump() for one in default_stages()))) == []


def test_the_examples_pass() -> None:
    report = checked([EXAMPLES[0].parent])
    assert report.findings == []
    assert report.objects == len(EXAMPLES)


def test_a_field_of_the_code_is_no_field_of_the_wire() -> None:
    (finding,) = lint(sft(gpus_per_node=1))
    assert str(finding) == "spec.gpus_per_node: unknown field; did you mean 'gpusPerNode'?"


def test_stages_that_wait_for_each_other_are_found() -> None:
    circle = [
        {**stage("a", "Curate"), "dependsOn": ["b"]},
        {**stage("b", "Curate"), "dependsOn": ["a"]},
    ]
    for body, field in (
        (generation(*circle), "spec.stages"),
        (flywheel(generationTemplate={"stages": circle}), "spec.generationTemplate.stages"),
    ):
        assert [str(one) for one in lint(body)] == [f"{field}: stages a, b wait for each other; break the circle"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"apiVersion": "modelflywheel.dev/v2", "kind": "Flywheel"},
            "'modelflywheel.dev/v2' is not served; write modelflywheel.dev/v1alpha1",
        ),
        ({**sft(), "kind": "Trainingrun"}, "'Trainingrun' is unknown; write one of Flywheel, Generation, TrainingRun"),
        ({**sft(), "metadata": {}}, "metadata.name: is required"),
        ({**sft(), "spec": None}, "spec: null is not valid"),
        ({key: value for key, value in sft().items() if key != "spec"}, "spec"),
        (run("SFT", model=[], datasets={"train": 1}), "spec.model: [] is not valid"),
        (spoilt(sft(), "spec.model", "companion-1"), 'spec.model: "companion-1" is not valid'),
        (sft(datasets=[data("train"), 7]), "spec.datasets[1]: 7 is not valid"),
        (
            sft(parameters={"epochs": 3}, resources={"limits": {"memory": 4}}, model=model() | {"digest": 5}),
            "spec.model.digest: 5 is not valid",
        ),
    ],
)
def test_whatever_is_written_gets_a_finding_and_no_traceback(body: Object, words: str) -> None:
    assert words in "\n".join(str(finding) for finding in lint(body))


def test_a_rule_is_never_given_up_silently() -> None:
    """A value of a wrong type makes rules uncomputable; then something else must have been found, else that is told."""
    for spec in ({"stages": 3}, {"stages": [3]}, {"rollout": {"traffic": {"steps": 3}}}, {"rollout": {"analysis": {"window": 3}}}):
        assert lint(generation(**spec)), spec


def test_files_of_many_kinds_are_read_and_others_left_alone(tmp_path: Path) -> None:
    bad = spoilt(sft(), "spec.seed", "17")
    (tmp_path / "a.yaml").write_text(yaml.safe_dump_all([sft(), {"apiVersion": "v1", "kind": "Secret"}, None]))
    (tmp_path / "b.json").write_text(f'{{"kind": "List", "items": [{json.dumps(bad)}]}}')
    (tmp_path / "notes.txt").write_text("{{ not yaml")
    report = checked([tmp_path])
    assert (report.objects, report.others) == (2, 1)
    assert report.lines() == [
        f'{tmp_path}/b.json: TrainingRun/trial: spec.seed: "17" is not valid: input should be a valid integer',
        "2 objects checked, 1 findings; 1 documents of other kinds left alone",
    ]
