"""One Prometheus asked once for everybody: what every Rollout or Flywheel wants of the same series every few seconds.

A thousand Rollouts that each ask for their own error share would be four hundred queries a second; grouped by service and
generation it is one answer, which all of them share while it is fresh. What is asked once a minute (evidence) goes on alone.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence

from flywheel.adapters.prometheus import AnswerTooLong, PrometheusMetrics, QueryError, Sample
from flywheel.plan.rollout_observed import ErrorShare
from flywheel.stats.evidence import Evidence

FRESH = 4.0  # seconds an answer is shared; an outage too, so that a Prometheus in trouble is asked no more often than a healthy one
_ARM = ("flywheel_namespace", "flywheel", "generation")
_SERVICE = ("flywheel_namespace", "flywheel")
_Values = Mapping[tuple[str, ...], float]


class SharedPrometheus:
    """The MetricsProvider port, over one server that many ask."""

    def __init__(self, metrics: PrometheusMetrics) -> None:
        self._metrics = metrics
        replies = 'increase(flywheel_requests_total{flywheel!=""%s}[1m])'
        self._totals = _Answer(lambda: self._grouped("sum", _ARM, replies % ""))
        self._failures = _Answer(lambda: self._grouped("sum", _ARM, replies % ',code=~"5.."'))
        # Not the sum: after a restart of the collector the series of its predecessor lingers, and both count the same conversations.
        self._conversations = _Answer(lambda: self._grouped("max", _SERVICE, "flywheel_conversations_total"))

    async def evidence(self, experiment: str, metrics: Sequence[str], *, stale_after: dt.timedelta, window_over: bool) -> Evidence:
        """Everything that is known of an experiment."""
        return await self._metrics.evidence(experiment, metrics, stale_after=stale_after, window_over=window_over)

    async def error_share(self, namespace: str, service: str, generation: str) -> ErrorShare | None:
        """Server errors and all replies of a service's generation in the last minute."""
        try:
            totals, failures = await asyncio.gather(self._totals.get(), self._failures.get())
        except AnswerTooLong:
            return await self._metrics.error_share(namespace, service, generation)
        except QueryError:
            return None
        arm = (namespace, service, generation)
        total = totals.get(arm)
        return None if total is None else ErrorShare(failed=max(0.0, failures.get(arm, 0.0)), total=max(0.0, total))

    async def conversations(self, namespace: str, service: str) -> float | None:
        """Conversations kept so far."""
        try:
            return (await self._conversations.get()).get((namespace, service))
        except AnswerTooLong:
            return await self._metrics.conversations(namespace, service)
        except QueryError:
            return None

    async def scalar(self, query: str) -> float | None:
        """The value of a query with one result."""
        return await self._metrics.scalar(query)

    async def _grouped(self, how: str, labels: tuple[str, ...], series: str) -> _Values:
        samples = await self._metrics.query(f"{how} by ({', '.join(labels)}) ({series})")
        return {_key(sample, labels): sample.value for sample in samples if sample.finite}


def _key(sample: Sample, labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sample.labels.get(label, "") for label in labels)


class _Answer:
    """The last answer, good or bad, while it is fresh; whoever asks meanwhile waits for the question that is under way."""

    def __init__(self, ask: Callable[[], Awaitable[_Values]]) -> None:
        self._ask = ask
        self._lock = asyncio.Lock()
        self._at = float("-inf")
        self._held: _Values | QueryError = {}

    async def get(self) -> _Values:
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now - self._at >= FRESH:
                try:
                    self._held = await self._ask()
                except QueryError as error:
                    self._held = error
                self._at = asyncio.get_running_loop().time()
        if isinstance(self._held, QueryError):
            raise self._held
        return self._held
