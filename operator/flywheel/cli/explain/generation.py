"""Generation: which stage it is at, what a gate said, how the users are asked, how it ended."""

from __future__ import annotations

from flywheel.cli.explain.rollout import next_of_rollout, tell_metrics
from flywheel.cli.explain.story import Subject
from flywheel.cli.reading import Body, condition, dig, items, name, number, phase, span, text, when
from flywheel.cli.words import ago, gate, percent, seconds


def explain_generation(subject: Subject) -> None:
    """A lap that runs, or the record of one that has ended."""
    if subject.tell_new():
        return
    if dig(subject.body, "status.decision"):
        _ended(subject)
    else:
        _running(subject)
    pinned = condition(subject.body, "SpecPinned")
    if text(pinned, "status") == "True":
        subject.next.append(f"An edit waits for the end of the lap ({text(pinned, 'message')}).")


def _ended(subject: Subject) -> None:
    body = subject.body
    decision = dig(body, "status.decision")
    decided, reason, message = when(decision, "time"), text(decision, "reason"), text(decision, "message")
    subject.headline = f"Generation {name(body)} has ended: {text(decision, 'verdict')}" + (
        f", {ago(decided, subject.now)}." if decided else "."
    )
    subject.tell_reason(reason, message)
    if parent := text(body, "status.parent.generation"):
        subject.why.append(f"the champion at its start was {parent}")
    for stage in items(body, "status.stages"):
        for result in items(stage, "gates"):
            if result.get("passed") is False:
                subject.numbers.append((f"gate of {text(stage, 'name')}", text(result, "onFailure"), gate(result)))
    rollout = subject.find("Rollout", text(body, "status.rollout"))
    if rollout:
        tell_metrics(subject, rollout)
    subject.heed(reason)
    cause = message.partition(":")[0]  # a verdict of the users is told as `GuardrailHarm: …`
    if cause in subject.advice and cause != reason:
        subject.heed(cause, next_too=False)
    if text(decision, "verdict") in ("Held", "Failed", "Rejected"):
        subject.next.append(
            "It starts again when its spec is edited or it is retried; what passed and has the same inputs is not run again."
        )
        subject.mend.append(f"`kubectl flywheel retry generation/{name(body)}` once the cause is mended.")


def _running(subject: Subject) -> None:
    body, now = subject.body, subject.now
    stages = items(body, "status.stages")
    stages = [s for s in stages if s.get("phase") != "Skipped"]
    passed = [s for s in stages if s.get("phase") == "Passed"]
    progress = f": {len(passed)} of {len(stages)} stages have passed" if stages else ""
    subject.headline = f"Generation {name(body)} is {phase(body)}{progress}."
    started, deadline = when(body, "status.startTime"), span(body, "spec.deadline")
    if started:
        subject.why.append(f"it started {ago(started, now)} from champion {text(body, 'status.parent.generation') or '(unknown)'}")
    if subject.suspended():
        subject.why.append("spec.suspend is true: nothing new starts, and what runs is paused")
        subject.tell_suspended()
    waiting = condition(body, "Progressing")
    if not any(s.get("phase") == "Running" for s in stages):
        subject.tell_condition("Progressing")
        if text(waiting, "reason") != "Running":  # what goes on tells more than that it does
            subject.heed(text(waiting, "reason"), next_too=not subject.suspended())
    runs = any(s.get("phase") == "Running" for s in stages)
    for stage in stages:
        _stage(subject, stage)
        if runs and stage.get("phase") in ("AwaitingApproval", "Retrying"):  # else the lap's own condition has said so
            subject.why.append(f"stage {text(stage, 'name')}: {text(stage, 'message')}")
            subject.heed(text(stage, "phase"))
    ahead = [text(s, "name") for s in stages if s.get("phase") == "Waiting"]
    if ahead:
        subject.next.append(f"Then: {', '.join(ahead)}" + (", and the rollout." if dig(body, "spec.rollout") else "."))
    if started and deadline and not text(body, "status.rollout"):
        subject.at(started + deadline, f"spec.deadline {text(body, 'spec.deadline')} ends the lap as Failed, unless its rollout has begun")
    rollout = subject.find("Rollout", text(body, "status.rollout"))
    if rollout:
        subject.next.append(f"The lap ends with {text(rollout, 'kind')} {name(rollout)} ({phase(rollout)}), once its traffic has moved:")
        tell_metrics(subject, rollout)
        next_of_rollout(subject, rollout)


def _stage(subject: Subject, stage: Body) -> None:
    """A stage that runs, and gates that only warned."""
    if stage.get("phase") == "Running":
        parts = [percent(number(stage, "percent"))]
        left, started = number(stage, "etaSeconds"), when(stage, "startTime")
        parts += [f"about {seconds(left)} to go" if left else ""]
        parts += [f"since {ago(started, subject.now)}" if started else "", text(stage, "message")]
        subject.why.append(f"stage {text(stage, 'name')} runs: " + ", ".join(part for part in parts if part))
        reason = text(stage, "message").partition(":")[0]
        if reason not in ("Running", "Starting"):
            subject.heed(reason)
    for result in items(stage, "gates"):
        if result.get("passed") is False:
            subject.numbers.append((f"gate of {text(stage, 'name')}", text(result, "onFailure"), gate(result)))
