"""MetricsProvider over Prometheus' HTTP API. Never raises: an outage or a nonsensical value is an answer too.

One instant query fetches everything of an experiment, so that n, sum and sum of squares are of the same moment.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from flywheel.adapters import completeness
from flywheel.plan.rollout_observed import ErrorShare
from flywheel.stats.evidence import Evidence, Measured, Measurement, NoData, Stale, Unavailable
from flywheel.stats.moments import Moments, PairMoments

TIMEOUT = aiohttp.ClientTimeout(total=5.0)
MAX_ANSWER = 4 * 1024 * 1024
_PREFIX = "flywheel_experiment_"
_ASSIGNED, _UPDATED = _PREFIX + "assigned_users", _PREFIX + "updated_timestamp_seconds"
_MOMENTS = (_PREFIX + "users", _PREFIX + "sum", _PREFIX + "sum_squares")
_SLICES = ("control", "candidate")
_SEGMENT = tuple(_PREFIX + "segment_" + part for part in ("users", "sum", "sum_squares"))
# y's moments, then x's sum and sum of squares, then the sum of the products; x is of the same users as y.
_KNOWN = tuple(
    _PREFIX + part
    for part in ("known_users", "known_sum", "known_sum_squares", "covariate_sum", "covariate_sum_squares", "covariate_cross_sum")
)
_MESSAGES = (*_MOMENTS, *(_PREFIX + "denominator_" + part for part in ("sum", "sum_squares", "cross_sum")))


class QueryError(Exception):
    """The provider couldn't be asked, or gave an answer that makes no sense."""


class AnswerTooLong(QueryError):
    """More than we take into memory at once."""


@dataclass(frozen=True)
class Sample:
    """One series of an instant query."""

    labels: Mapping[str, str]
    time: float
    value: float

    @property
    def finite(self) -> bool:
        """Whether the value is a number."""
        return math.isfinite(self.value)


class PrometheusMetrics:
    """One Prometheus server."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session, self._url = session, address.rstrip("/") + "/api/v1/query"

    async def evidence(self, experiment: str, metrics: Sequence[str], *, stale_after: dt.timedelta, window_over: bool) -> Evidence:
        """Everything that is known of an experiment."""
        query = f'{{__name__=~"{_PREFIX}.+",experiment="{_escape(experiment)}"}}'
        try:
            samples = _newest_exporter(await self.query(query))
            age = _age(samples)
        except QueryError as error:
            return Evidence(None, {metric: Unavailable(str(error)) for metric in metrics}, window_over)
        if (broken := completeness.problem((sample.labels, sample.value) for sample in samples)) is not None:
            return Evidence(None, {metric: Unavailable(broken) for metric in metrics}, window_over)
        measured: dict[str, Measurement] = {}
        for metric in metrics:
            measurement = _measurement(samples, metric)
            fresh = not isinstance(measurement, Measured) or age <= stale_after.total_seconds()
            measured[metric] = measurement if fresh else Stale(age)
        return Evidence(_assigned(samples), measured, window_over)

    async def error_share(self, namespace: str, service: str, generation: str) -> ErrorShare | None:
        """Server errors and all replies of a service's generation in the last minute."""
        ours = f'flywheel="{_escape(service)}",flywheel_namespace="{_escape(namespace)}"'
        series = f'flywheel_requests_total{{generation="{_escape(generation)}",{ours}'
        queries = (f"sum(increase({series}}}[1m]))", f'sum(increase({series},code=~"5.."}}[1m]))')
        total, failed = await asyncio.gather(*(self.scalar(query) for query in queries))
        if total is None:
            return None
        return ErrorShare(failed=max(0.0, failed or 0.0), total=max(0.0, total))

    async def conversations(self, namespace: str, service: str) -> float | None:
        """Conversations kept so far."""
        # Not the sum: after a restart of the collector the series of its predecessor lingers, and both count the same conversations.
        ours = f'flywheel="{_escape(service)}",flywheel_namespace="{_escape(namespace)}"'
        return await self.scalar(f"max(flywheel_conversations_total{{{ours}}})")

    async def scalar(self, query: str) -> float | None:
        """The value of a query with one result."""
        try:
            samples = await self.query(query)
        except QueryError:
            return None
        return samples[0].value if len(samples) == 1 and math.isfinite(samples[0].value) else None

    async def query(self, query: str) -> list[Sample]:
        """An instant query; raises QueryError."""
        try:
            async with self._session.post(self._url, data={"query": query}, timeout=TIMEOUT, allow_redirects=False) as response:
                body = await response.content.read(MAX_ANSWER + 1)
                while len(body) <= MAX_ANSWER and (more := await response.content.read(MAX_ANSWER)):
                    body += more
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise QueryError(f"Prometheus at {self._url}: {str(error) or type(error).__name__}") from error
        if len(body) > MAX_ANSWER:
            raise AnswerTooLong(f"Prometheus at {self._url}: the answer is longer than {MAX_ANSWER} bytes")
        return _parse(body, response.status, self._url)


