"""What is known at one look: moments of each metric by slice, or why there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from flywheel.stats.cuped import Stratified
from flywheel.stats.group_sequential import MAX_LOOKS
from flywheel.stats.moments import Moments, PairMoments, check_count, check_keys, check_number

MAX_SLICE = 10**12  # users; below Moments' own limit, so that slices can be merged and adjusted
MAX_PAIR = 1e30  # of any sum of a pair, so that no product of four of them overflows
MAX_SEGMENTS = 8

T = TypeVar("T", Moments, PairMoments)
Pairs = tuple[PairMoments, PairMoments]  # control, candidate


@dataclass(frozen=True, slots=True)
class Measured:
    """Moments of the matured users of both slices, and what else the plan may ask for.

    `known`: metric and pre-period of the users that have one (CUPED). `messages`: metric and number of messages (ratios), of all users.
    `segments`: the same metric by segment, by name; segments may overlap and need not be everybody.
    Raises ValueError for more than 10^12 users, or parts that are larger than the whole.
    """

    control: Moments
    candidate: Moments
    known: Pairs | None = None
    messages: Pairs | None = None
    segments: tuple[tuple[str, Moments, Moments], ...] = ()

    def __post_init__(self) -> None:
        slices = (("control", self.control), ("candidate", self.candidate))
        for field, moments in slices:
            if not isinstance(moments, Moments) or moments.n > MAX_SLICE:
                raise ValueError(f"{field}: expected the moments of at most {MAX_SLICE} users, got {moments!r}")
        for field in ("known", "messages"):
            if getattr(self, field) is not None:
                object.__setattr__(self, field, _check_pairs(field, getattr(self, field)))
        if self.known:
            for (_, moments), pair in zip(slices, self.known, strict=True):
                Stratified(moments, pair)
        if self.messages and any(pair.y != moments for (_, moments), pair in zip(slices, self.messages, strict=True)):
            raise ValueError("messages: expected the same users and values of the metric as control and candidate")
        object.__setattr__(self, "segments", _check_segments(self.segments, self.control.n, self.candidate.n))

    def segment(self, name: str) -> Measured | None:
        """A segment's moments, or None if it isn't measured."""
        return next((Measured(control, candidate) for known, control, candidate in self.segments if known == name), None)


def _check_pairs(field: str, pairs: object) -> Pairs:
    if not isinstance(pairs, list | tuple) or len(pairs) != 2 or not all(isinstance(pair, PairMoments) for pair in pairs):
        raise ValueError(f"{field}: expected pairs of control and candidate, got {pairs!r}")
    for pair in pairs:
        for moments in (pair.y, pair.x):
            if moments.n > MAX_SLICE or abs(moments.total) > MAX_PAIR or moments.total_squares > MAX_PAIR * MAX_PAIR:
                raise ValueError(f"{field}: expected sums of at most {MAX_PAIR:g}, got {moments!r}")
    return (pairs[0], pairs[1])


def _check_segments(segments: object, *users: int) -> tuple[tuple[str, Moments, Moments], ...]:
    if not isinstance(segments, list | tuple) or len(segments) > MAX_SEGMENTS:
        raise ValueError(f"segments: expected at most {MAX_SEGMENTS}, got {segments!r}")
    for entry in segments:
        if not isinstance(entry, list | tuple) or len(entry) != 3 or not isinstance(entry[0], str):
            raise ValueError(f"segments: expected name, control and candidate, got {entry!r}")
        if any(not isinstance(moments, Moments) or moments.n > n for moments, n in zip(entry[1:], users, strict=True)):
            raise ValueError(f"segments[{entry[0]!r}]: expected moments of at most {users} users, got {entry[1:]!r}")
    if len({entry[0] for entry in segments}) < len(segments):
        raise ValueError("segments: a name is there twice")
    return tuple(sorted((tuple(entry) for entry in segments), key=lambda entry: entry[0]))


@dataclass(frozen=True, slots=True)
class NoData:
    """The provider answered: there is no such series."""


@dataclass(frozen=True, slots=True)
class Stale:
    """The series hasn't been updated for too long."""

    age_seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "age_seconds", check_number("age_seconds", self.age_seconds, 0.0, 1e12))


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The provider couldn't be asked."""

    message: str

    def __post_init__(self) -> None:
        if not isinstance(self.message, str):
            raise ValueError(f"message: expected text, got {self.message!r}")


Measurement = Measured | NoData | Stale | Unavailable


