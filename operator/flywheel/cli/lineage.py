"""Who descends from whom: the laps of a Flywheel and the champions it had, oldest first. Pure.

Laps that are there tell most of themselves; of the others the Flywheel's status remembers (status.lineage).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flywheel.cli.reading import Body, dig, items, name, phase, text


@dataclass(frozen=True)
class Entry:
    """A generation: what it came from, how it ended, and when it served users."""

    generation: str
    parent: str
    digest: str
    verdict: str
    reason: str
    why: str
    stage: str
    started: str
    ended: str
    served_from: str
    served_until: str
    champion: bool
    record: str = ""  # where generation.json and the model card lie

    def dump(self) -> dict[str, Any]:
        """For scripts: what is absent is left out."""
        fields = {
            "generation": self.generation,
            "parent": self.parent,
            "digest": self.digest,
            "verdict": self.verdict,
            "reason": self.reason,
            "message": self.why,
            "stage": self.stage,
            "startTime": self.started,
            "decisionTime": self.ended,
            "servedFrom": self.served_from,
            "servedUntil": self.served_until,
            "record": self.record,
        }
        return {key: value for key, value in fields.items() if value} | {"champion": self.champion}


def lineage(flywheel: Body, generations: Sequence[Body]) -> list[Entry]:
    """Laps that are still kept, those that are remembered, and champions whose lap is gone or never was."""
    reigns = _reigns(flywheel)
    laps = [g for g in generations if text(g, "spec.flywheel") == name(flywheel)]
    known = {(name(lap), text(lap, "status.startTime")) for lap in laps}
    entries = [_lap(lap, reigns.get(name(lap), [])) for lap in laps]
    memory = [e for e in items(flywheel, "status.lineage") if (text(e, "generation"), text(e, "startTime")) not in known]
    told = {entry.generation for entry in entries}
    entries += [_remembered(e) for e in memory if text(e, "startTime") or text(e, "generation") not in told]
    told = {entry.generation for entry in entries}
    entries += [_without_lap(generation, spans) for generation, spans in reigns.items() if generation not in told]
    return sorted(entries, key=lambda entry: (entry.started or entry.served_from or "~", entry.generation))


def ancestry(entries: Sequence[Entry], generation: str) -> list[Entry]:
    """A generation and what it descends from, the root first; empty if nothing is known of it."""
    newest = {entry.generation: entry for entry in entries}
    chain: list[Entry] = []
    at = newest.get(generation)
    while at is not None and at not in chain:
        chain.append(at)
        at = newest.get(at.parent)
    return chain[::-1]


@dataclass(frozen=True)
class _Reign:
    digest: str
    since: str
    until: str  # empty: it serves now


def _reigns(flywheel: Body) -> dict[str, list[_Reign]]:
    """When each generation served users, newest reign first."""
    champions = [one for one in (dig(flywheel, "status.champion"),) if one] + items(flywheel, "status.previous")
    found: dict[str, list[_Reign]] = {}
    until = ""
    for champion in champions:
        since = text(champion, "since")
        found.setdefault(text(champion, "generation"), []).append(_Reign(text(champion, "digest"), since, until))
        until = since
    return found


def _lap(lap: Body, reigns: Sequence[_Reign]) -> Entry:
    decision = dig(lap, "status.decision")
    return Entry(
        generation=name(lap),
        parent=text(lap, "status.parent.generation"),
        digest=text(lap, "status.model.digest") or _last_model(lap),
        verdict=text(decision, "verdict") or phase(lap),
        reason=text(decision, "reason"),
        why=text(decision, "message") or text(lap, "status.summary"),
        stage=text(decision, "stage"),
        started=text(lap, "status.startTime") or text(lap, "metadata.creationTimestamp"),
        ended=text(decision, "time"),
        served_from=reigns[0].since if reigns else "",
        served_until=reigns[0].until if reigns else "",
        champion=bool(reigns) and not reigns[0].until,
        record=text(lap, "status.recordArtifact.uri"),
    )


def _remembered(entry: Body) -> Entry:
    """A generation whose objects are gone, as the Flywheel's status has it."""
    served, until = text(entry, "servedFrom"), text(entry, "servedUntil")
    return Entry(
        generation=text(entry, "generation"), parent=text(entry, "parent"), digest=text(entry, "digest"),
        verdict=text(entry, "verdict") or "Served", reason=text(entry, "reason"), why="its objects are gone", stage="",
        started=text(entry, "startTime") or served, ended=text(entry, "decisionTime"), served_from=served, served_until=until,
        champion=bool(served) and not until, record=text(entry, "recordUri"),
    )  # fmt: skip


def _last_model(lap: Body) -> str:
    """A lap that ended at a gate has no model of its own in the status, but a stage made one."""
    made = [text(s, "artifact.digest") for s in items(lap, "status.stages") if text(s, "artifact.kind") == "model"]
    return made[-1] if made else ""


def _without_lap(generation: str, reigns: Sequence[_Reign]) -> Entry:
    newest = reigns[0]
    return Entry(
        generation=generation, parent="", digest=newest.digest, verdict="Served", reason="", why="no lap of it is kept: a base, an adopted "
        "model, or above the history limits", stage="", started=reigns[-1].since, ended="", served_from=newest.since,
        served_until=newest.until, champion=not newest.until,
    )  # fmt: skip
