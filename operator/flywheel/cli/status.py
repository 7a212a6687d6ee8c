"""An object on a page: what it is, what its conditions say, and the details of its kind. Pure: an object in, sections out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flywheel.cli.reading import Body, controller, dig, items, number, phase, text, title, when
from flywheel.cli.words import ago, ahead, difference, estimate, gate, percent, seconds, short

Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Section:
    """A heading and its rows."""

    heading: str
    rows: Rows


def page(body: Body, now: dt.datetime) -> list[Section]:
    """The page of an object; sections without rows are left out."""
    facts, *details = DETAILS[text(body, "kind")](body, now)
    owner = controller(body)
    created = when(body, "metadata.creationTimestamp")
    general: Rows = [("phase", phase(body)), ("suspended", "yes" if dig(body, "spec.suspend") is True else "")]
    general += [("belongs to", f"{owner[0]} {owner[1]}" if owner else ""), ("created", ago(created, now) if created else "")]
    sections = [Section(title(body), _told([*general, *facts.rows])), _conditions(body, now), *details]
    return [section for section in sections if section.rows]


def _told(rows: Rows) -> Rows:
    """Rows that have a value."""
    return [row for row in rows if row[1]]


def _conditions(body: Body, now: dt.datetime) -> Section:
    rows: Rows = []
    for one in items(body, "status.conditions"):
        since = when(one, "lastTransitionTime")
        rows.append(
            (
                text(one, "type"),
                text(one, "status"),
                text(one, "reason"),
                f"for {seconds((now - since).total_seconds())}" if since else "",
                text(one, "message"),
            )
        )
    return Section("Conditions", rows)


def _time(body: Body, path: str, now: dt.datetime) -> str:
    time = when(body, path)
    return "" if time is None else ahead(time, now) if time > now else ago(time, now)


def _artifact(body: Body, path: str) -> str:
    found = dig(body, path)
    return f"{text(found, 'kind')} {short(text(found, 'digest'))}  {text(found, 'uri')}".strip() if found else ""


def _metrics(body: Body) -> Section:
    metrics = dig(body, "status.metrics")
    names = sorted(metrics) if isinstance(metrics, Mapping) else []
    return Section("Metrics", [(key, f"{value:.6g}") for key in names if (value := number({"value": metrics[key]}, "value")) is not None])


def _flywheel(body: Body, now: dt.datetime) -> list[Section]:
    trigger = [text(body, "spec.trigger.schedule"), text(body, "spec.trigger.newConversations")]
    facts: Rows = [
        ("address", text(body, "status.address")),
        ("trigger", " or ".join(part for part in (trigger[0], f"{trigger[1]} new conversations" if trigger[1] else "") if part) or "none"),
        ("next lap", _time(body, "status.nextLapTime", now)),
        ("running laps", ", ".join(map(str, dig(body, "status.active") or []))),
        ("laps", text(body, "status.laps")),
        ("conversations", text(body, "status.conversations")),
        ("storage", f"{text(body, 'spec.storage.uri')} on claim {text(body, 'spec.storage.claimName')}"),
    ]
    champions: Rows = [
        ("now" if index == 0 else "before", text(one, "generation"), short(text(one, "digest")), text(one, "arm"), _time(one, "since", now))
        for index, one in enumerate([one for one in (dig(body, "status.champion"),) if one] + items(body, "status.previous"))
    ]
    return [Section("", facts), Section("Champions", champions), _arms(body)]


def _arms(body: Body) -> Section:
    return Section(
        "Arms",
        [
            (text(arm, "name"), text(arm, "role"), text(arm, "generation"), f"{text(arm, 'readyReplicas') or 0} ready pods")
            for arm in items(body, "status.arms")
        ],
    )


def _generation(body: Body, now: dt.datetime) -> list[Section]:
    decision = dig(body, "status.decision")
    facts: Rows = [
        ("flywheel", text(body, "spec.flywheel")),
        ("parent", text(body, "status.parent.generation")),
        ("progress", percent(number(body, "status.percent"))),
        ("started", _time(body, "status.startTime", now)),
        ("ended", _time(body, "status.completionTime", now)),
        ("verdict", f"{text(decision, 'verdict')}: {text(decision, 'reason')}: {text(decision, 'message')}" if decision else ""),
        ("model", _artifact(body, "status.model")),
        ("rollout", text(body, "status.rollout")),
        ("GPU-seconds", text(body, "status.gpuSeconds")),
    ]
    stages: Rows = []
    gates: Rows = []
    for stage in items(body, "status.stages"):
        left, began, ended = number(stage, "etaSeconds"), when(stage, "startTime"), when(stage, "completionTime")
        took = seconds((ended - began).total_seconds()) if began and ended else f"{seconds(left)} to go" if left else ""
        stages.append(
            (
                text(stage, "name"),
                text(stage, "phase"),
                percent(number(stage, "percent")),
                took,
                text(stage, "child"),
                text(stage, "message"),
            )
        )
        gates += [
            (text(stage, "name"), "ok" if one.get("passed") is True else text(one, "onFailure"), gate(one)) for one in items(stage, "gates")
        ]
    return [Section("", facts), Section("Stages", stages), Section("Gates", gates)]


def _training_run(body: Body, now: dt.datetime) -> list[Section]:
    progress = dig(body, "status.progress")
    left, speed = number(progress, "etaSeconds"), number(progress, "tokensPerSecond")
    facts: Rows = [
        ("method", text(body, "spec.method")),
        ("step", _steps(progress)),
        ("progress", percent(number(progress, "percent"))),
        ("to go", seconds(left) if left else ""),
        ("speed", f"{speed:.0f} tokens/s" if speed else ""),
        ("started", _time(body, "status.startTime", now)),
        ("ended", _time(body, "status.completionTime", now)),
        ("next attempt", _time(body, "status.nextRetryTime", now)),
        ("artifact", _artifact(body, "status.artifact")),
        ("GPU-seconds", text(body, "status.gpuSeconds")),
    ]
    attempts: Rows = [
        (text(one, "number"), text(one, "job"), text(one, "reason") or "runs", _time(one, "endTime", now), text(one, "message"))
        for one in items(body, "status.attempts")
    ]
    return [Section("", facts), Section("Attempts", attempts), _metrics(body)]


def _steps(progress: Body) -> str:
    """A run that was over before it was asked, or whose method has no steps, is in a phase alone."""
    told = text(progress, "phase")
    return f"{text(progress, 'step')} of {text(progress, 'totalSteps')} ({told})" if number(progress, "totalSteps") else told


def _reward_model(body: Body, now: dt.datetime) -> list[Section]:
    facts: Rows = [
        ("type", text(body, "spec.type")),
        ("must reach", f"{text(body, 'spec.validation.metric')} {text(body, 'spec.validation.minimum')}"),
        ("training run", text(body, "status.trainingRun")),
        ("progress", percent(number(body, "status.progress.percent"))),
        ("ready", _time(body, "status.readyTime", now)),
        ("artifact", _artifact(body, "status.artifact")),
    ]
    return [Section("", facts), _metrics(body)]


def _rollout(body: Body, now: dt.datetime) -> list[Section]:
    decision, weights = dig(body, "status.decision"), dig(body, "status.weights")
    steps, index = items(body, "spec.traffic.steps"), number(body, "status.step")
    facts: Rows = [
        ("flywheel", text(body, "spec.flywheel")),
        ("baseline", f"{text(body, 'spec.baseline.generation')}  {short(text(body, 'spec.baseline.digest'))}"),
        ("candidate", f"{text(body, 'spec.candidate.generation')}  {short(text(body, 'spec.candidate.digest'))}"),
        ("weight", f"{text(weights, 'intended')} % intended, {text(weights, 'acknowledged') or 'nothing'} acknowledged" if weights else ""),
        ("step", f"{index + 1:.0f} of {len(steps)}" if index is not None else ""),
        ("window began", _time(body, "status.windowStartTime", now)),
        ("verdict due", _time(body, "status.windowEndTime", now)),
        ("last look", _time(body, "status.lastAnalysisTime", now)),
        ("cut over", _time(body, "status.cutoverTime", now)),
        ("watch ends", _time(body, "status.watchEndTime", now)),
        ("verdict", f"{text(decision, 'verdict')}: {text(decision, 'reason')}: {text(decision, 'message')}" if decision else ""),
        ("experiment", text(body, "status.experiment")),
    ]
    numbers: Rows = [estimate(one) for one in items(body, "status.metrics") if difference(one)]
    history: Rows = [(_time(one, "time", now), text(one, "event"), text(one, "message")) for one in items(body, "status.history")]
    return [Section("", facts), _arms(body), Section("Metrics", numbers), Section("History", history)]


DETAILS: Mapping[str, Callable[[Body, dt.datetime], list[Section]]] = {
    "Flywheel": _flywheel,
    "Generation": _generation,
    "TrainingRun": _training_run,
    "RewardModel": _reward_model,
    "Rollout": _rollout,
}
