"""RewardModel: whether it may be used, and how far its training is."""

from __future__ import annotations

from flywheel.cli.explain.story import Subject
from flywheel.cli.explain.training_run import tell_progress
from flywheel.cli.reading import condition, controller, dig, name, number, phase, text, when
from flywheel.cli.words import ago


def explain_reward_model(subject: Subject) -> None:
    """By its Ready condition."""
    if subject.tell_new():
        return
    body = subject.body
    subject.headline = f"RewardModel {name(body)} is {phase(body)}."
    owner = controller(body)
    if owner:
        subject.why.append(f"it belongs to {owner[0]} {owner[1]}")
    subject.tell_condition("Ready")
    reason = text(condition(body, "Ready"), "reason")
    metric, least = text(body, "spec.validation.metric") or "accuracy_lower", number(body, "spec.validation.minimum")
    value = number(dig(body, "status.metrics"), metric)
    if value is not None:
        subject.numbers.append((metric, f"{value:.4g}", f"must be at least {least:g}" if least is not None else ""))
    if phase(body) == "Ready":
        ready = when(body, "status.readyTime")
        subject.next.append("Whatever names it may use it" + (f", since {ago(ready, subject.now)}." if ready else "."))
        return
    run = text(body, "status.trainingRun")
    if phase(body) == "Training":
        tell_progress(subject, subject.find("TrainingRun", run) or body)
        subject.next.append(
            f"TrainingRun {run} trains it; then {metric} is checked; `kubectl flywheel explain trainingrun/{run}` tells more."
        )
    else:
        subject.heed(reason)
    if phase(body) == "Failed" and owner is None:
        subject.mend.append(f"`kubectl flywheel retry rewardmodel/{name(body)}` once the cause is mended.")
    if subject.suspended():
        subject.tell_suspended()
