"""Rollout: who meets the candidate, what the numbers say so far, and what is looked at when."""

from __future__ import annotations

import datetime as dt

from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES
from flywheel.cli.explain.story import Subject
from flywheel.cli.reading import Body, condition, dig, items, name, number, phase, span, text, when
from flywheel.cli.words import ago, estimate


def explain_rollout(subject: Subject) -> None:
    """Before users, with users, or decided."""
    if subject.tell_new():
        return
    body = subject.body
    question = f"{text(body, 'spec.candidate.generation')} against {text(body, 'spec.baseline.generation')}"
    subject.headline = f"Rollout {name(body)} is {phase(body)}: {question}."
    decision = dig(body, "status.decision")
    if decision:
        decided = when(decision, "time")
        subject.tell_reason(text(decision, "reason"), text(decision, "message"))
        subject.why.append(f"the verdict is {text(decision, 'verdict')}" + (f", {ago(decided, subject.now)}" if decided else ""))
    else:
        subject.tell_condition("Progressing")
        measured = condition(body, "MetricsAvailable")
        if text(measured, "status") == "False":
            subject.tell_condition("MetricsAvailable")
            subject.heed(text(measured, "reason"))
    _weights(subject)
    tell_metrics(subject, body)
    next_of_rollout(subject, body)


def _weights(subject: Subject) -> None:
    """Where users are, as far as every router pod has confirmed it."""
    weights = dig(subject.body, "status.weights")
    intended, confirmed = number(weights, "intended"), number(weights, "acknowledged")
    if intended is None:
        return
    if confirmed is not None and confirmed == intended:
        subject.why.append(f"{intended:.0f} % of users are sent to the candidate, as every router pod has confirmed")
    else:
        held = "no router pod has confirmed any yet" if confirmed is None else f"the routers have confirmed {confirmed:.0f} %"
        subject.why.append(f"{intended:.0f} % of users are to be sent to the candidate; {held}")


def tell_metrics(subject: Subject, rollout: Body) -> None:
    """The latest estimates with their intervals, and the sample ratio."""
    subject.numbers += [estimate(metric) for metric in items(rollout, "status.metrics")]
    p, alpha = number(rollout, "status.sampleRatioP"), number(rollout, "spec.analysis.sampleRatioAlpha")
    if p is not None:
        limit = f"nothing is believed at {alpha:g} or below" if alpha is not None else ""
        subject.numbers.append(("1:1 ratio", "", f"p = {p:.3g}", limit))


def next_of_rollout(subject: Subject, rollout: Body) -> None:
    """What happens to it by itself, in the order of time."""
    decision = dig(rollout, "status.decision")
    if phase(rollout) in TERMINAL_ROLLOUT_PHASES:
        if rollout is subject.body:
            subject.heed(text(decision, "reason"))
            subject.next.append("It has ended. Another candidate, baseline or retry asks anew, with users assigned anew.")
    elif decision:
        _carried_out(subject, rollout)
    elif phase(rollout) in ("Progressing", "Paused"):
        _asking(subject, rollout)
    elif phase(rollout) == "Preparing":
        started, longest = when(rollout, "status.prepareStartTime"), span(rollout, "spec.serving.readyTimeout")
        subject.next.append("Users meet the candidate once it has answered a completion and the baseline serves all.")
        if started and longest:
            subject.at(started + longest, "a candidate that is still not ready is rolled back: NeverReady")
    else:
        subject.heed(text(condition(rollout, "Progressing"), "reason"))
    if dig(rollout, "spec.suspend") is True and not decision and rollout is subject.body:
        subject.tell_suspended()


def _carried_out(subject: Subject, rollout: Body) -> None:
    """A decision on its way into the routers, and the watch after it."""
    ends = when(rollout, "status.watchEndTime")
    if ends is not None:
        subject.at(ends, "the watch ends: the old arm, which is parked until then, may go")
    elif text(rollout, "status.decision.verdict") == "Promote":
        subject.next.append(
            "All users get the candidate as soon as every router pod has confirmed the routes; until then an abort undoes it."
        )
    else:
        subject.next.append("All users get the baseline as soon as every router pod has confirmed the routes.")


def _asking(subject: Subject, rollout: Body) -> None:
    """The ramp, the looks, the window and the patience after it."""
    paused = dig(rollout, "spec.suspend") is True
    _ramp(subject, rollout, paused=paused)
    looked, interval = when(rollout, "status.lastAnalysisTime"), span(rollout, "spec.analysis.interval")
    if looked and interval:
        subject.at(looked + interval, "the next look: proven harm rolls back at once, a hard limit too")
    least = number(rollout, "spec.analysis.minimumUsers")
    fewest = min((number(m, f"n{arm}") or 0 for m in items(rollout, "status.metrics") for arm in ("Control", "Candidate")), default=0)
    if least is not None and fewest < least:
        subject.next.append(f"Harm or success may be called from {least:.0f} matured users a slice on; the smaller has {fewest:.0f}.")
    ends, patience = when(rollout, "status.windowEndTime"), span(rollout, "spec.analysis.patience")
    if ends is None:
        subject.next.append("The window opens when every router pod has confirmed the first step.")
        return
    if paused:
        subject.next.append("Nothing is decided while it is paused; hard limits still act, and the window goes on.")
    horizon = text(rollout, "spec.analysis.horizon")
    if subject.now < ends:
        subject.at(
            ends, f"the verdict: Promote if proven better and no worse elsewhere, else Inconclusive (the last users have had {horizon})"
        )
    if patience is not None:
        _patience(subject, ends, patience)


def _ramp(subject: Subject, rollout: Body, *, paused: bool) -> None:
    steps, index = items(rollout, "spec.traffic.steps"), int(number(rollout, "status.step") or 0)
    began = when(rollout, "status.stepStartTime")
    if paused or began is None or index + 1 >= len(steps):
        return
    lasts = span(steps[index], "duration")
    if lasts is not None:
        subject.at(
            began + lasts, f"step {index + 2} of {len(steps)} gives the candidate {text(steps[index + 1], 'weightPercent')} % of users"
        )


def _patience(subject: Subject, ends: dt.datetime, patience: dt.timedelta) -> None:
    subject.at(ends + patience, "if numbers are then still missing, stale or contradictory: NoVerdict, all users get the baseline")
