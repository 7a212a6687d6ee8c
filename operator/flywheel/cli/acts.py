"""What the acting commands change, and where they make no sense. Pure: an object in, a patch or a sentence out."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from flywheel.api.base import format_time
from flywheel.api.generation import ROLLOUT, TERMINAL_GENERATION_PHASES
from flywheel.api.names import RETRY, RETRY_STAGE
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES
from flywheel.cli.errors import UNANSWERED, Problem
from flywheel.cli.reading import Body, controller, dig, items, name, phase, text, title

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


def retry(body: Body, now: dt.datetime, stage: str | None = None) -> Act:
    """A new value of the annotation modelflywheel.dev/retry, on something that has ended badly; of a lap perhaps for one stage alone."""
    _on_its_own(body, "retry")
    if text(body, "kind") == "Flywheel":
        return _begin_anew(body, now)
    if phase(body) in SUCCESS:
        raise Problem(f"{title(body)} has ended well ({phase(body)}): a retry would change nothing; create another one.")
    if not _has_ended(body):
        raise Problem(f"{title(body)} is {phase(body)} and goes on by itself; only what has ended badly can be retried.")
    if dig(body, "spec.abort") is True:
        raise Problem(f"{title(body)} has spec.abort: true and would be aborted again; set it to false first.")
    if dig(body, "spec.promote") is not None:
        raise Problem(f"{title(body)} has spec.promote and would be promoted at once; remove it first.")
    paused = f" It is paused: `kubectl flywheel resume {_ref(body)}` lets it start." if dig(body, "spec.suspend") is True else ""
    notes = {RETRY: format_time(now)}
    if text(body, "kind") != "Generation":
        if stage is not None:
            raise Problem(f"{title(body)} has no stages; leave out --stage.")
        return Act(f"{title(body)} is tried again.{paused}", {"metadata": {"annotations": notes}})
    known = [text(s, "name") for s in items(body, "status.stages") if s.get("phase") != "Skipped"]
    if stage is not None and stage not in known:
        raise Problem(f"{title(body)} runs no stage {stage}; its stages are {', '.join(known) or 'not known yet'}.")
    what = f"Stage {stage} of {title(body)} is tried again, and what depends on it" if stage else f"{title(body)} is tried again"
    return Act(f"{what}.{paused}", {"metadata": {"annotations": {**notes, RETRY_STAGE: stage}}})  # null takes an earlier wish away


@dataclass(frozen=True)
class Word:
    """What a person says of a lap's result."""

    by: str
    reject: bool = False
    comment: str = ""
    stage: str | None = None


def approve(body: Body, word: Word, now: dt.datetime) -> Act:
    """An entry in spec.approvals about the result that waits for a person."""
    if text(body, "kind") != "Generation":
        raise Problem(
            f"Only a Generation waits for approval, and {title(body)} is none; for a Rollout there is `kubectl flywheel promote`."
        )
    stage, digest = _question(body, word.stage)
    said = "Reject" if word.reject else "Approve"
    entry = {"stage": stage, "digest": digest, "decision": said, "by": word.by, "comment": word.comment, "time": format_time(now)}
    earlier = items(body, "spec.approvals")
    mine = [a for a in earlier if (a.get("stage"), a.get("digest")) == (stage, digest)]
    what = "its rollout" if stage == ROLLOUT else f"stage {stage}"
    verb, then = ("rejected", "the lap ends") if word.reject else ("approved", "the lap goes on")
    if any(a.get("decision") == said for a in mine):
        return Act(f"{what[0].upper()}{what[1:]} of {title(body)} ({digest[:15]}…) is {verb} already, by {text(mine[0], 'by')}.")
    approvals = [dict(a) for a in earlier if a not in mine]
    # The list is written as a whole, so that nobody's word may have come in between.
    fence = {"resourceVersion": text(body, "metadata.resourceVersion")}
    told = f"{what[0].upper()}{what[1:]} of {title(body)} ({digest[:15]}…) is {verb} by {word.by}: {then}."
    return Act(told, {"metadata": fence, "spec": {"approvals": [*approvals, entry]}})


def _question(body: Body, stage: str | None) -> tuple[str, str]:
    """(stage, digest) of what waits for a person; `rollout` is the lap's model."""
    waiting = {text(s, "name"): text(s, "artifact.digest") for s in items(body, "status.stages") if s.get("phase") == "AwaitingApproval"}
    if phase(body) == "AwaitingApproval" and not waiting:
        waiting[ROLLOUT] = text(body, "status.model.digest")
    if _has_ended(body):
        mend = f"; `kubectl flywheel retry {_ref(body)}` lets it ask again" if phase(body) not in SUCCESS else ""
        raise Problem(f"{title(body)} has ended ({phase(body)}): there is nothing to approve{mend}.")
    if not waiting:
        raise Problem(
            f"{title(body)} is {phase(body)} and waits for nobody's approval; `kubectl flywheel explain {_ref(body)}` says for what."
        )
    if stage is not None and stage not in waiting:
        raise Problem(f"Stage {stage} of {title(body)} does not wait for approval; {', '.join(waiting)} does.")
    if stage is None and len(waiting) > 1:
        raise Problem(f"{len(waiting)} stages of {title(body)} wait for approval; give --stage {' or --stage '.join(waiting)}.")
    chosen = stage or next(iter(waiting))
    return chosen, waiting[chosen]


def promote(body: Body, by: str, reason: str) -> Act:
    """spec.promote, on a Rollout that is not decided yet."""
    if text(body, "kind") != "Rollout":
        raise Problem(f"Only a Rollout can be promoted, and {title(body)} is none; its lap's Rollout is named in status.rollout.")
    candidate = text(body, "spec.candidate.generation")
    if verdict := text(body, "status.decision.verdict"):
        raise Problem(f"{title(body)} is decided ({verdict}); a promotion by hand comes too late. Another Rollout may ask anew.")
    if dig(body, "spec.abort") is True:
        raise Problem(f"{title(body)} is being aborted (spec.abort: true), which is stronger; set it to false first.")
    if dig(body, "spec.promote") is not None:
        return Act(f"{title(body)} is being promoted already, by {text(body, 'spec.promote.by')}.")
    if not reason.strip():
        raise Problem("A promotion by hand needs a reason, which is kept with the decision; give --reason.", UNANSWERED)
    wish = {"digest": text(body, "spec.candidate.digest"), "by": by, "reason": reason}
    told = f"{title(body)} is promoted by {by}: all users get {candidate} as soon as a pod of it is ready, unless it breaks a hard limit."
    return Act(told, {"spec": {"promote": wish}})


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
