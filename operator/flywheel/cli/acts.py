"""What pause, resume, abort and retry change, and where they make no sense. Pure: an object in, a patch or a sentence out."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from flywheel.api.base import format_time
from flywheel.api.generation import TERMINAL_GENERATION_PHASES
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES
from flywheel.cli.errors import Problem
from flywheel.cli.reading import Body, controller, dig, name, phase, text, title
from flywheel.plan.base import LABEL

RETRY = LABEL + "retry"
ENDED = {
    "Generation": TERMINAL_GENERATION_PHASES,
    "Rollout": TERMINAL_ROLLOUT_PHASES,
    "TrainingRun": ("Succeeded", "Failed"),
    "RewardModel": ("Ready", "Failed"),
}
SUCCESS = ("Promoted", "Completed", "Succeeded", "Ready")


@dataclass(frozen=True)
class Act:
    """A merge patch, and what to say of it. Without a patch everything is already as asked."""

    said: str
    patch: dict[str, Any] | None = None


def pause(body: Body) -> Act:
    """spec.suspend: true."""
    _on_its_own(body, "pause")
    if dig(body, "spec.suspend") is True:
        return Act(f"{title(body)} is paused already.")
    if _has_ended(body):
        raise Problem(f"{title(body)} has ended ({phase(body)}): there is nothing to pause.")
    if text(body, "kind") == "Rollout" and dig(body, "status.decision"):
        verdict = text(body, "status.decision.verdict")
        raise Problem(f"{title(body)} is decided ({verdict}): a pause keeps nothing back that is decided; it ends by itself.")
    return Act(f"{title(body)} is paused: {_PAUSED[text(body, 'kind')]}.", {"spec": {"suspend": True}})


_PAUSED = {
    "Flywheel": "no lap is started; serving goes on, and so does a lap that runs",
    "Generation": "nothing new starts, and what runs stops after a checkpoint",
    "TrainingRun": "its pod stops after a checkpoint",
    "RewardModel": "its training stops after a checkpoint",
    "Rollout": "weights stay as they are and nothing is decided; hard limits still act",
}


def resume(body: Body) -> Act:
    """spec.suspend: false."""
    _on_its_own(body, "resume")
    if dig(body, "spec.suspend") is not True:
        return Act(f"{title(body)} is not paused.")
    return Act(f"{title(body)} goes on.", {"spec": {"suspend": False}})


def abort(body: Body) -> Act:
    """spec.abort: true, on a Rollout that can still be called off."""
    if text(body, "kind") != "Rollout":
        rollout = text(body, "status.rollout")
        mend = f"abort rollout/{rollout}" if rollout else f"pause it: `kubectl flywheel pause {_ref(body)}`"
        raise Problem(f"Only a Rollout can be aborted, and {title(body)} is none; {mend}.")
    verdict, cut_over = text(body, "status.decision.verdict"), text(body, "status.cutoverTime")
    if verdict and (verdict != "Promote" or cut_over):
        where = "all users have the candidate" if verdict == "Promote" else "all users get the baseline anyhow"
        undo = (
            f"; to return to {text(body, 'spec.baseline.generation')}, ask users again with it as the candidate"
            if verdict == "Promote"
            else ""
        )
        raise Problem(f"{title(body)} is decided ({verdict}): {where}{undo}.")
    if dig(body, "spec.abort") is True:
        return Act(f"{title(body)} is being aborted already.")
    return Act(f"{title(body)} is aborted: all users return to {text(body, 'spec.baseline.generation')} now.", {"spec": {"abort": True}})


def retry(body: Body, now: dt.datetime) -> Act:
    """A new value of the annotation modelflywheel.dev/retry, on something that has ended badly."""
    _on_its_own(body, "retry")
    if text(body, "kind") == "Flywheel":
        return _begin_anew(body, now)
    if phase(body) in SUCCESS:
        raise Problem(f"{title(body)} has ended well ({phase(body)}): a retry would change nothing; create another one.")
    if not _has_ended(body):
        raise Problem(f"{title(body)} is {phase(body)} and goes on by itself; only what has ended badly can be retried.")
    if dig(body, "spec.abort") is True:
        raise Problem(f"{title(body)} has spec.abort: true and would be aborted again; set it to false first.")
    paused = f" It is paused: `kubectl flywheel resume {_ref(body)}` lets it start." if dig(body, "spec.suspend") is True else ""
    return Act(f"{title(body)} is tried again.{paused}", {"metadata": {"annotations": {RETRY: format_time(now)}}})


def _begin_anew(body: Body, now: dt.datetime) -> Act:
    """A Flywheel does not end; what it can be asked is to forget the laps that ended badly."""
    failures = dig(body, "status.consecutiveFailures")
    if not failures:
        raise Problem(
            f"{title(body)} does not end, and no lap of it ended badly last; retry its Generation, TrainingRun, RewardModel or Rollout."
        )
    told = f"{title(body)} forgets {failures} laps that ended badly: the next one starts when its trigger says so."
    return Act(told, {"metadata": {"annotations": {RETRY: format_time(now)}}})


def _ref(body: Body) -> str:
    return f"{text(body, 'kind').lower()}/{name(body)}"


def _has_ended(body: Body) -> bool:
    return phase(body) in ENDED.get(text(body, "kind"), ())


def _on_its_own(body: Body, verb: str) -> None:
    """A Generation or RewardModel hands spec.suspend and the retry down to what it owns, and would undo what is set below it."""
    owner = controller(body)
    if owner is not None and owner[0] != "Flywheel":
        raise Problem(f"{title(body)} belongs to {owner[0]} {owner[1]}, which decides this for it; {verb} {owner[0].lower()}/{owner[1]}.")
