"""The series of ARCHITECTURE §4, read between two passes, hence consistent. They do not grow with users; labels are bounded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as Source

from flywheel_collector.ingest import DURATION_BUCKETS_MS
from flywheel_collector.logline import SLICES
from flywheel_collector.outcome import KNOWN, MESSAGES
from flywheel_collector.service import Collector


class _Source(Source):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        yield from _experiments(self._collector)
        yield from _strata(self._collector)
        yield from _completeness(self._collector)
        yield from _traffic(self._collector)

    def describe(self) -> Iterable[Metric]:
        return []


def _experiments(collector: Collector) -> Iterable[Metric]:
    assigned = GaugeMetricFamily(
        "flywheel_experiment_assigned_users", "Users by the slice they were first assigned to", labels=["experiment", "slice"]
    )
    labels = ["experiment", "slice", "metric"]
    n = GaugeMetricFamily("flywheel_experiment_users", "Users whose horizon has passed", labels=labels)
    total = GaugeMetricFamily("flywheel_experiment_sum", "Sum over these users", labels=labels)
    squares = GaugeMetricFamily("flywheel_experiment_sum_squares", "Sum of squares over these users", labels=labels)
    updated = GaugeMetricFamily(
        "flywheel_experiment_updated_timestamp_seconds", "The log has been read up to this time", labels=["experiment"]
    )
    cap = GaugeMetricFamily("flywheel_experiment_winsor_cap", "Largest depth a user counts with", labels=["experiment"])
    experiments = collector.experiments.all()
    for number, slice_, metric, count, sum_, sum_squares in collector.store.db.execute("SELECT * FROM moment").fetchall():
        name = experiments[number].name
        if metric == "assigned":
            assigned.add_metric([name, SLICES[slice_]], count)
            continue
        place = [name, SLICES[slice_], metric]
        n.add_metric(place, count)
        total.add_metric(place, sum_)
        squares.add_metric(place, sum_squares)
    for experiment in experiments.values():
        cap.add_metric([experiment.name], experiment.cap)
        if updated_ms := collector.updated_ms():
            updated.add_metric([experiment.name], updated_ms / 1000)
    return [assigned, n, total, squares, updated, cap]


_PREFIX = "flywheel_experiment_"
_DENOMINATOR = {
    "x": ("denominator_sum", "Sum over these users of the messages they tried"),
    "xx": ("denominator_sum_squares", "Sum of squares of the messages they tried"),
    "xy": ("denominator_cross_sum", "Sum of metric times messages tried"),
}
_KNOWN = {
    "n": ("known_users", "Matured users with a pre-period"),
    "y": ("known_sum", "Sum over matured users with a pre-period"),
    "yy": ("known_sum_squares", "Sum of squares over matured users with a pre-period"),
    "x": ("covariate_sum", "Sum of the metric in the pre-period"),
    "xx": ("covariate_sum_squares", "Sum of squares of the metric in the pre-period"),
    "xy": ("covariate_cross_sum", "Sum of metric times metric in the pre-period"),
}
_SEGMENT = {
    "n": ("segment_users", "Matured users of a segment"),
    "y": ("segment_sum", "Sum over matured users of a segment"),
    "yy": ("segment_sum_squares", "Sum of squares over matured users of a segment"),
}
_FIELDS = ("n", "y", "yy", "x", "xx", "xy")


def _strata(collector: Collector) -> Iterable[Metric]:
    """Moments of a second number, and of segments."""
    labels = ["experiment", "slice", "metric"]
    families = {
        name: GaugeMetricFamily(_PREFIX + name, text, labels=[*labels, "segment"] if names is _SEGMENT else labels)
        for names in (_DENOMINATOR, _KNOWN, _SEGMENT)
        for name, text in names.values()
    }
    experiments = collector.experiments.all()
    query = "SELECT experiment, name, slice, metric, n, y, yy, x, xx, xy FROM stratum"
    for number, stratum, slice_, metric, *values in collector.store.db.execute(query).fetchall():
        names = {MESSAGES: _DENOMINATOR, KNOWN: _KNOWN}.get(stratum, _SEGMENT)
        place = [experiments[number].name, SLICES[slice_], metric, *([stratum] if names is _SEGMENT else [])]
        for field, value in zip(_FIELDS, values, strict=True):
            if field in names:
                families[names[field][0]].add_metric(place, value)
    return families.values()


def _completeness(collector: Collector) -> Iterable[Metric]:
    """What the routers counted and the log lacks, and lines whose slice is not their user's."""
    labels = ["experiment", "slice"]
    counted = GaugeMetricFamily(_PREFIX + "router_requests", "Requests that Envoy counted when it logged them", labels=labels)
    lost = GaugeMetricFamily(_PREFIX + "lost_requests", "Of these, requests that the log lacks", labels=labels)
    checked = GaugeMetricFamily(_PREFIX + "checked_requests", "Requests whose slice was computed again from the user", labels=labels)
    wrong = GaugeMetricFamily(_PREFIX + "misassigned_requests", "Of these, requests logged in another slice", labels=labels)
    db, experiments = collector.store.db, collector.experiments.all()
    for first, second, query in (
        (counted, lost, "SELECT experiment, slice, sum(counted), sum(lost) FROM reconciled GROUP BY experiment, slice"),
        (checked, wrong, "SELECT experiment, slice, checked, wrong FROM misassigned"),
    ):
        for number, slice_, total, part in db.execute(query).fetchall():
            if number in experiments:
                first.add_metric([experiments[number].name, SLICES[slice_]], total)
                second.add_metric([experiments[number].name, SLICES[slice_]], part)
    return [counted, lost, checked, wrong]


