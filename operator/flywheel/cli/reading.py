"""Reading objects that may be newer or older than this command: what is absent or of another shape is just not there."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

from flywheel.api.base import API_VERSION, parse_duration

Body = Mapping[str, Any]


def dig(body: Any, path: str) -> Any:
    """The value at `a.b.c`, or None."""
    for key in path.split("."):
        body = body.get(key) if isinstance(body, Mapping) else None
    return body


def text(body: Any, path: str) -> str:
    """The string at a path, or nothing."""
    value = dig(body, path)
    return "" if value is None or isinstance(value, Mapping | list) else str(value)


def number(body: Any, path: str) -> float | None:
    """The finite number at a path."""
    value = dig(body, path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def items(body: Any, path: str) -> list[Body]:
    """The structs of the list at a path."""
    value = dig(body, path)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def when(body: Any, path: str) -> dt.datetime | None:
    """The time at a path, in UTC."""
    try:
        read = dt.datetime.fromisoformat(text(body, path))
    except ValueError:
        return None
    return read.astimezone(dt.UTC) if read.tzinfo else read.replace(tzinfo=dt.UTC)


def span(body: Any, path: str) -> dt.timedelta | None:
    """The Go duration at a path."""
    try:
        return parse_duration(text(body, path))
    except ValueError:
        return None


def name(body: Body) -> str:
    """metadata.name."""
    return text(body, "metadata.name")


def title(body: Body) -> str:
    """`Generation companion-2`."""
    return f"{text(body, 'kind')} {name(body)}"


def phase(body: Body) -> str:
    """status.phase; an object that the operator has not seen yet has none."""
    return text(body, "status.phase") or "New"


def condition(body: Body, type_: str) -> Body:
    """The condition of a type; empty if there is none."""
    return next((c for c in items(body, "status.conditions") if c.get("type") == type_), {})


def controller(body: Body) -> tuple[str, str] | None:
    """(kind, name) of the object of ours that this one belongs to."""
    owners = [o for o in items(body, "metadata.ownerReferences") if o.get("apiVersion") == API_VERSION]
    owner = next((o for o in owners if o.get("controller")), owners[0] if owners else None)
    return (text(owner, "kind"), text(owner, "name")) if owner else None
