"""`kubectl flywheel gc`: what is asked of the operator, and how its answer reads. Pure."""

from __future__ import annotations

import datetime as dt
from typing import Any

from flywheel.api.base import format_time
from flywheel.cli.errors import Problem
from flywheel.cli.reading import Body, dig, name, number, text, title
from flywheel.plan.collection import ASK, DELETE, DRY_RUN


def request(body: Body, delete: bool, now: dt.datetime) -> tuple[str, dict[str, Any]]:
    """(token, merge patch) that asks for a collection. Raises Problem where it makes no sense."""
    if text(body, "kind") != "Flywheel":
        raise Problem(f"{title(body)} has no store of its own; collect the garbage of its Flywheel.")
    if not text(body, "spec.storage.uri").startswith("file:///") and text(body, "spec.storage.uri"):
        raise Problem(f"{title(body)} keeps its artifacts in {text(body, 'spec.storage.uri')}; give that bucket a lifecycle rule instead.")
    token = f"{DELETE if delete else DRY_RUN} {format_time(now)}"
    return token, {"metadata": {"annotations": {ASK: token}}}


def answered(body: Body, token: str) -> bool:
    """Whether the operator has done what the token asked for."""
    return text(body, "status.collection.asked") == token and text(body, "status.collection.phase") in ("Done", "Failed")


def report(body: Body) -> list[str]:
    """The last collection in words: what went or would go, the largest first, and what stays and why. Raises Problem if it failed."""
    collection = dig(body, "status.collection")
    if text(collection, "phase") == "Failed":
        raise Problem(f"Nothing was collected for {title(body)}: {text(collection, 'message')}")
    metrics = dig(collection, "metrics") or {}
    dry = dig(collection, "dryRun") is True
    listed = {key: value for key, value in metrics.items() if key.startswith(("artifact.", "checkpoint."))}
    count = {what: int(number(metrics, f"collected_{what}") or 0) for what in ("artifacts", "checkpoints", "bytes")}
    verb = "would be deleted" if dry else "were deleted"
    lines = [
        f"{count['artifacts']} artifacts and {count['checkpoints']} checkpoints ({size(count['bytes'])}) of {name(body)} {verb}.",
        *(f"  {size(value):>10}  {_name(key)}" for key, value in listed.items()),
    ]
    more = count["artifacts"] + count["checkpoints"] - len(listed)
    if more > 0:
        lines.append(f"  and {more} more; the whole list is report.json in {text(collection, 'report.uri')}")
    kept = [f"{int(number(metrics, f'kept_{why}') or 0)} {words}" for why, words in _WHY.items() if number(metrics, f"kept_{why}")]
    if kept:
        lines.append(f"{size(number(metrics, 'kept_bytes') or 0)} stay: {', '.join(kept)}.")
    if dry and count["artifacts"] + count["checkpoints"]:
        lines.append(f"Nothing was touched. `kubectl flywheel gc flywheel/{name(body)} --yes` deletes.")
    return lines


def _name(metric: str) -> str:
    kind, _, rest = metric.partition(".")
    return f"artifact   sha256-{rest}" if kind == "artifact" else f"checkpoint {rest}"


_WHY = {"referenced": "are referred to", "young": "are younger than the grace", "foreign": "are not this Flywheel's alone"}


def size(count: float) -> str:
    """Bytes for people: `1.9 MB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"
