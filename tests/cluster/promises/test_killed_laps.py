"""Two whole laps, one to a promotion and one to a rollback, with an operator that is killed at every transition.

They must end as golden/laps.json says. Their undisturbed twin takes as long again, and is a target of its own (`make test-kill`): it must
end so too, and both make the same artifacts, bit by bit. FLYWHEEL_GOLDEN=write lets the twin write the file.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dev.demo import children, kube
from tests.cluster.promises import laps
from tests.cluster.promises.conftest import furnished
from tests.cluster.promises.operator_pod import OperatorPod
from tests.cluster.promises.reaper import Reaper, reaper
from tests.cluster.promises.users import Reply
from tests.differences import differences

pytestmark = pytest.mark.cluster
CALM, KILLED = "laps-calm", "laps-killed"
GOLDEN = Path(__file__).parent / "golden" / "laps.json"
LASTING = {  # what only something outside ends: a pod, users, a clock. Other phases may pass between two looks at an object.
    *(("Flywheel", "Serving"), ("TrainingRun", "Running"), ("TrainingRun", "Succeeded"), ("RewardModel", "Training")),
    *(("RewardModel", "Ready"), ("Generation", "Training"), ("Generation", "RollingOut"), ("Generation", "Promoted")),
    *(("Generation", "RolledBack"), ("Rollout", "Preparing"), ("Rollout", "Progressing"), ("Rollout", "Watching")),
    *(("Rollout", "Promoted"), ("Rollout", "RolledBack")),
}


@dataclass
class Lived:
    """Two laps in one namespace."""

    outcome: dict[str, Any]
    replies: list[Reply]
    restarts: dict[str, int]
    doubles: list[str]
    watched: Reaper = field(default_factory=Reaper)


def live(namespace: str, operator: OperatorPod, *, kill: bool) -> Lived:
    """Both laps in a namespace of their own, which is gone afterwards: four models in service are all that this machine should carry."""
    with furnished(namespace) as store:
        began = time.monotonic()
        laps.serve(namespace, store)
        serving = time.monotonic()
        with reaper(namespace, operator, kill=kill) as watched:
            replies = laps.run(namespace, store)
            kube.wait("both services to settle", lambda: laps.settled(namespace), timeout=180)
            outcome = laps.outcome_at_rest(namespace)
        operator.ready()
        ended = time.monotonic()
        print(f"\n{namespace}: champions after {serving - began:.0f} s, both laps in {ended - serving:.0f} s,", end=" ")
        print(f"{len(replies)} requests, {len(watched.transitions)} transitions, {watched.kills} deaths of the operator")
        return Lived(outcome, replies, laps.restarts(namespace), children.doubles(namespace), watched)


@pytest.fixture(scope="module")
def calm(operator: OperatorPod) -> Lived:
    """The laps as they go when nothing happens to the operator."""
    lived = live(CALM, operator, kill=False)
    if os.environ.get("FLYWHEEL_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(laps.on_any_machine(lived.outcome), indent=1) + "\n")
    return lived


@pytest.fixture(scope="module")
def killed(operator: OperatorPod) -> Lived:
    """The same with an operator that survives no transition."""
    return live(KILLED, operator, kill=True)


def _as_written_down(lived: Lived) -> None:
    assert list(differences(json.loads(GOLDEN.read_text()), laps.on_any_machine(lived.outcome))) == []
    assert (lived.restarts, lived.doubles) == ({}, [])
    assert len(lived.replies) >= 100
    assert [reply for reply in lived.replies if reply["status"] != 200] == []


def test_the_laps_that_are_written_down_end_in_a_promotion_and_a_rollback() -> None:
    ends = {name: (end["phase"], *end["decision"]) for name, end in json.loads(GOLDEN.read_text())["objects"].items() if "decision" in end}
    assert ends == {
        "Generation wanted-lap": ("Promoted", "Promoted", "Promoted"),
        "Generation unwanted-lap": ("RolledBack", "RolledBack", "RolledBack"),
        "Rollout wanted-lap-rollout-#": ("Promoted", "Promote", "SuccessProven"),
        "Rollout unwanted-lap-rollout-#": ("RolledBack", "Rollback", "GuardrailHarm"),
    }


def test_an_operator_that_is_killed_at_every_transition_changes_no_end_no_name_no_count_and_no_decision(killed: Lived) -> None:
    _as_written_down(killed)


def test_the_operator_did_die_in_every_phase_that_lasts(killed: Lived) -> None:
    """The laps share the operator, so one death may follow several transitions."""
    assert killed.watched.kills >= 12
    met = {(t.kind, t.after.phase) for t in killed.watched.transitions}
    assert LASTING - met == set()


@pytest.mark.twin
def test_undisturbed_the_laps_end_in_the_same_way(calm: Lived) -> None:
    assert calm.watched.kills == 0
    _as_written_down(calm)


@pytest.mark.twin
def test_both_twins_make_the_same_artifacts(calm: Lived, killed: Lived) -> None:
    assert list(differences(calm.outcome, killed.outcome)) == []
