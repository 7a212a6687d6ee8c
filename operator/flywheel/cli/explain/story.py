"""An explanation in the making: a headline, why, numbers, what comes next in the order of time, and what one can do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flywheel.cli.advice import Advice
from flywheel.cli.reading import Body, condition, controller, dig, name, number, phase, text, title
from flywheel.cli.words import ahead, sentence

INDENT = "  "


@dataclass
class Subject:
    """What is explained, and what has been said of it."""

    body: Body
    related: Sequence[Body]
    advice: Mapping[str, Advice]
    now: dt.datetime
    headline: str = ""
    why: list[str] = field(default_factory=list)
    numbers: list[Sequence[str]] = field(default_factory=list)
    next: list[str] = field(default_factory=list)
    events: list[tuple[dt.datetime, str]] = field(default_factory=list)
    mend: list[str] = field(default_factory=list)

    def find(self, kind: str, wanted: str) -> Body | None:
        """A related object."""
        return next((b for b in self.related if text(b, "kind") == kind and name(b) == wanted), None)

    def tell_condition(self, type_: str) -> None:
        """The reason and message of a condition."""
        found = condition(self.body, type_)
        if found:
            self.tell_reason(text(found, "reason"), text(found, "message"))

    def tell_reason(self, reason: str, message: str) -> None:
        """A reason, and its message or else its meaning."""
        known = self.advice.get(reason)
        said = sentence(message) or (sentence(known.means) if known else "")
        self.why.append(f"{reason}: {said}" if said else reason)

    def heed(self, reason: str, *, next_too: bool = True) -> None:
        """What docs/reasons.md says about how a reason goes on."""
        known = self.advice.get(reason)
        if known is None:
            return
        if next_too:
            self.next.append(known.next)
        if not known.mend.startswith("Nothing."):
            self.mend.append(known.mend)

    def at(self, time: dt.datetime | None, event: str) -> None:
        """Something that happens at a time."""
        if time is not None:
            self.events.append((time, event))

    def tell_new(self) -> bool:
        """Whether the operator has not looked at the object yet; then that is all there is to say."""
        if dig(self.body, "status.phase") or dig(self.body, "status.conditions"):
            return False
        self.headline = f"{title(self.body)} is new: it has no status yet."
        self.next.append("The operator looks at a new object within seconds.")
        self.mend.append("If this lasts, no operator watches this namespace: `kubectl flywheel doctor` tells.")
        return True

    def tell_pending_edit(self) -> None:
        """A spec that is newer than what the operator has seen."""
        seen, newest = number(self.body, "status.observedGeneration"), number(self.body, "metadata.generation")
        if seen is not None and newest is not None and seen < newest:
            self.why.append(f"the status is about revision {seen:.0f} of the spec; the operator has yet to look at revision {newest:.0f}")

    def suspended(self) -> bool:
        """Whether a person has paused it."""
        return dig(self.body, "spec.suspend") is True

    def tell_suspended(self) -> None:
        """How to go on after a pause."""
        owner = controller(self.body)
        kind, named = owner if owner and owner[0] != "Flywheel" else (text(self.body, "kind"), name(self.body))
        self.next.append(f"It goes on when spec.suspend is false: `kubectl flywheel resume {kind.lower()}/{named}`.")

    def lines(self) -> list[str]:
        """All of it."""
        timed = [f"{ahead(time, self.now)}: {event}" for time, event in sorted(self.events)]
        told = [self.headline or f"{title(self.body)} is {phase(self.body)}."]
        told += _section("Why", self.why) + _section("Numbers", _columns(self.numbers))
        return told + _section("Next", self.next + timed) + _section("You can", self.mend)


def _section(heading: str, rows: Sequence[str]) -> list[str]:
    return ["", heading, *(INDENT + row for row in dict.fromkeys(rows))] if rows else []


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells below each other."""
    widths = [max((len(row[i]) for row in rows if i < len(row)), default=0) for i in range(max((len(row) for row in rows), default=0))]
    return ["  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]
