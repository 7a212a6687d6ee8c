"""Several success metrics, one error rate: Holm's step-down procedure (S. Holm, Scandinavian Journal of Statistics 6, 1979)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class HolmTest(NamedTuple):
    """Whether a hypothesis is rejected, and the limit its p-value was held against."""

    rejected: bool
    limit: float


def holm(p_values: Mapping[str, float], alpha: float) -> dict[str, HolmTest]:
    """Test by name; the chance of rejecting any true hypothesis is at most alpha. Ties are broken by name."""
    tests: dict[str, HolmTest] = {}
    rejecting = True
    for rank, (p, name) in enumerate(sorted((p, name) for name, p in p_values.items())):
        limit = alpha / (len(p_values) - rank)
        rejecting = rejecting and p <= limit
        tests[name] = HolmTest(rejecting, limit)
    return tests
