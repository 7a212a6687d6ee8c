"""What served users at a time: the champion, and the candidates with their share. From the Flywheel's memory. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flywheel.cli.errors import UNANSWERED, Problem
from flywheel.cli.reading import Body, dig, items, name, number, text, when

DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Served:
    """A model in front of users for a while."""

    generation: str
    role: str  # champion or candidate
    share: str
    digest: str
    since: str
    until: str  # empty: still

    def dump(self) -> dict[str, Any]:
        """For scripts."""
        fields = {"generation": self.generation, "role": self.role, "users": self.share, "digest": self.digest}
        fields |= {"from": self.since, "until": self.until}
        return {key: value for key, value in fields.items() if value}


def moment(at: str) -> tuple[dt.datetime, dt.datetime]:
    """The span of a day (UTC), or a moment as a span without length. Raises Problem."""
    try:
        if len(at) == 10:
            day = dt.datetime.combine(dt.date.fromisoformat(at), dt.time(), dt.UTC)
            return day, day + DAY
        read = dt.datetime.fromisoformat(at)
    except (ValueError, OverflowError):
        raise Problem(
            f"--at '{at}' is no time; write a day such as 2026-11-20 or a moment such as 2026-11-20T14:30:00Z.", UNANSWERED
        ) from None
    exact = read.astimezone(dt.UTC) if read.tzinfo else read.replace(tzinfo=dt.UTC)
    return exact, exact


def served(flywheel: Body, start: dt.datetime, end: dt.datetime, now: dt.datetime) -> list[Served]:
    """Who was in front of users at any time of the span. Raises Problem where nothing can be known."""
    if start > now:
        raise Problem(f"{start:%Y-%m-%d %H:%M:%S} UTC is still to come; `kubectl flywheel status flywheel/{name(flywheel)}` shows now.")
    entries = items(flywheel, "status.lineage") or list(_reigns(flywheel))
    found = [one for entry in entries for one in (*_reign(entry, start, end), *_candidacies(entry, start, end))]
    if not found:
        known = min((since for entry in entries if (since := when(entry, "servedFrom")) is not None), default=None)
        begins = f"its memory begins at {known:%Y-%m-%d %H:%M:%S} UTC" if known else "it has served nobody yet"
        raise Problem(f"Nothing is known of what Flywheel {name(flywheel)} served then: {begins}.")
    return sorted(found, key=lambda one: (one.since, one.role))


def _reign(entry: Body, start: dt.datetime, end: dt.datetime) -> Iterator[Served]:
    since, until = when(entry, "servedFrom"), when(entry, "servedUntil")
    if since is not None and _overlap(since, until, start, end):
        yield _served(entry, "champion", "all but a candidate's", since, until)


def _candidacies(entry: Body, start: dt.datetime, end: dt.datetime) -> Iterator[Served]:
    """One span for each share; the last one lasts until now."""
    shares = items(entry, "shares")
    for share, following in zip(shares, [*shares[1:], {}], strict=False):
        since, until, percent = when(share, "since"), when(following, "since"), number(share, "percent")
        if percent and since is not None and _overlap(since, until, start, end):
            yield _served(entry, "candidate", f"{percent:g} %", since, until)


def _overlap(since: dt.datetime, until: dt.datetime | None, start: dt.datetime, end: dt.datetime) -> bool:
    """Whether [since, until) meets the span; a moment belongs to the one that begins with it."""
    begins = since <= start if start == end else since < end
    return begins and (until is None or until > start)


def _served(entry: Body, role: str, share: str, since: dt.datetime, until: dt.datetime | None) -> Served:
    words = [f"{time:%Y-%m-%d %H:%M:%S}" if time is not None else "" for time in (since, until)]
    return Served(text(entry, "generation"), role, share, text(entry, "digest"), *words)


def _reigns(flywheel: Body) -> Iterator[Body]:
    """Of a Flywheel that an older operator has kept: its champions, which is all that is known."""
    until = ""
    for champion in [one for one in (dig(flywheel, "status.champion"),) if one] + items(flywheel, "status.previous"):
        since = text(champion, "since")
        entry = {"generation": text(champion, "generation"), "digest": text(champion, "digest"), "servedFrom": since}
        yield {**entry, "servedUntil": until} if until else entry
        until = since