OURS = ["flywheel", "flywheel_namespace"]  # names are unique in a namespace only, and one Prometheus sees them all


def _traffic(collector: Collector) -> Iterable[Metric]:
    ours = [collector.options.flywheel, collector.options.namespace]
    requests = CounterMetricFamily("flywheel_requests", "Requests by who answered and the status", labels=[*OURS, "generation", "code"])
    duration = HistogramMetricFamily("flywheel_request_duration_seconds", "Requests by who answered", labels=[*OURS, "generation"])
    events = CounterMetricFamily("flywheel_events", "Events taken from the app", labels=["type"])
    buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(DURATION_BUCKETS_MS) + 1))
    single: dict[str, int] = defaultdict(int)
    sums: dict[str, int] = {}
    for (name, generation, slot), count in sorted(collector.tallies().items()):
        if name == "requests":
            requests.add_metric([*ours, generation, str(slot)], count)
        elif name == "duration":
            buckets[generation][slot] = count
        elif name == "duration_ms":
            sums[generation] = count
        elif name.startswith("event:"):
            events.add_metric([name.removeprefix("event:")], count)
        else:
            single[name] = count
    limits = [*(str(ms / 1000) for ms in DURATION_BUCKETS_MS), "+Inf"]
    for generation, counts in buckets.items():
        cumulative = [(limit, float(sum(counts[: i + 1]))) for i, limit in enumerate(limits)]
        duration.add_metric([*ours, generation], cumulative, sums.get(generation, 0) / 1000)
    conversations = CounterMetricFamily("flywheel_conversations", "Conversations written to Parquet", labels=OURS)
    conversations.add_metric(ours, single["conversations"])
    return [
        requests,
        duration,
        events,
        conversations,
        CounterMetricFamily("flywheel_turns", "New messages of users that were answered", value=single["turns"]),
        CounterMetricFamily("flywheel_collector_malformed_lines", "Lines of the log that could not be read", value=single["malformed"]),
        CounterMetricFamily("flywheel_collector_late_lines", "Lines too old to be analysed", value=single["late"]),
        CounterMetricFamily("flywheel_collector_rejected_events", "Events that were refused", value=single["event_rejected"]),
        CounterMetricFamily(
            "flywheel_collector_unmatched_turns", "Texts whose message never showed up in the log", value=single["unmatched"]
        ),
        GaugeMetricFamily(
            "flywheel_collector_writable", "0 while the disk is full or files cannot be written", value=int(_writable(collector))
        ),
        GaugeMetricFamily(
            "flywheel_collector_deletions_pending", "Users whose files are still being rewritten", value=collector.deletion.pending
        ),
        GaugeMetricFamily("flywheel_collector_lag_seconds", "How far behind the log the collector is", value=collector.lag_ms / 1000),
    ]


def _writable(collector: Collector) -> bool:
    return collector.file_problem is None and not collector.reserve.spent


def expose(collector: Collector) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Source(collector))
    return generate_latest(registry)