@dataclass(frozen=True, slots=True)
class Evidence:
    """First assignments (users in control, in candidate; None if unknown), measurements by metric, and whether the window is over.

    A metric that isn't there counts as NoData. `looks`: information fractions of the group-sequential looks before this one, growing.
    Raises ValueError.
    """

    assigned: tuple[int, int] | None
    metrics: Mapping[str, Measurement]
    window_over: bool
    looks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.looks, list | tuple) or len(self.looks) >= MAX_LOOKS:
            raise ValueError(f"looks: expected fewer than {MAX_LOOKS} information fractions, got {self.looks!r}")
        looks = tuple(check_number(f"looks[{i}]", t, 1e-9, 1e6) for i, t in enumerate(self.looks))
        if any(b <= a for a, b in pairwise(looks)):
            raise ValueError(f"looks: expected growing fractions, got {looks!r}")
        object.__setattr__(self, "looks", looks)
        if self.assigned is not None:
            if not isinstance(self.assigned, list | tuple) or len(self.assigned) != 2:
                raise ValueError(f"assigned: expected users in control and candidate, got {self.assigned!r}")
            counts = tuple(check_count(f"assigned[{i}]", n) for i, n in enumerate(self.assigned))
            object.__setattr__(self, "assigned", counts)
        if not isinstance(self.metrics, Mapping):
            raise ValueError(f"metrics: expected a mapping, got {self.metrics!r}")
        for name, measurement in self.metrics.items():
            if not isinstance(name, str) or not isinstance(measurement, Measurement):
                raise ValueError(f"metrics[{name!r}]: expected Measured, NoData, Stale or Unavailable, got {measurement!r}")
        object.__setattr__(self, "metrics", dict(self.metrics))
        if not isinstance(self.window_over, bool):
            raise ValueError(f"window_over: expected true or false, got {self.window_over!r}")

    def to_dict(self) -> dict[str, object]:
        """JSON form, exact; unknown assignments are left out."""
        form: dict[str, object] = {
            "metrics": {name: _measurement_to_dict(measurement) for name, measurement in self.metrics.items()},
            "windowOver": self.window_over,
        }
        form |= {} if not self.looks else {"looks": list(self.looks)}
        return form | ({} if self.assigned is None else {"assigned": list(self.assigned)})

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Evidence:
        """Inverse of `to_dict`. Raises ValueError."""
        form = check_keys("evidence", data, "assigned", "metrics", "windowOver", "looks")
        metrics = form.get("metrics")
        if not isinstance(metrics, Mapping):
            raise ValueError(f"metrics: expected an object, got {metrics!r}")
        measurements = {name: _measurement_from_dict(f"metrics[{name!r}]", m) for name, m in metrics.items()}
        return cls(form.get("assigned"), measurements, form.get("windowOver"), form.get("looks", ()))  # type: ignore[arg-type]  # checked


def _measurement_to_dict(measurement: Measurement) -> dict[str, object]:
    match measurement:
        case Measured():
            return _measured_to_dict(measurement)
        case NoData():
            return {"type": "NoData"}
        case Stale(age):
            return {"type": "Stale", "ageSeconds": age}
        case Unavailable(message):
            return {"type": "Unavailable", "message": message}


def _measured_to_dict(measured: Measured) -> dict[str, object]:
    form: dict[str, object] = {"type": "Measured", "control": measured.control.to_dict(), "candidate": measured.candidate.to_dict()}
    for key, pairs in (("known", measured.known), ("messages", measured.messages)):
        form |= {} if pairs is None else {key: {"control": pairs[0].to_dict(), "candidate": pairs[1].to_dict()}}
    if measured.segments:
        form["segments"] = {name: {"control": a.to_dict(), "candidate": b.to_dict()} for name, a, b in measured.segments}
    return form


def _measurement_from_dict(field: str, data: object) -> Measurement:
    form = check_keys(field, data, "type", "control", "candidate", "ageSeconds", "message", "known", "messages", "segments")
    try:
        match form.get("type"):
            case "Measured":
                return _measured_from_dict(form)
            case "NoData":
                return NoData()
            case "Stale":
                return Stale(form.get("ageSeconds"))  # type: ignore[arg-type]  # __post_init__ checks
            case "Unavailable":
                return Unavailable(form.get("message"))  # type: ignore[arg-type]  # __post_init__ checks
            case other:
                raise ValueError(f"type: expected Measured, NoData, Stale or Unavailable, got {other!r}")
    except ValueError as error:
        raise ValueError(f"{field}.{error}") from error


def _measured_from_dict(form: Mapping[str, object]) -> Measured:
    pairs = {key: _both(key, form[key], PairMoments.from_dict) for key in ("known", "messages") if key in form}
    segments = form.get("segments", {})
    if not isinstance(segments, Mapping):
        raise ValueError(f"segments: expected an object, got {segments!r}")
    by_name = tuple((name, *_both(f"segments[{name!r}]", both, Moments.from_dict)) for name, both in segments.items())
    return Measured(_moments(form, "control"), _moments(form, "candidate"), pairs.get("known"), pairs.get("messages"), by_name)


def _both(field: str, data: object, parse: Callable[[object], T]) -> tuple[T, T]:
    form = check_keys(field, data, "control", "candidate")
    try:
        return parse(form.get("control")), parse(form.get("candidate"))
    except ValueError as error:
        raise ValueError(f"{field}.{error}") from error


def _moments(form: Mapping[str, object], slice_: str) -> Moments:
    try:
        return Moments.from_dict(form.get(slice_))
    except ValueError as error:
        raise ValueError(f"{slice_}.{error}") from error
