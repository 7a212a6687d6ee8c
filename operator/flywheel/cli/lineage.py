"""Who descends from whom: the laps of a Flywheel and the champions it had, oldest first. Pure."""

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
        }
        return {key: value for key, value in fields.items() if value} | {"champion": self.champion}


def lineage(flywheel: Body, generations: Sequence[Body]) -> list[Entry]:
    """Laps that are still kept, and champions whose lap is gone or never was."""
    reigns = _reigns(flywheel)
    laps = [g for g in generations if text(g, "spec.flywheel") == name(flywheel)]
    known = {name(lap) for lap in laps}
    entries = [_lap(lap, reigns.get(name(lap), [])) for lap in laps]
    entries += [_without_lap(generation, spans) for generation, spans in reigns.items() if generation not in known]
    return sorted(entries, key=lambda entry: (entry.started or entry.served_from or "~", entry.generation))


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
    )


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
