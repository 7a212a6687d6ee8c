"""Count, sum and sum of squares of a per-user metric: all that inference on means needs, whatever the number of users."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

MAX_USERS = 10**15
MAX_TOTAL = 1e100  # so that no product of two sums overflows a float
ROUNDING = 1e-9  # relative slack for sums that were added up in floating point
CANCELLATION = 1e-12  # a spread below this share of the sum of squares is rounding, not variance


class Sample(Protocol):
    """What inference needs of one slice: users, their mean (unit of the metric) and the variance a user (unit squared)."""

    @property
    def n(self) -> int: ...

    @property
    def mean(self) -> float: ...

    @property
    def variance(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Moments:
    """Users (`n`), the sum of their values (`total`, unit of the metric) and of the squares (`total_squares`, unit squared).

    Raises ValueError naming the field and its value if they are not the moments of any n finite numbers.
    """

    n: int
    total: float
    total_squares: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", check_count("n", self.n))
        object.__setattr__(self, "total", check_number("total", self.total, -MAX_TOTAL, MAX_TOTAL))
        object.__setattr__(self, "total_squares", check_number("total_squares", self.total_squares, 0.0, MAX_TOTAL * MAX_TOTAL))
        if self.n == 0 and (self.total != 0.0 or self.total_squares != 0.0):
            raise ValueError(f"total, total_squares: {self.total!r}, {self.total_squares!r} of no users must be 0, 0")
        # Cauchy-Schwarz on roots: squares of tiny totals would underflow.
        if abs(self.total) > math.sqrt(self.n) * math.sqrt(self.total_squares) * (1 + ROUNDING):
            raise ValueError(f"total_squares: {self.total_squares!r} is too small for total {self.total!r} of n {self.n} users")

    @property
    def mean(self) -> float:
        """Mean a user. Raises ValueError for no users."""
        if self.n == 0:
            raise ValueError("n: the mean of 0 users is undefined")
        return self.total / self.n

    @property
    def variance(self) -> float:
        """Sample variance (divisor n - 1). Raises ValueError below two users."""
        if self.n < 2:
            raise ValueError(f"n: the variance of {self.n} users is undefined")
        spread = self.total_squares - self.total * self.mean
        return spread / (self.n - 1) if spread > CANCELLATION * self.total_squares else 0.0

    def merge(self, other: Moments) -> Moments:
        """Moments of both groups of users together; the groups must not overlap."""
        return Moments(self.n + other.n, self.total + other.total, self.total_squares + other.total_squares)

    def to_dict(self) -> dict[str, object]:
        """JSON form, exact."""
        return {"n": self.n, "total": self.total, "totalSquares": self.total_squares}

    @classmethod
    def from_dict(cls, data: object) -> Moments:
        """Inverse of `to_dict`. Raises ValueError."""
        form = check_keys("moments", data, "n", "total", "totalSquares")
        return cls(form.get("n"), form.get("total"), form.get("totalSquares"))  # type: ignore[arg-type]  # __post_init__ checks


@dataclass(frozen=True, slots=True)
class PairMoments:
    """Moments of two values of the same users: `y`, the metric, and `x`, another number of each user, with the sum of the products.

    x is a covariate from before the exposure (stats/cuped.py) or the denominator of a ratio (stats/ratio.py).
    Raises ValueError naming the field if they are not the moments of any n pairs.
    """

    y: Moments
    x: Moments
    cross: float

    def __post_init__(self) -> None:
        for field in ("y", "x"):
            if not isinstance(getattr(self, field), Moments):
                raise ValueError(f"{field}: expected moments, got {getattr(self, field)!r}")
        if self.x.n != self.y.n:
            raise ValueError(f"x.n: expected the same {self.y.n} users as y, got {self.x.n}")
        object.__setattr__(self, "cross", check_number("cross", self.cross, -MAX_TOTAL * MAX_TOTAL, MAX_TOTAL * MAX_TOTAL))
        if abs(self.cross) > math.sqrt(self.y.total_squares) * math.sqrt(self.x.total_squares) * (1 + ROUNDING):
            raise ValueError(f"cross: {self.cross!r} is too large for the squares {self.y.total_squares!r} and {self.x.total_squares!r}")

    @property
    def n(self) -> int:
        """Users."""
        return self.y.n

    @property
    def covariance(self) -> float:
        """Sample covariance (divisor n - 1), never beyond what the two variances allow. Raises ValueError below two users."""
        limit = math.sqrt(self.y.variance) * math.sqrt(self.x.variance)
        return max(-limit, min(limit, (self.cross - self.x.total * self.y.mean) / (self.n - 1)))

    def to_dict(self) -> dict[str, object]:
        """JSON form, exact."""
        return {"y": self.y.to_dict(), "x": self.x.to_dict(), "cross": self.cross}

    @classmethod
    def from_dict(cls, data: object) -> PairMoments:
        """Inverse of `to_dict`. Raises ValueError."""
        form = check_keys("pair", data, "y", "x", "cross")
        return cls(Moments.from_dict(form.get("y")), Moments.from_dict(form.get("x")), form.get("cross"))  # type: ignore[arg-type]


def check_count(field: str, value: object) -> int:
    """`value` if it is a number of users, else ValueError naming the field."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_USERS:
        raise ValueError(f"{field}: expected an integer in 0..{MAX_USERS}, got {value!r}")
    return value


def check_number(field: str, value: object, low: float, high: float) -> float:
    """`value` as a float if it is a finite number in [low, high], else ValueError naming the field."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{field}: expected a number in [{low:g}, {high:g}], got {value!r}")
    return float(value)


def check_keys(field: str, data: object, *known: str) -> Mapping[str, object]:
    """`data` if it is a mapping without unknown keys, else ValueError: what isn't understood isn't replayed."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{field}: expected an object, got {data!r}")
    if unknown := sorted(str(key) for key in data if key not in known):
        raise ValueError(f"{field}: unknown key {unknown[0]!r}; known are {', '.join(known)}")
    return data
