"""Several success metrics, one error rate: Holm's step-down procedure (S. Holm, Scandinavian Journal of Statistics 6, 1979)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class HolmTest(NamedTuple):
    """Whether a hypothesis is rejected, and the limit its p-value was held against."""

    rejected: bool
    limit: float


def _itself(name: str, level: float) -> float:
    return level


def holm(p_values: Mapping[str, float], alpha: float, required: Callable[[str, float], float] = _itself) -> dict[str, HolmTest]:
    """Test by name; the chance of rejecting any true hypothesis is at most alpha. Ties are broken by name.

    `required(name, level)` is what an ordinary p-value must not exceed for a test at that level: the level itself with one look, less with
    several (W. Maurer, F. Bretz, "Multiple testing in group sequential trials using graphical approaches", 2013).
    """
    tests: dict[str, HolmTest] = {}
    rejecting = True
    for rank, (p, name) in enumerate(sorted((p, name) for name, p in p_values.items())):
        limit = required(name, alpha / (len(p_values) - rank))
        rejecting = rejecting and p <= limit
        tests[name] = HolmTest(rejecting, limit)
    return tests
