"""Of each object of the five kinds, what its metrics need: taken once a change, so that a scrape reads no object."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from flywheel.api.generation import TERMINAL_GENERATION_PHASES
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES
from flywheel.plan.base import Manifest

AT_REST: dict[str, frozenset[str]] = {
    "Flywheel": frozenset({"Serving"}),
    "Generation": frozenset(TERMINAL_GENERATION_PHASES),
    "TrainingRun": frozenset({"Succeeded", "Failed"}),
    "RewardModel": frozenset({"Ready", "Failed"}),
    "Rollout": frozenset(TERMINAL_ROLLOUT_PHASES),
}
_FAILING = ("Reconciled", "MetricsAvailable")  # conditions that are False only when something is wrong
_BOUNDS = (("estimate", "lift"), ("lower", "liftLower"), ("upper", "liftUpper"))


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision: when (seconds since 1970), what, and why."""

    at: float
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class Summary:
    """One object."""

    kind: str
    namespace: str
    name: str
    phase: str
    live: bool  # in a phase that should pass
    made: str
    lap_of: str = ""  # a Generation's Flywheel
    reason: str = ""  # of a live object: why it is where it is
    times: tuple[str, ...] = ()  # of a live object: the times in its status, past and to come, earliest first
    failing: tuple[tuple[str, str, float], ...] = ()  # (condition, reason, since), of what is wrong
    decided: Decided | None = None
    weights: tuple[tuple[str, float], ...] = ()  # (intended or acknowledged, percent)
    lifts: tuple[tuple[str, str, float], ...] = ()  # (metric, bound, value)
    training: tuple[str, float] | None = None  # (method, percent) of a run that runs

    def moved(self, now: str) -> float:
        """The last thing that is known to have happened to it: the newest past time in its status. A restart forgets nothing."""
        return seconds(max((time for time in self.times if time < now), default=self.made))


def summarise(body: Manifest) -> Summary:
    """The summary of a manifest."""
    kind, meta, status = body["kind"], body["metadata"], body.get("status") or {}
    phase = str(status.get("phase") or "Pending")
    live = phase not in AT_REST[kind]
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    return Summary(
        kind=kind,
        namespace=meta["namespace"],
        name=meta["name"],
        phase=phase,
        live=live,
        made=meta["creationTimestamp"],
        lap_of=body["spec"]["flywheel"] if kind == "Generation" else "",
        reason=_reason(conditions) if live else "",
        times=_times(status) if live else (),
        failing=tuple(_failing(conditions)),
        decided=_decided(status),
        weights=_weights(status) if kind == "Rollout" and live else (),
        lifts=_lifts(status) if kind == "Rollout" and live else (),
        training=_training(body, status) if kind == "TrainingRun" and phase == "Running" else None,
    )


def seconds(time: str) -> float:
    """Seconds since 1970."""
    return dt.datetime.fromisoformat(time).timestamp()


def _reason(conditions: dict[str, dict[str, Any]]) -> str:
    found = conditions.get("Progressing") or conditions.get("Ready")
    return str(found["reason"]) if found else ""


def _times(status: dict[str, Any]) -> tuple[str, ...]:
    parts = (status, *(status.get("attempts") or ()), *(status.get("stages") or ()))
    times = [value for part in parts for name, value in part.items() if name.endswith("Time")]
    times += [condition["lastTransitionTime"] for condition in status.get("conditions") or ()]
    times += [decision["time"]] if (decision := status.get("decision")) else []
    return tuple(sorted(set(times)))  # of one format, which sorts by time


def _failing(conditions: dict[str, dict[str, Any]]) -> list[tuple[str, str, float]]:
    found = [conditions[name] for name in _FAILING if conditions.get(name, {}).get("status") == "False"]
    return [(one["type"], one["reason"], seconds(one["lastTransitionTime"])) for one in found]


def _decided(status: dict[str, Any]) -> Decided | None:
    decision = status.get("decision")
    return Decided(seconds(decision["time"]), decision["verdict"], decision["reason"]) if decision else None


def _weights(status: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    weights = status.get("weights") or {}
    if not weights.get("revision"):
        return ()  # no routes were written yet
    states = [(state, weights.get(state)) for state in ("intended", "acknowledged")]
    return tuple((state, float(value)) for state, value in states if value is not None)


def _lifts(status: dict[str, Any]) -> tuple[tuple[str, str, float], ...]:
    return tuple(
        (metric["name"], bound, float(metric[field]))
        for metric in status.get("metrics") or ()
        for bound, field in _BOUNDS
        if metric.get(field) is not None
    )


def _training(body: Manifest, status: dict[str, Any]) -> tuple[str, float] | None:
    percent = (status.get("progress") or {}).get("percent")
    return None if percent is None else (body["spec"]["method"], float(percent))
