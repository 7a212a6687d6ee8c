"""What was agreed before the first user came: the metrics, their margins and the error rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flywheel.stats.contrast import NO_MARGIN, Limit, Sign
from flywheel.stats.evidence import MAX_SEGMENTS
from flywheel.stats.methods import FIXED_HORIZON, FixedHorizon, Method, method_from_dict, method_to_dict
from flywheel.stats.moments import check_count, check_keys, check_number

Role = Literal["Success", "Guardrail"]
Direction = Literal["Increase", "Decrease"]

EARLY, LATE = "early", "late"  # segments that the novelty check compares
DEFAULT_MARGIN = 0.05  # relative; of a metric whose plan names no margin


@dataclass(frozen=True, slots=True)
class MetricPlan:
    """One metric and which way is good.

    `margin` (share of the control's mean) or `absolute_margin` (unit of the metric, for rare events) is how much worse the candidate may
    be and still count as non-inferior; without either it is 5 % of the control's mean. `per_message`: the metric is
    the ratio of its total to that of the users' messages, not the mean a user. Raises ValueError.
    """

    name: str
    role: Role
    direction: Direction
    margin: float | None = None
    absolute_margin: float | None = None
    per_message: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name: expected a metric's name, got {self.name!r}")
        if self.role not in ("Success", "Guardrail"):
            raise ValueError(f"role: expected Success or Guardrail for metric {self.name}, got {self.role!r}")
        if self.direction not in ("Increase", "Decrease"):
            raise ValueError(f"direction: expected Increase or Decrease for metric {self.name}, got {self.direction!r}")
        if not isinstance(self.per_message, bool):
            raise ValueError(f"per_message: expected true or false for metric {self.name}, got {self.per_message!r}")
        if self.margin is not None and self.absolute_margin is not None:
            raise ValueError(
                f"margin, absolute_margin: metric {self.name} has both, {self.margin!r} and {self.absolute_margin!r}; leave one out"
            )
        if self.margin is not None:
            object.__setattr__(self, "margin", check_number("margin", self.margin, 0.0, 1.0))
        if self.absolute_margin is not None:
            object.__setattr__(self, "absolute_margin", check_number("absolute_margin", self.absolute_margin, 0.0, 1e100))

    @property
    def good(self) -> Sign:
        """1 if the metric is good when it rises, else -1."""
        return 1 if self.direction == "Increase" else -1

    @property
    def harm_limit(self) -> Limit:
        """Beyond which the candidate is rolled back at once.

        Success: worse than the control, as the candidate is there to improve it. Guardrail: worse than the margin the plan names (none: 0),
        as a loss that wouldn't stop a promotion mustn't cause a rollback. Neither changes how often a harmless candidate is rolled back
        (see AnalysisPlan.harm_alpha), only from which size of loss on, and how soon, harm is found.
        """
        return NO_MARGIN if self.role == "Success" else Limit(self.margin or 0.0, self.absolute_margin or 0.0)

    @property
    def promotion_limit(self) -> Limit:
        """Within which the candidate must be shown to be at the window's end."""
        if self.absolute_margin is not None:
            return Limit(0.0, self.absolute_margin)
        return Limit(DEFAULT_MARGIN if self.margin is None else self.margin, 0.0)

    def to_dict(self) -> dict[str, object]:
        """JSON form; an absent margin is left out."""
        form: dict[str, object] = {"name": self.name, "role": self.role, "direction": self.direction}
        form |= {} if self.margin is None else {"margin": self.margin}
        form |= {} if self.absolute_margin is None else {"absoluteMargin": self.absolute_margin}
        return form | ({"perMessage": True} if self.per_message else {})

    @classmethod
    def from_dict(cls, data: object) -> MetricPlan:
        """Inverse of `to_dict`. Raises ValueError."""
        keys = ("name", "role", "direction", "margin", "absoluteMargin")
        form = check_keys("metric", data, *keys, "perMessage")
        values = [*(form.get(key) for key in keys), form.get("perMessage", False)]
        return cls(*values)  # type: ignore[arg-type]  # __post_init__ checks


@dataclass(frozen=True, slots=True)
class AnalysisPlan:
    """Metrics and error rates of a rollout. Raises ValueError.

    `alpha`: one-sided, of promoting a candidate no better (Holm over the success metrics). `harm_alpha`: of ever rolling back one no worse,
    split evenly over all metrics. `sample_ratio_alpha`: of ever holding a sound split. `minimum_users`: matured users each slice needs
    before harm or success may be called. `harm_optimize_users`: users a slice at which harm is found soonest; default `minimum_users`.
    `method`: when success is tested. `sample_ratio_at_end`: half of sample_ratio_alpha is for one test when the window is over. `cuped`:
    metrics with a relative margin are adjusted by the pre-period where there is one. `segments`: proven harm to one stops a promotion.
    `novelty_alpha`: error rate of finding that a lift has worn off when it hasn't; None: nobody looks.
    """

    metrics: tuple[MetricPlan, ...]
    alpha: float = 0.025
    harm_alpha: float = 0.025
    sample_ratio_alpha: float = 0.001
    minimum_users: int = 1000
    harm_optimize_users: int | None = None
    method: Method = FIXED_HORIZON
    sample_ratio_at_end: bool = False
    cuped: bool = False
    segments: tuple[str, ...] = ()
    novelty_alpha: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", tuple(self.metrics))
        names = [metric.name for metric in self.metrics]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"metrics: {twice[0]} is there twice")
        if not any(metric.role == "Success" for metric in self.metrics):
            raise ValueError(f"metrics: expected at least one with role Success, got {names!r}")
        for field in ("alpha", "harm_alpha", "sample_ratio_alpha"):
            object.__setattr__(self, field, check_number(field, getattr(self, field), 1e-9, 0.499999))
        if check_count("minimum_users", self.minimum_users) < 2:
            raise ValueError(f"minimum_users: expected at least 2, got {self.minimum_users!r}")
        if self.harm_optimize_users is not None and check_count("harm_optimize_users", self.harm_optimize_users) < 1:
            raise ValueError(f"harm_optimize_users: expected at least 1, got {self.harm_optimize_users!r}")
        if not isinstance(self.method, Method):
            raise ValueError(f"method: expected FixedHorizon, GroupSequential or AlwaysValid, got {self.method!r}")
        for field in ("sample_ratio_at_end", "cuped"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"{field}: expected true or false, got {getattr(self, field)!r}")
        object.__setattr__(self, "segments", tuple(self.segments))
        if len(set(self.segments)) < len(self.segments) or not all(isinstance(name, str) and name for name in self.segments):
            raise ValueError(f"segments: expected distinct names, got {self.segments!r}")
        if self.novelty_alpha is not None:
            object.__setattr__(self, "novelty_alpha", check_number("novelty_alpha", self.novelty_alpha, 1e-9, 0.499999))
        if len(self.asked_segments) > MAX_SEGMENTS:
            raise ValueError(f"segments: expected at most {MAX_SEGMENTS} (a novelty check has 2), got {self.segments!r}")

    @property
    def asked_segments(self) -> tuple[str, ...]:
        """Segments that must be measured: those that veto, and those that the novelty check compares."""
        extra = () if self.novelty_alpha is None else (EARLY, LATE)
        return (*self.segments, *(name for name in extra if name not in self.segments))

    def to_dict(self) -> dict[str, object]:
        """JSON form."""
        form: dict[str, object] = {
            "metrics": [metric.to_dict() for metric in self.metrics],
            "alpha": self.alpha,
            "harmAlpha": self.harm_alpha,
            "sampleRatioAlpha": self.sample_ratio_alpha,
            "minimumUsers": self.minimum_users,
        }
        form |= {} if self.harm_optimize_users is None else {"harmOptimizeUsers": self.harm_optimize_users}
        # What isn't asked for is left out: a plan of before there was a choice has the same form, and the same digest.
        form |= {} if isinstance(self.method, FixedHorizon) else {"method": method_to_dict(self.method)}
        form |= {"sampleRatioAtEnd": True} if self.sample_ratio_at_end else {}
        form |= {"cuped": True} if self.cuped else {}
        form |= {"segments": list(self.segments)} if self.segments else {}
        return form | ({} if self.novelty_alpha is None else {"noveltyAlpha": self.novelty_alpha})

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> AnalysisPlan:
        """Inverse of `to_dict`. Raises ValueError."""
        keys = ("metrics", "alpha", "harmAlpha", "sampleRatioAlpha", "minimumUsers", "harmOptimizeUsers")
        form = check_keys("plan", data, *keys, "method", "sampleRatioAtEnd", "cuped", "segments", "noveltyAlpha")
        metrics, segments = form.get("metrics"), form.get("segments", ())
        if not isinstance(metrics, list | tuple):
            raise ValueError(f"metrics: expected a list, got {metrics!r}")
        if not isinstance(segments, list | tuple):
            raise ValueError(f"segments: expected a list, got {segments!r}")
        method = method_from_dict(form["method"]) if "method" in form else FIXED_HORIZON
        rest = [*(form.get(key) for key in keys[1:]), method, form.get("sampleRatioAtEnd", False), form.get("cuped", False)]
        values = [tuple(MetricPlan.from_dict(m) for m in metrics), *rest, tuple(segments), form.get("noveltyAlpha")]
        return cls(*values)  # type: ignore[arg-type]  # __post_init__ checks
