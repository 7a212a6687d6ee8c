"""The Flywheel's memory of who served users when. Bounded, and kept in its status, so that it outlives laps and Rollouts. Pure.

What is already remembered is only added to: a lap, Rollout or champion that is gone changes nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

from flywheel.api.flywheel import ChampionStatus, FlywheelStatus
from flywheel.api.generation import Generation
from flywheel.api.lineage import MAX_ENTRIES, MAX_SHARES, LineageEntry, Share
from flywheel.api.rollout import Rollout

_EPOCH = dt.datetime.min.replace(tzinfo=dt.UTC)


def remembered(status: FlywheelStatus, generations: Iterable[Generation], rollouts: Iterable[Rollout]) -> tuple[LineageEntry, ...]:
    """The entries with what can be seen now: laps that were decided or met users, Rollouts' shares, and the champions' reigns."""
    entries = list(status.lineage)
    for lap in sorted(generations, key=lambda g: (g.status.start_time or _EPOCH, g.metadata.name)):
        _remember_lap(entries, lap)
    for rollout in sorted(rollouts, key=lambda r: (r.status.window_start_time or _EPOCH, r.metadata.name)):
        _remember_shares(entries, rollout)
    if status.champion is not None:
        _remember_reigns(entries, (status.champion, *status.previous))
    return bounded(entries)


def bounded(entries: Sequence[LineageEntry]) -> tuple[LineageEntry, ...]:
    """At most MAX_ENTRIES, oldest first. What no user has met goes first, then what was only a candidate, then old champions."""
    ordered = sorted(entries, key=lambda e: (_age(e), e.generation, e.rollout or ""))
    surplus = len(ordered) - MAX_ENTRIES
    if surplus <= 0:
        return tuple(ordered)
    dispensable = sorted(range(len(ordered)), key=lambda i: (bool(ordered[i].served_from), bool(ordered[i].shares), i))
    gone = set(dispensable[:surplus])
    return tuple(entry for i, entry in enumerate(ordered) if i not in gone)


def _age(entry: LineageEntry) -> dt.datetime:
    times = (entry.start_time, entry.served_from, *(share.since for share in entry.shares[:1]))
    return min((time for time in times if time is not None), default=_EPOCH)


def _remember_lap(entries: list[LineageEntry], lap: Generation) -> None:
    """A lap that starts again is another entry: users may have met both."""
    status = lap.status
    if status.start_time is None or (status.decision is None and status.rollout is None):
        return
    cost, model, record = status.cost, status.model or (status.record.model if status.record else None), status.record_artifact
    seen: dict[str, Any] = {
        "parent": status.parent.generation if status.parent else None,
        "digest": model.digest if model else None,
        "verdict": status.decision.verdict if status.decision else None,
        "reason": status.decision.reason if status.decision else None,
        "decision_time": status.decision.time if status.decision else None,
        "rollout": status.rollout,
        "gpu_seconds": cost.gpu_seconds if cost and status.decision else None,
        "cost": cost.amount if cost and status.decision else None,
        "currency": cost.currency if cost and status.decision else None,
        "record_uri": record.uri if record else None,
        "record_digest": record.digest if record else None,
    }
    known = {key: value for key, value in seen.items() if value is not None}
    name, start = lap.metadata.name, status.start_time
    for index, entry in enumerate(entries):
        if entry.generation == name and entry.start_time == start:
            entries[index] = entry.model_copy(update=known)
            return
    entries.append(LineageEntry(generation=name, start_time=start, **known))


def _remember_shares(entries: list[LineageEntry], rollout: Rollout) -> None:
    """The share of users as the Rollout's step gave it; 0 from its cut-over on, when all users have one model again."""
    status, candidate = rollout.status, rollout.spec.candidate
    percent, ended = status.weights.intended, status.cutover_time
    since = status.step_start_time or status.window_start_time
    if since is None and ended is None:
        return
    index = next((i for i, e in enumerate(entries) if e.rollout == rollout.metadata.name), None)
    if index is None:
        if since is None or (not percent and ended is None):
            return
        name = rollout.metadata.name
        entries.append(LineageEntry(generation=candidate.generation, digest=candidate.digest, rollout=name))
        index = len(entries) - 1
    entry = entries[index].model_copy(update={"baseline": rollout.spec.baseline.generation})
    shares = list(entry.shares)
    if since is not None and percent and ended is None and not (shares and (shares[-1].percent == percent or shares[-1].since >= since)):
        shares.append(Share(since=since, percent=percent))
    if ended is not None and shares and shares[-1].percent:
        shares.append(Share(since=max(ended, shares[-1].since), percent=0))
    entries[index] = entry.model_copy(update={"shares": tuple(shares[-MAX_SHARES:])})


def _remember_reigns(entries: list[LineageEntry], champions: Sequence[ChampionStatus]) -> None:
    """`champions` newest first. A second reign of the same model is an entry of its own."""
    until: dt.datetime | None = None
    for champion in champions:
        index = _entry_of(entries, champion)
        if index is None:
            entries.append(LineageEntry(generation=champion.generation, digest=champion.digest, served_from=champion.since))
            index = len(entries) - 1
        entries[index] = entries[index].model_copy(update={"served_from": champion.since, "served_until": until})
        until = champion.since


def _entry_of(entries: Sequence[LineageEntry], champion: ChampionStatus) -> int | None:
    same = [i for i, e in enumerate(entries) if e.generation == champion.generation and e.digest in (champion.digest, None)]
    exact = [i for i in same if entries[i].served_from == champion.since]
    free = [i for i in same if entries[i].served_from is None and entries[i].verdict in ("Promoted", None)]
    return exact[0] if exact else free[-1] if free else None
