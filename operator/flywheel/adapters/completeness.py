"""Whether an experiment's numbers can be believed: does the log hold what the routers counted, and are its slices those of the users?

What is found here has nothing to do with the models. A loss in one arm shifts every metric of it and may still be too small for the
sample ratio to show, so no metric is believed and no verdict made; hard limits, which rest on other numbers, still act.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

PREFIX = "flywheel_experiment_"
LOST_SHARE, LOST_REQUESTS = 0.005, 10
"""Of a slice's requests. An Envoy that is killed loses what it logged in its last 200 ms, which is not worth a verdict."""
WRONG_SHARE, WRONG_REQUESTS = 0.05, 20
"""A broken hash misplaces far more; a client that sends its id twice is hashed otherwise than it is logged, and must not stop a verdict."""


def problem(samples: Iterable[tuple[Mapping[str, str], float]]) -> str | None:
    """What is wrong with the counts, in words; None if nothing is, or if an older collector doesn't tell."""
    values = {(labels.get("__name__", ""), labels.get("slice", "")): value for labels, value in samples}
    for slice_ in sorted({slice_ for _, slice_ in values}):
        if found := _too_many(values, slice_, "router_requests", "lost_requests", LOST_SHARE, LOST_REQUESTS):
            return (
                f"{found[1]:.0f} of the {found[0]:.0f} requests of slice {slice_} that the routers counted are missing from their log "
                f"({100 * found[1] / found[0]:.1f} %): no metric of this experiment is believed"
            )
        if found := _too_many(values, slice_, "checked_requests", "misassigned_requests", WRONG_SHARE, WRONG_REQUESTS):
            return (
                f"{found[1]:.0f} of {found[0]:.0f} requests logged in slice {slice_} are of users whose hash puts them elsewhere: "
                "no metric of this experiment is believed"
            )
    return None


def _too_many(
    values: Mapping[tuple[str, str], float], slice_: str, all_: str, part: str, share: float, count: int
) -> tuple[float, float] | None:
    total, some = values.get((PREFIX + all_, slice_)), values.get((PREFIX + part, slice_))
    if total is None or some is None or not (math.isfinite(total) and math.isfinite(some)):
        return None
    return (total, some) if total > 0 and some > max(count, share * total) else None
