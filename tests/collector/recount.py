"""The same numbers the slow way: all lines and events in hand, definitions of docs/concepts.md read aloud. No code of the collector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

Moments = dict[tuple[str, str], tuple[int, int, int]]


def seconds(item: dict[str, Any]) -> float:
    return datetime.fromisoformat(item["time"]).timestamp()


def by_time(line: dict[str, Any]) -> tuple[float, str]:
    return seconds(line), line["requestId"]


def recount(
    lines: Iterable[dict[str, Any]], events: Iterable[dict[str, Any]], experiment: str, horizon: float, cap: int, now: float
) -> tuple[dict[str, int], Moments]:
    """-> first assignments by slice, and (slice, metric) -> (n, sum, sum of squares) of the users exposed at least a horizon before now."""
    people = [line for line in lines if line["purpose"] == "-" and line["user"] != "-"]
    exposure: dict[str, dict[str, Any]] = {}
    for line in sorted(people, key=by_time):
        if line["experiment"] == experiment and line["slice"] in ("control", "candidate"):
            exposure.setdefault(line["user"], line)
    tries: defaultdict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for line in sorted(people, key=by_time):
        tries[line["user"], line["conversation"], line["message"]].append(line)
    assigned: defaultdict[str, int] = defaultdict(int)
    values: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for user, first in exposure.items():
        assigned[first["slice"]] += 1
        start = seconds(first)
        if start + horizon > now:
            continue
        end = start + horizon
        turns = errors = fallbacks = 0
        for (who, _, _), attempts in tries.items():
            if who != user or not start <= seconds(attempts[0]) < end:
                continue
            errors += attempts[0]["status"] == 0 or attempts[0]["status"] >= 500
            fallbacks += attempts[0]["answeredArm"] not in ("-", attempts[0]["assignedArm"])
            turns += any(200 <= attempt["status"] < 300 and start <= seconds(attempt) < end for attempt in attempts)
        thumbs = {}
        for kind in ("thumbs_up", "thumbs_down"):
            given: dict[tuple[str, str], float] = {}
            for event in events:
                if event["type"] == kind and event["user"] == user:
                    place = (event["conversation"], event["message"])
                    given[place] = min(seconds(event), given.get(place, seconds(event)))
            thumbs[kind] = sum(start <= moment < end for moment in given.values())
        depth = max(turns - 1, 0)
        for metric, value in {
            "breadth": int(depth > 0),
            "depth": min(depth, cap),
            "errors": errors,
            "fallbacks": fallbacks,
            **thumbs,
        }.items():
            values[first["slice"], metric].append(value)
    return dict(assigned), {place: (len(xs), sum(xs), sum(x * x for x in xs)) for place, xs in values.items()}
