"""The operator keeps nothing to itself: it may die at any moment, and it stays small."""

from __future__ import annotations

import pytest

from tests.cluster.promises.operator_pod import OperatorPod
from tests.cluster.promises.space import Watched, children, status

pytestmark = pytest.mark.cluster
LIMIT = 150.0  # MiB


def test_an_operator_that_is_killed_during_a_run_makes_no_second_job(trained: Watched) -> None:
    (attempt,) = status(trained.last)["attempts"]
    jobs = children("jobs", "modelflywheel.dev/training-run=trained")
    assert [job["metadata"]["uid"] for job in jobs] == [attempt["jobUid"]]
    seen = {status(body)["attempts"][0].get("jobUid") for body in trained.seen if status(body).get("attempts")}
    assert seen - {None} == {attempt["jobUid"]}
    assert len(children("pods", "modelflywheel.dev/training-run=trained")) == 1


def test_the_operator_is_small_and_has_never_restarted(operator: OperatorPod) -> None:
    operator.no_restarts()
    resident = operator.resident_mebibytes()
    print(f"\nthe operator's main process takes {resident:.0f} MiB of resident memory")
    assert resident <= LIMIT
