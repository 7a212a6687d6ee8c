"""What the operator says of its objects to Prometheus, from what it has kept of each at its last change.

All objects are counted by kind and phase. Series with an object's name are few by construction: of what is live only
Rollouts (one a service) and the TrainingRuns that run, of everything else only what an alert has to name: what stands
still, what can't be reconciled or measured, what was decided lately. And no family names more than MAX_NAMED objects, so
that a disaster in a thousand namespaces does not become one in Prometheus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from flywheel.api.base import format_time
from flywheel.plan.base import Manifest
from flywheel.ports import Clock
from flywheel.runtime.keys import Key
from flywheel.runtime.object_summary import Summary, summarise

MAX_NAMED = 200
STILL_AFTER = 600.0  # seconds without a move before an object is named; alerts wait longer
DECIDED_FOR = 7 * 86400.0  # seconds a decision is named
# Not `namespace`: that label is the scraped pod's, and Prometheus would rename ours.
_OBJECT = ["kind", "flywheel_namespace", "name"]
Series = tuple[list[str], float]


class ObjectMetrics(Collector):
    """The series of all objects of ours; `shown` is False on a standby, which says nothing of them: its leader does."""

    def __init__(self, clock: Clock, shown: Callable[[], bool] = lambda: True) -> None:
        self._clock, self._shown = clock, shown
        self._objects: dict[Key, Summary] = {}

    def seen(self, key: Key, body: Manifest | None) -> None:
        """An object has changed, or is gone."""
        if body is None or body["metadata"].get("deletionTimestamp"):
            self._objects.pop(key, None)
        else:
            self._objects[key] = summarise(body)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        now = self._clock.now()
        objects = list(self._objects.values()) if self._shown() else []
        live = [one for one in objects if one.live]
        rollouts = [one for one in live if one.kind == "Rollout"][:MAX_NAMED]
        trained = [one for one in live if one.kind == "TrainingRun" and one.phase == "Running"][:MAX_NAMED]
        moved = [(one, one.moved(format_time(now))) for one in live]
        yield _family("flywheel_objects", "Objects by kind and phase.", ["kind", "phase"], _counts(objects))
        yield _family(
            "flywheel_phase_seconds",
            "Of the objects in a phase that should pass, the longest time since one moved.",
            ["kind", "phase"],
            _longest(moved, now.timestamp()),
        )
        yield _family(
            "flywheel_object_still_since_timestamp_seconds",
            f"Since when an object that should move has not, for at least {STILL_AFTER:.0f} s.",
            [*_OBJECT, "phase", "reason"],
            _bounded(([*_names(one), one.phase, one.reason], at) for one, at in moved if now.timestamp() - at >= STILL_AFTER),
        )
        yield _family(
            "flywheel_condition_false_since_timestamp_seconds",
            "Since when an object can't be reconciled, or its metrics can't be had or believed.",
            [*_OBJECT, "condition", "reason"],
            _bounded(_failing(objects)),
        )
        yield _family(
            "flywheel_decided_timestamp_seconds",
            "When a Rollout or a Generation was decided, for a week; when it was held, until a later lap.",
            [*_OBJECT, "verdict", "reason"],
            _bounded(_decided(objects, now.timestamp()), newest=True),
        )
        yield _family(
            "flywheel_rollout_weight_percent",
            "Percent of users the candidate is to get, and that every ready router replica has confirmed.",
            ["flywheel_namespace", "name", "state"],
            (([one.namespace, one.name, state], value) for one in rollouts for state, value in one.weights),
        )
        yield _family(
            "flywheel_rollout_lift_ratio",
            "Relative difference of candidate and control, and its interval.",
            ["flywheel_namespace", "name", "metric", "bound"],
            (([one.namespace, one.name, metric, bound], value) for one in rollouts for metric, bound, value in one.lifts),
        )
        yield _family(
            "flywheel_training_run_percent",
            "How far a running TrainingRun is.",
            ["flywheel_namespace", "name", "method"],
            (([one.namespace, one.name, one.training[0]], one.training[1]) for one in trained if one.training),
        )


def _family(name: str, text: str, labels: list[str], series: Iterable[Series]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in series:
        family.add_metric(values, value)
    return family


def _bounded(series: Iterable[Series], *, newest: bool = False) -> list[Series]:
    return sorted(series, key=lambda one: one[1], reverse=newest)[:MAX_NAMED]


def _counts(objects: list[Summary]) -> list[Series]:
    tally = Counter((one.kind, one.phase) for one in objects)
    return [(list(labels), count) for labels, count in sorted(tally.items())]


def _longest(moved: list[tuple[Summary, float]], now: float) -> list[Series]:
    oldest: dict[tuple[str, str], float] = {}
    for one, at in moved:
        labels = one.kind, one.phase
        oldest[labels] = min(at, oldest.get(labels, at))
    return [(list(labels), now - at) for labels, at in sorted(oldest.items())]


def _failing(objects: list[Summary]) -> Iterator[Series]:
    for one in objects:
        for condition, reason, since in one.failing:
            if one.live or condition == "Reconciled":  # what was unmeasured once a Rollout has ended is history
                yield [*_names(one), condition, reason], since


def _decided(objects: list[Summary], now: float) -> Iterator[Series]:
    newest: dict[tuple[str, str], str] = {}  # of each Flywheel: when its newest lap was made
    for one in objects:
        if one.kind == "Generation":
            lap = one.namespace, one.lap_of
            newest[lap] = max(newest.get(lap, ""), one.made)
    for one in objects:
        if (decided := one.decided) is None or one.live:
            continue
        held = decided.verdict == "Held"  # named until there is a later lap: whoever went on has seen it
        named = one.made == newest.get((one.namespace, one.lap_of)) if held else now - decided.at < DECIDED_FOR
        if named:
            yield [*_names(one), decided.verdict, decided.reason], decided.at


def _names(one: Summary) -> list[str]:
    return [one.kind, one.namespace, one.name]