def _parse(body: bytes, status: int, url: str) -> list[Sample]:
    try:
        answer: Any = json.loads(body)
        if answer["status"] != "success":
            raise QueryError(f"Prometheus at {url}: {answer.get('errorType', status)}: {answer.get('error', '')}")
        data = answer["data"]
        if data["resultType"] != "vector":
            raise QueryError(f"Prometheus at {url}: expected a vector, got {data['resultType']!r}")
        return [Sample(dict(s["metric"]), float(s["value"][0]), float(s["value"][1])) for s in data["result"]]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise QueryError(f"Prometheus at {url}: status {status}, and the answer is none of its API") from error


def _newest_exporter(samples: list[Sample]) -> list[Sample]:
    """The series of the collector pod that has read furthest: after a restart its predecessor lingers for minutes."""
    updated = [s for s in samples if s.labels.get("__name__") == _UPDATED and math.isfinite(s.value)]
    if not updated:
        return samples
    source = _exporter(max(updated, key=lambda s: s.value))
    return [s for s in samples if _exporter(s) == source]


def _exporter(sample: Sample) -> tuple[str, str, str]:
    return sample.labels.get("job", ""), sample.labels.get("instance", ""), sample.labels.get("pod", "")


def _age(samples: list[Sample]) -> float:
    """Seconds since the collector had last read everything, by Prometheus' clock."""
    if not samples:
        return 0.0
    times = [s for s in samples if s.labels.get("__name__") == _UPDATED]
    if not times:
        raise QueryError(f"there are series of the experiment but no {_UPDATED}")
    newest = times[0]
    if not math.isfinite(newest.value) or not math.isfinite(newest.time):
        raise QueryError(f"{_UPDATED} is {newest.value}")
    return min(1e12, max(0.0, newest.time - newest.value))


def _pick(samples: list[Sample], name: str, **labels: str) -> Sample | None:
    wanted = {"__name__": name, **labels}
    found = [s for s in samples if all(s.labels.get(key) == value for key, value in wanted.items())]
    if len(found) > 1:
        raise QueryError(f"{name}{labels} has {len(found)} series; one is expected")
    return found[0] if found else None


def _assigned(samples: list[Sample]) -> tuple[int, int] | None:
    try:
        found = [_pick(samples, _ASSIGNED, slice=name) for name in _SLICES]
        control, candidate = (_count(_ASSIGNED, sample) if sample else None for sample in found)
    except QueryError:
        return None
    return None if control is None or candidate is None else (control, candidate)


def _measurement(samples: list[Sample], metric: str) -> Measurement:
    try:
        control, candidate = (_moments(samples, _MOMENTS, slice=name, metric=metric) for name in _SLICES)
        if control is None or candidate is None:
            return NoData()
        known, messages = (_pairs(samples, names, metric) for names in (_KNOWN, _MESSAGES))
        return Measured(control, candidate, known=known, messages=messages, segments=_segments(samples, metric))
    except (QueryError, ValueError) as error:
        return Unavailable(f"{metric}: {error}")


def _moments(samples: list[Sample], names: Sequence[str], **labels: str) -> Moments | None:
    users, total, squares = (_pick(samples, name, **labels) for name in names)
    if users is None or total is None or squares is None:
        return None
    return Moments(_count(names[0], users), total.value, squares.value)


def _pairs(samples: list[Sample], names: Sequence[str], metric: str) -> tuple[PairMoments, PairMoments] | None:
    """A metric with another number of the same users; None unless all of it is there."""
    pairs = []
    for slice_ in _SLICES:
        y = _moments(samples, names[:3], slice=slice_, metric=metric)
        x = [_pick(samples, name, slice=slice_, metric=metric) for name in names[3:]]
        total, squares, cross = (sample.value if sample else None for sample in x)
        if y is None or total is None or squares is None or cross is None:
            return None
        pairs.append(PairMoments(y, Moments(y.n, total, squares), cross))
    return pairs[0], pairs[1]


def _segments(samples: list[Sample], metric: str) -> tuple[tuple[str, Moments, Moments], ...]:
    names = {s.labels.get("segment", "") for s in samples if s.labels.get("__name__") == _SEGMENT[0]}
    found = []
    for name in sorted(names):
        control, candidate = (_moments(samples, _SEGMENT, slice=slice_, metric=metric, segment=name) for slice_ in _SLICES)
        if control is not None and candidate is not None:
            found.append((name, control, candidate))
    return tuple(found)


def _count(name: str, sample: Sample) -> int:
    if not math.isfinite(sample.value) or sample.value < 0 or sample.value != math.floor(sample.value) or sample.value > 1e15:
        raise QueryError(f"{name} is {sample.value}, which is no number of users")
    return int(sample.value)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
