"""When success may be tested, and how far from the limit the estimate must then be: one look, a few, or any number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from flywheel.stats import fixed_horizon, sequences
from flywheel.stats.group_sequential import MAX_LOOKS, Spending, boundaries, upper_tail
from flywheel.stats.moments import check_count, check_keys

MOST_LOOKS = 10


@dataclass(frozen=True, slots=True)
class FixedHorizon:
    """One test, when the window is over."""


FIXED_HORIZON = FixedHorizon()


@dataclass(frozen=True, slots=True)
class GroupSequential:
    """`looks` tests at equal steps of information on the way to `users` matured users a slice; the window's end is the last in any case.

    Raises ValueError.
    """

    users: int
    looks: int = 5
    spending: Spending = "OBrienFleming"

    def __post_init__(self) -> None:
        if check_count("users", self.users) < 2:
            raise ValueError(f"users: expected at least 2, got {self.users!r}")
        if not 2 <= check_count("looks", self.looks) <= MOST_LOOKS:
            raise ValueError(f"looks: expected 2 to {MOST_LOOKS}, got {self.looks!r}")
        if self.spending not in get_args(Spending):
            raise ValueError(f"spending: expected OBrienFleming or Pocock, got {self.spending!r}")


@dataclass(frozen=True, slots=True)
class AlwaysValid:
    """A test at every look, by confidence sequences that are narrowest at `users` matured users a slice. Raises ValueError."""

    users: int

    def __post_init__(self) -> None:
        if check_count("users", self.users) < 1:
            raise ValueError(f"users: expected at least 1, got {self.users!r}")


Method = FixedHorizon | GroupSequential | AlwaysValid


@dataclass(frozen=True, slots=True)
class Look:
    """What may be concluded of success now: nothing, a promotion (`due`), or the verdict (`final`).

    `fraction` is the information that a group-sequential look has, of what was planned; `earlier` what the looks before had.
    """

    method: Method
    alpha: float
    due: bool
    final: bool
    fraction: float | None = None
    earlier: tuple[float, ...] = ()

    def critical(self, level: float, users: int) -> float:
        """Standard errors beyond the limit that prove, at an error rate over all looks of `level`; `users` in both slices together."""
        match self.method:
            case GroupSequential(spending=spending) if self.fraction is not None:
                return boundaries((*self.earlier, self.fraction), level, spending, last=self.final)[-1]
            case AlwaysValid(users=optimum):
                return sequences.one_sided_multiplier(users, level, 2.0 * optimum, tuned_for=self.alpha)
            case _:
                return fixed_horizon.normal_multiplier(level)

    def limit(self, level: float, users: int) -> float:
        """The same as a limit of the ordinary one-sided p-value."""
        return level if isinstance(self.method, FixedHorizon) else upper_tail(self.critical(level, users))


def look_at(method: Method, alpha: float, slices: Sequence[tuple[int, int]], looks: Sequence[float], *, window_over: bool) -> Look:
    """Whether this is a look. `slices`: matured users by metric (control, candidate); empty if one isn't measured: then it is none
    before the window's end."""
    if not isinstance(method, GroupSequential):
        return Look(method, alpha, due=window_over or isinstance(method, AlwaysValid), final=window_over)
    # In hundredths: people read it in the status, and neighbouring looks share their boundaries, which take long to integrate.
    fraction = round(min((_information(*users) for users in slices), default=0.0) / method.users, 2)
    before = looks[-1] if looks else 0.0
    half_step = 0.5 / method.looks  # a look that came late isn't followed by another at once
    planned = [k / method.looks for k in range(1, method.looks + 1) if k / method.looks > before + half_step]
    final = window_over or fraction >= 1.0 or len(looks) >= MAX_LOOKS - 1
    due = final or (bool(planned) and fraction >= planned[0])
    return Look(method, alpha, due, final, max(fraction, before + 0.01) if due else None, tuple(looks))


def _information(control: int, candidate: int) -> float:
    """Users a slice that two equal slices would need for the same variance of the difference: the harmonic mean."""
    return 2.0 * control * candidate / (control + candidate) if control and candidate else 0.0


def method_to_dict(method: Method) -> dict[str, object]:
    """JSON form."""
    match method:
        case GroupSequential(users, looks, spending):
            return {"type": "GroupSequential", "users": users, "looks": looks, "spending": spending}
        case AlwaysValid(users):
            return {"type": "AlwaysValid", "users": users}
        case FixedHorizon():
            return {"type": "FixedHorizon"}


def method_from_dict(data: object) -> Method:
    """Inverse of `method_to_dict`. Raises ValueError."""
    form = check_keys("method", data, "type", "users", "looks", "spending")
    match form.get("type"):
        case "GroupSequential":
            return GroupSequential(form.get("users"), form.get("looks"), form.get("spending"))  # type: ignore[arg-type]  # __post_init__
        case "AlwaysValid":
            return AlwaysValid(form.get("users"))  # type: ignore[arg-type]  # __post_init__ checks
        case "FixedHorizon":
            return FIXED_HORIZON
        case other:
            raise ValueError(f"method.type: expected FixedHorizon, GroupSequential or AlwaysValid, got {other!r}")
