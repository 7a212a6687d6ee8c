"""What the operator says of its objects to Prometheus, read from the cache at each scrape.

All objects are counted by kind and phase. Series with an object's name are few by construction: of what is live only
Rollouts (one a service) and the TrainingRuns that run, of everything else only what an alert has to name: what stands
still, what can't be reconciled or measured, what was decided lately. And no family names more than MAX_NAMED objects, so
that a disaster in a thousand namespaces does not become one in Prometheus.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from flywheel.api.base import format_time
from flywheel.api.generation import TERMINAL_GENERATION_PHASES
from flywheel.api.rollout import TERMINAL_ROLLOUT_PHASES
from flywheel.plan.base import Manifest
from flywheel.ports import Clock

MAX_NAMED = 200
STILL_AFTER = 600.0  # seconds without a move before an object is named; alerts wait longer
DECIDED_FOR = 7 * 86400.0  # seconds a decision is named
AT_REST: dict[str, frozenset[str]] = {
    "Flywheel": frozenset({"Serving"}),
    "Generation": frozenset(TERMINAL_GENERATION_PHASES),
    "TrainingRun": frozenset({"Succeeded", "Failed"}),
    "RewardModel": frozenset({"Ready", "Failed"}),
    "Rollout": frozenset(TERMINAL_ROLLOUT_PHASES),
}
# Not `namespace`: that label is the scraped pod's, and Prometheus would rename ours.
_OBJECT = ["kind", "flywheel_namespace", "name"]
_FAILING = ("Reconciled", "MetricsAvailable")  # conditions that are False only when something is wrong
Series = tuple[list[str], float]


class ObjectMetrics(Collector):
    """The series of all objects of ours."""

    def __init__(self, bodies: Callable[[], Iterable[Manifest]], clock: Clock) -> None:
        self._bodies, self._clock = bodies, clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        now = self._clock.now()
        bodies = [body for body in self._bodies() if not body["metadata"].get("deletionTimestamp")]
        live = [body for body in bodies if _phase(body) not in AT_REST[body["kind"]]]
        rollouts = [body for body in live if body["kind"] == "Rollout"]
        moved = [(body, _moved(body, now)) for body in live]
        yield _family("flywheel_objects", "Objects by kind and phase.", ["kind", "phase"], _counts(bodies))
        yield _family(
            "flywheel_phase_seconds",
            "Of the objects in a phase that should pass, the longest time since one moved.",
            ["kind", "phase"],
            _longest(moved, now),
        )
        yield _family(
            "flywheel_object_still_since_timestamp_seconds",
            f"Since when an object that should move has not, for at least {STILL_AFTER:.0f} s.",
            [*_OBJECT, "phase", "reason"],
            _bounded(([*_names(body), _phase(body), _reason(body)], at) for body, at in moved if now.timestamp() - at >= STILL_AFTER),
        )
        yield _family(
            "flywheel_condition_false_since_timestamp_seconds",
            "Since when an object can't be reconciled, or its metrics can't be had or believed.",
            [*_OBJECT, "condition", "reason"],
            _bounded(_failing(bodies, live)),
        )
        yield _family(
            "flywheel_decided_timestamp_seconds",
            "When a Rollout or a Generation was decided, for a week; when it was held, until a later lap.",
            [*_OBJECT, "verdict", "reason"],
            _bounded(_decided(bodies, now), newest=True),
        )
        yield _family(
            "flywheel_rollout_weight_percent",
            "Percent of users the candidate is to get, and that every ready router replica has confirmed.",
            ["flywheel_namespace", "name", "state"],
            _weights(rollouts),
        )
        yield _family(
            "flywheel_rollout_lift_ratio",
            "Relative difference of candidate and control, and its interval.",
            ["flywheel_namespace", "name", "metric", "bound"],
            _lifts(rollouts),
        )
        yield _family(
            "flywheel_training_run_percent",
            "How far a running TrainingRun is.",
            ["flywheel_namespace", "name", "method"],
            _progress(live),
        )


def _family(name: str, text: str, labels: list[str], series: Iterable[Series]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in series:
        family.add_metric(values, value)
    return family


def _bounded(series: Iterable[Series], *, newest: bool = False) -> list[Series]:
    return sorted(series, key=lambda one: one[1], reverse=newest)[:MAX_NAMED]


def _counts(bodies: list[Manifest]) -> list[Series]:
    tally = Counter((body["kind"], _phase(body)) for body in bodies)
    return [(list(labels), count) for labels, count in sorted(tally.items())]


def _longest(moved: list[tuple[Manifest, float]], now: dt.datetime) -> list[Series]:
    oldest: dict[tuple[str, str], float] = {}
    for body, at in moved:
        labels = body["kind"], _phase(body)
        oldest[labels] = min(at, oldest.get(labels, at))
    return [(list(labels), now.timestamp() - at) for labels, at in sorted(oldest.items())]


def _failing(bodies: list[Manifest], live: list[Manifest]) -> Iterator[Series]:
    for condition, among in zip(_FAILING, (bodies, live), strict=True):  # what was unmeasured once a Rollout has ended is history
        for body in among:
            if (found := _condition(body, condition)) and found["status"] == "False":
                yield [*_names(body), condition, found["reason"]], _seconds(found["lastTransitionTime"])


def _decided(bodies: list[Manifest], now: dt.datetime) -> Iterator[Series]:
    newest: dict[tuple[str, str], str] = {}  # of each Flywheel: when its newest lap was made
    for body in bodies:
        if body["kind"] == "Generation":
            lap = _lap(body)
            newest[lap] = max(newest.get(lap, ""), body["metadata"]["creationTimestamp"])
    for body in bodies:
        decision = _status(body).get("decision")
        if not decision or _phase(body) not in AT_REST[body["kind"]]:
            continue
        at = _seconds(decision["time"])
        if decision["verdict"] == "Held":
            named = body["metadata"]["creationTimestamp"] == newest[_lap(body)]  # whoever went on has seen it
        else:
            named = now.timestamp() - at < DECIDED_FOR
        if named:
            yield [*_names(body), decision["verdict"], decision["reason"]], at


def _weights(rollouts: list[Manifest]) -> list[Series]:
    found = []
    for body in rollouts[:MAX_NAMED]:
        weights = _status(body).get("weights") or {}
        if weights.get("revision"):  # 0: no routes were written yet
            states = [(state, weights.get(state)) for state in ("intended", "acknowledged")]
            found += [([*_names(body)[1:], state], float(value)) for state, value in states if value is not None]
    return found


def _lifts(rollouts: list[Manifest]) -> list[Series]:
    bounds = (("estimate", "lift"), ("lower", "liftLower"), ("upper", "liftUpper"))
    return [
        ([*_names(body)[1:], metric["name"], bound], float(metric[field]))
        for body in rollouts[:MAX_NAMED]
        for metric in _status(body).get("metrics") or ()
        for bound, field in bounds
        if metric.get(field) is not None
    ]


def _progress(live: list[Manifest]) -> list[Series]:
    running = [body for body in live if body["kind"] == "TrainingRun" and _phase(body) == "Running"]
    told = [(body, (_status(body).get("progress") or {}).get("percent")) for body in running[:MAX_NAMED]]
    return [([*_names(body)[1:], body["spec"]["method"]], float(percent)) for body, percent in told if percent is not None]


def _moved(body: Manifest, now: dt.datetime) -> float:
    """The last thing that is known to have happened to an object: the newest past time in its status. A restart forgets nothing."""
    status, latest = _status(body), format_time(now)
    parts = (status, *(status.get("attempts") or ()), *(status.get("stages") or ()))
    times = [value for part in parts for name, value in part.items() if name.endswith("Time")]
    times += [condition["lastTransitionTime"] for condition in status.get("conditions") or ()]
    times += [decision["time"]] if (decision := status.get("decision")) else []
    past = [time for time in times if time < latest]  # of one format, which sorts by time
    return _seconds(max(past, default=body["metadata"]["creationTimestamp"]))


def _reason(body: Manifest) -> str:
    found = _condition(body, "Progressing") or _condition(body, "Ready")
    return str(found["reason"]) if found else ""


def _condition(body: Manifest, type_: str) -> dict[str, Any] | None:
    return next((c for c in _status(body).get("conditions") or () if c["type"] == type_), None)


def _status(body: Manifest) -> dict[str, Any]:
    return body.get("status") or {}


def _phase(body: Manifest) -> str:
    return str(_status(body).get("phase") or "Pending")


def _names(body: Manifest) -> list[str]:
    return [body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]]


def _lap(body: Manifest) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["spec"]["flywheel"]


def _seconds(time: str) -> float:
    return dt.datetime.fromisoformat(time).timestamp()
