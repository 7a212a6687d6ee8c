"""What the operator says of itself to Prometheus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from flywheel.ports import ClusterError, Conflict
from flywheel.runtime.keys import Key

_PASS_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)
_REQUEST_SECONDS = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15)


class Metrics:
    """The series, in a registry of their own, so that a test can have as many as it likes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._passes = Histogram(
            "flywheel_operator_reconcile_seconds",
            "Duration of a pass over one object.",
            ["kind"],
            buckets=_PASS_SECONDS,
            registry=self.registry,
        )
        self._errors = Counter(
            "flywheel_operator_reconcile_errors_total", "Passes that failed, by what failed.", ["kind", "error"], registry=self.registry
        )
        self._depth = Gauge("flywheel_operator_queue_depth", "Objects that wait for a pass.", registry=self.registry)
        self._requests = Histogram(
            "flywheel_operator_api_request_seconds",
            "Requests to the API server; code 0 is no answer.",
            ["method", "code"],
            buckets=_REQUEST_SECONDS,
            registry=self.registry,
        )
        self._verdicts = Counter("flywheel_verdicts_total", "Decisions made.", ["kind", "verdict", "reason"], registry=self.registry)
        self._leader = Gauge("flywheel_operator_leader", "1 while this replica reconciles.", registry=self.registry)

    def passed(self, key: Key, seconds: float, error: Exception | None) -> None:
        """A pass ended."""
        self._passes.labels(key.kind).observe(seconds)
        if error is not None:
            self._errors.labels(key.kind, _word(error)).inc()

    def depth(self, queued: int) -> None:
        """So many objects wait."""
        self._depth.set(queued)

    def request(self, method: str, status: int, seconds: float) -> None:
        """The API server answered, or did not."""
        self._requests.labels(method, str(status)).observe(seconds)

    def verdict(self, kind: str, verdict: str, reason: str) -> None:
        """Something was decided."""
        self._verdicts.labels(kind, verdict, reason).inc()

    def leading(self, leads: bool) -> None:
        """Whether this replica reconciles."""
        self._leader.set(float(leads))

    def watch_phases(self, phases: Callable[[], Tally[tuple[str, str]]]) -> None:
        """Count objects by kind and phase when Prometheus asks."""
        self.registry.register(_Phases(phases))


class _Phases(Collector):
    def __init__(self, phases: Callable[[], Tally[tuple[str, str]]]) -> None:
        self._phases = phases

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("flywheel_objects", "Objects by kind and phase.", labels=["kind", "phase"])
        for (kind, phase), count in sorted(self._phases().items()):
            family.add_metric([kind, phase], count)
        yield family


def _word(error: Exception) -> str:
    if isinstance(error, Conflict):
        return "conflict"
    if isinstance(error, ClusterError):
        return f"http_{error.status}" if error.status else "unreachable"
    return type(error).__name__
