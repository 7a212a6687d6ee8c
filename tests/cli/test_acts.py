"""What people may tell the operator, and the sentence they get where it makes no sense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flywheel.cli import acts
from flywheel.cli.errors import Problem
from tests.cli.recorded import NOW, Object, asking_rollout, recorded, run, running_lap


def alone(body: Object, **spec: Any) -> Object:
    """An object that belongs to nobody."""
    body["metadata"].pop("ownerReferences", None)
    body["spec"] |= spec
    return body


def retry(body: Object) -> acts.Act:
    return acts.retry(body, NOW)


def test_pause_and_resume_change_suspend() -> None:
    assert acts.pause(running_lap()).patch == {"spec": {"suspend": True}}
    assert acts.resume(alone(running_lap(), suspend=True)).patch == {"spec": {"suspend": False}}
    assert "no lap is started; serving goes on" in acts.pause(recorded("Flywheel", "companion")).said


def test_what_is_as_asked_already_is_left_alone_and_is_no_error() -> None:
    assert acts.pause(alone(running_lap(), suspend=True)).patch is None
    assert acts.resume(running_lap()).patch is None
    assert acts.abort(alone(asking_rollout(), abort=True)).patch is None


def test_abort_sends_users_back_while_that_is_possible() -> None:
    promoting = asking_rollout(phase="Promoting", decision={"verdict": "Promote", "reason": "SuccessProven"})
    for body in (asking_rollout(), promoting):
        act = acts.abort(body)
        assert act.patch == {"spec": {"abort": True}}
        assert "all users return to companion-initial now" in act.said


def test_retry_is_a_new_value_of_the_annotation() -> None:
    act = retry(recorded("Generation", "companion-2"))
    assert act.patch == {"metadata": {"annotations": {"modelflywheel.dev/retry": "2026-11-24T23:25:00.000000Z"}}}


def test_a_retry_of_what_is_paused_says_how_to_let_it_start() -> None:
    assert "`kubectl flywheel resume trainingrun/companion-2-rl-be0ad8e6`" in retry(alone(run("Failed"), suspend=True)).said


def test_a_flywheel_that_is_retried_forgets_its_failures() -> None:
    body = recorded("Flywheel", "companion")
    body["status"]["consecutiveFailures"] = 4
    act = retry(body)
    assert act.patch == {"metadata": {"annotations": {"modelflywheel.dev/retry": "2026-11-24T23:25:00.000000Z"}}}
    assert "forgets 4 laps that ended badly" in act.said


NONSENSE: dict[str, tuple[Callable[[Object], acts.Act], Object, str]] = {
    "pausing a lap that has ended": (acts.pause, recorded("Generation", "companion-2"), "has ended (Rejected): there is nothing to pause"),
    "pausing a decided rollout": (
        acts.pause,
        alone(asking_rollout(phase="RollingBack", decision={"verdict": "Rollback"})),
        "is decided (Rollback): a pause keeps nothing back",
    ),
    "pausing a run below its lap": (acts.pause, run("Running"), "belongs to Generation companion-2, which decides this for it"),
    "resuming a rollout below its lap": (acts.resume, asking_rollout(), "resume generation/companion-1"),
    "aborting a promoted rollout": (
        acts.abort,
        recorded("Rollout", "companion-1"),
        "is decided (Promote): all users have the candidate; to return to companion-initial, ask users again",
    ),
    "aborting a rolled back rollout": (acts.abort, recorded("Rollout", "companion-3"), "is decided (Rollback): all users get the baseline"),
    "aborting a lap with a rollout": (acts.abort, recorded("Generation", "companion-1"), "abort rollout/companion-1-rollout-f250148c"),
    "aborting a lap without one": (acts.abort, running_lap(), "pause it: `kubectl flywheel pause generation/companion-2`"),
    "retrying a success": (retry, recorded("Generation", "companion-1"), "has ended well (Promoted)"),
    "retrying what runs": (retry, running_lap(), "is Training and goes on by itself"),
    "retrying a flywheel": (retry, recorded("Flywheel", "companion"), "does not end, and no lap of it ended badly last"),
    "retrying what would be aborted again": (retry, alone(recorded("Rollout", "companion-3"), abort=True), "set it to false first"),
    "retrying a run below its lap": (retry, run("Failed"), "retry generation/companion-2"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_refused_with_a_sentence(case: str) -> None:
    act, body, words = NONSENSE[case]
    with pytest.raises(Problem) as refusal:
        act(body)
    assert words in str(refusal.value)
    assert refusal.value.code == 1
