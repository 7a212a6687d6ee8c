"""TrainingRun: how far it is, why an attempt ended, when the next one starts."""

from __future__ import annotations

from flywheel.cli.explain.story import Subject
from flywheel.cli.reading import Body, condition, controller, dig, items, name, number, phase, span, text, when
from flywheel.cli.words import ago, percent, seconds, short


def explain_training_run(subject: Subject) -> None:
    """By its phase."""
    if subject.tell_new():
        return
    body, now = subject.body, subject.now
    subject.headline = f"TrainingRun {name(body)} ({text(body, 'spec.method')}) is {phase(body)}."
    owner = controller(body)
    if owner:
        subject.why.append(f"it belongs to {owner[0]} {owner[1]}")
    finished = condition(body, "Succeeded")
    current = condition(body, "Progressing") or finished
    reason = text(current, "reason")
    subject.tell_reason(reason, text(current, "message"))
    attempt = _attempt(subject)
    match phase(body):
        case "Succeeded":
            digest, done = text(body, "status.artifact.digest"), when(body, "status.completionTime")
            subject.why.append(f"its artifact is {short(digest)}" + (f", since {ago(done, now)}" if done else ""))
            subject.next.append("Nothing: a run that has succeeded never runs again.")
        case "Failed":
            subject.heed(reason)
            if owner is None:
                subject.mend.append(f"`kubectl flywheel retry trainingrun/{name(body)}` once the cause is mended.")
            else:
                subject.mend.append(f"`kubectl flywheel explain {owner[0].lower()}/{owner[1]}` tells what its failure means there.")
        case "Retrying":
            subject.at(when(body, "status.nextRetryTime"), "the next attempt starts, from the newest checkpoint")
            subject.heed(text(attempt, "reason"), next_too=False)
        case "Running":
            tell_progress(subject, body)
            _deadline(subject, attempt)
            subject.next.append("When it ends well, its artifact appears in status.artifact.")
        case _:
            subject.heed(reason, next_too=not subject.suspended())
    if subject.suspended() and phase(body) not in ("Succeeded", "Failed"):
        subject.tell_suspended()


def tell_progress(subject: Subject, run: Body) -> None:
    """Steps, time to go and speed."""
    progress = dig(run, "status.progress")
    if not progress:
        return
    done, total = number(progress, "step"), number(progress, "totalSteps")
    steps = f"step {done or 0:.0f} of {total:.0f} ({percent(number(progress, 'percent'))})" if total else "steps are not counted yet"
    left, speed = number(progress, "etaSeconds"), number(progress, "tokensPerSecond")
    row = [text(progress, "phase"), steps, f"about {seconds(left)} to go" if left else "", f"{speed:.0f} tokens/s" if speed else ""]
    subject.numbers.append([cell for cell in row if cell])


def _attempt(subject: Subject) -> Body:
    """The newest attempt, told with what is left of the retries."""
    attempts = items(subject.body, "status.attempts")
    if not attempts:
        return {}
    last, limit = attempts[-1], number(subject.body, "spec.retry.limit")
    began, ended = when(last, "startTime"), when(last, "endTime")
    words = f"attempt {text(last, 'number')}"
    if ended:
        exit_code = text(last, "exitCode")
        words += f" ended {ago(ended, subject.now)}" + (f" with exit code {exit_code}" if exit_code else "")
        if text(last, "reason") not in ("", "Succeeded"):
            words += f": {text(last, 'reason')}: {text(last, 'message')}"
    elif began:
        words += f" runs since {ago(began, subject.now)}"
    subject.why.append(words)
    used = sum(1 for one in attempts if one.get("counted") is True)
    if used and limit is not None:
        subject.why.append(f"{used} of {limit:.0f} retries that count are used up (evictions and lost nodes don't count)")
    return last


def _deadline(subject: Subject, attempt: Body) -> None:
    began, longest = when(attempt, "startTime"), span(subject.body, "spec.deadline")
    if began and longest:
        subject.at(began + longest, f"spec.deadline {text(subject.body, 'spec.deadline')} ends the attempt: DeadlineExceeded")
