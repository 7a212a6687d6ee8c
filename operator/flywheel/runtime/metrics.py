"""What the operator says of itself to Prometheus; of its objects see object_metrics. docs/observability.md lists the series."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from flywheel.ports import ClusterError, Conflict
from flywheel.runtime.keys import Key

disable_created_metrics()  # type: ignore[no-untyped-call]  # nobody asks for the time at which a counter began
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
        self._ticked = Gauge(
            "flywheel_operator_last_tick_timestamp_seconds", "When a worker last took something from the queue.", registry=self.registry
        )
        self._unseen = Gauge(
            "flywheel_operator_awaiting_first_pass",
            "Objects that this process has yet to look at for the first time.",
            registry=self.registry,
        )
        # Latency without resource and code, which would multiply the buckets by a hundred.
        self._requests = Counter(
            "flywheel_operator_api_requests_total",
            "Requests to the API server; code 0 is no answer, method WATCH a watch that began (again).",
            ["method", "resource", "code"],
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "flywheel_operator_api_request_seconds",
            "Duration of requests to the API server; of a watch until it begins.",
            ["method"],
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

    def request(self, method: str, resource: str, status: int, seconds: float) -> None:
        """The API server answered, or did not."""
        self._requests.labels(method, resource, str(status)).inc()
        self._request_seconds.labels(method).observe(seconds)

    def verdict(self, kind: str, verdict: str, reason: str) -> None:
        """Something was decided."""
        self._verdicts.labels(kind, verdict, reason).inc()

    def leading(self, leads: bool) -> None:
        """Whether this replica reconciles."""
        self._leader.set(float(leads))

    def watch_loop(self, depth: Callable[[], int], unseen: Callable[[], int], ticked: Callable[[], float]) -> None:
        """Look at the loop when Prometheus asks: a loop that hangs would report nothing of itself."""
        self._depth.set_function(depth)
        self._unseen.set_function(unseen)
        self._ticked.set_function(ticked)


def _word(error: Exception) -> str:
    if isinstance(error, Conflict):
        return "conflict"
    if isinstance(error, ClusterError):
        return f"http_{error.status}" if error.status else "unreachable"
    return type(error).__name__
