"""Flywheel: who serves users, and what starts the next lap."""

from __future__ import annotations

from flywheel.cli.explain.story import Subject
from flywheel.cli.reading import condition, dig, name, number, phase, text, when
from flywheel.cli.words import ago


def explain_flywheel(subject: Subject) -> None:
    """Its champion, its trigger, its laps."""
    if subject.tell_new():
        return
    body = subject.body
    champion, since = text(body, "status.champion.generation"), when(body, "status.champion.since")
    serving = f"{champion} serves users" if champion else "nobody serves users yet"
    subject.headline = f"Flywheel {name(body)} is {phase(body)}: {serving}" + (f" since {ago(since, subject.now)}." if since else ".")
    subject.tell_condition("Ready")
    ready = condition(body, "Ready")
    if text(ready, "status") == "False":
        subject.heed(text(ready, "reason"))
    adopted = condition(body, "Adopted")
    if adopted and text(adopted, "reason") != text(ready, "reason"):
        subject.tell_reason(text(adopted, "reason"), text(adopted, "message"))
        subject.heed(text(adopted, "reason"), next_too=False)
    trigger = condition(body, "TriggerValid")
    if text(trigger, "status") == "False":
        subject.tell_reason(text(trigger, "reason"), text(trigger, "message"))
        subject.heed(text(trigger, "reason"))
    waits = condition(body, "NextLap")
    if text(waits, "status") == "False":
        subject.tell_reason(text(waits, "reason"), text(waits, "message"))
        subject.heed(text(waits, "reason"))
    _next_lap(subject)


def _next_lap(subject: Subject) -> None:
    body = subject.body
    active = dig(body, "status.active") or []
    for lap in active:
        generation = subject.find("Generation", str(lap))
        doing = f" ({phase(generation)}: {text(generation, 'status.summary')})" if generation else ""
        subject.next.append(f"Lap {lap} runs{doing}; `kubectl flywheel explain generation/{lap}` tells more.")
    if active:
        replaces = text(body, "spec.concurrencyPolicy") == "Replace"
        subject.next.append("The next lap replaces it, unless users are asked by then." if replaces else "The next lap waits for its end.")
    if subject.suspended():
        subject.why.append("spec.suspend is true: no lap is started; serving goes on")
        subject.tell_suspended()
        return
    schedule, needed = text(body, "spec.trigger.schedule"), number(body, "spec.trigger.newConversations")
    due, delayed = when(body, "status.nextLapTime"), when(body, "status.backoffUntil")
    if delayed and delayed > subject.now:
        failures = number(body, "status.consecutiveFailures") or 0
        subject.at(delayed, f"a lap may start again: {failures:.0f} in a row had ended badly")
    if schedule and due and not (delayed and due == delayed):
        zone = text(body, "spec.trigger.timeZone") or "UTC"
        subject.at(due, f"the schedule '{schedule}' ({zone}) starts the next lap" + (", once no other runs" if active else ""))
    if needed is not None:
        kept, before = number(body, "status.conversations"), number(body, "status.lastLapConversations") or 0
        counted = "how many there are is not known yet" if kept is None else f"{kept - before:.0f} since the last lap began"
        subject.next.append(f"{needed:.0f} new conversations start the next lap; {counted}.")
    if not schedule and needed is None:
        subject.next.append("Nothing starts a lap by itself: spec.trigger is empty.")
        subject.mend.append("Create a Generation, or set spec.trigger.schedule or spec.trigger.newConversations.")
