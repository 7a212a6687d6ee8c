"""What is known at one look: moments of each metric by slice, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flywheel.stats.moments import Moments, check_count, check_keys, check_number

MAX_SLICE = 10**12  # users; below Moments' own limit, so that slices can be merged and adjusted


@dataclass(frozen=True, slots=True)
class Measured:
    """Moments of the matured users of both slices. Raises ValueError for more than 10^12 users."""

    control: Moments
    candidate: Moments

    def __post_init__(self) -> None:
        for field, moments in (("control", self.control), ("candidate", self.candidate)):
            if not isinstance(moments, Moments) or moments.n > MAX_SLICE:
                raise ValueError(f"{field}: expected the moments of at most {MAX_SLICE} users, got {moments!r}")


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

    A metric that isn't there counts as NoData. Raises ValueError.
    """

    assigned: tuple[int, int] | None
    metrics: Mapping[str, Measurement]
    window_over: bool

    def __post_init__(self) -> None:
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
        return form | ({} if self.assigned is None else {"assigned": list(self.assigned)})

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Evidence:
        """Inverse of `to_dict`. Raises ValueError."""
        form = check_keys("evidence", data, "assigned", "metrics", "windowOver")
        metrics = form.get("metrics")
        if not isinstance(metrics, Mapping):
            raise ValueError(f"metrics: expected an object, got {metrics!r}")
        measurements = {name: _measurement_from_dict(f"metrics[{name!r}]", m) for name, m in metrics.items()}
        return cls(form.get("assigned"), measurements, form.get("windowOver"))  # type: ignore[arg-type]  # __post_init__ checks


def _measurement_to_dict(measurement: Measurement) -> dict[str, object]:
    match measurement:
        case Measured(control, candidate):
            return {"type": "Measured", "control": control.to_dict(), "candidate": candidate.to_dict()}
        case NoData():
            return {"type": "NoData"}
        case Stale(age):
            return {"type": "Stale", "ageSeconds": age}
        case Unavailable(message):
            return {"type": "Unavailable", "message": message}


def _measurement_from_dict(field: str, data: object) -> Measurement:
    form = check_keys(field, data, "type", "control", "candidate", "ageSeconds", "message")
    try:
        match form.get("type"):
            case "Measured":
                return Measured(_moments(form, "control"), _moments(form, "candidate"))
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


def _moments(form: Mapping[str, object], slice_: str) -> Moments:
    try:
        return Moments.from_dict(form.get(slice_))
    except ValueError as error:
        raise ValueError(f"{slice_}.{error}") from error
