"""Two whole laps, one to a promotion and one to a rollback, undisturbed and with an operator that is killed at every transition."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from dev.demo import children, kube
from tests.cluster.promises import laps
from tests.cluster.promises.conftest import furnished
from tests.cluster.promises.operator_pod import OperatorPod
from tests.cluster.promises.reaper import Reaper, reaper
from tests.cluster.promises.users import Reply

pytestmark = pytest.mark.cluster
CALM, KILLED = "laps-calm", "laps-killed"


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
    return live(CALM, operator, kill=False)


@pytest.fixture(scope="module")
def killed(calm: Lived, operator: OperatorPod) -> Lived:
    """The same with an operator that survives no transition."""
    return live(KILLED, operator, kill=True)


def test_undisturbed_one_lap_is_promoted_and_the_other_rolled_back(calm: Lived) -> None:
    ends = {name: (end["phase"], end["decision"]) for name, end in calm.outcome["objects"].items() if name.startswith("Rollout")}
    assert sorted(ends.values()) == [("Promoted", ["Promote", "SuccessProven"]), ("RolledBack", ["Rollback", "GuardrailHarm"])], ends
    assert (calm.restarts, calm.doubles) == ({}, [])


def test_an_operator_that_is_killed_at_every_transition_changes_no_end_no_name_no_count_and_no_decision(calm: Lived, killed: Lived) -> None:
    assert list(laps.differences(calm.outcome, killed.outcome)) == []
    assert (killed.restarts, killed.doubles) == ({}, [])


def test_the_operator_did_die_at_every_kind_of_transition(calm: Lived, killed: Lived) -> None:
    assert killed.watched.kills >= 20
    passed, met = ({(t.kind, t.after.phase) for t in lived.watched.transitions} for lived in (calm, killed))
    print(f"\nphases in which it died: {sorted(met)}")
    assert met >= {phase for phase in passed if phase[1] in laps.LASTING}


def test_no_request_fails_while_the_operator_is_killed_again_and_again(calm: Lived, killed: Lived) -> None:
    for lived in (calm, killed):
        assert len(lived.replies) >= 100
        assert [reply for reply in lived.replies if reply["status"] != 200] == []
