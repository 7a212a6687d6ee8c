"""Whose replies teach no later lap: the generations that users rejected."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

from flywheel.api.generation import MAX_QUARANTINED, Generation
from flywheel.api.rollout import Rollout

Word = tuple[dt.datetime, str, bool]  # when, of which generation, whether users rejected it
LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)


def rejected(generations: Sequence[Generation], rollouts: Iterable[Rollout], champion: str | None) -> tuple[str, ...]:
    """Names of the generations of one service that users rejected, sorted; the newest if there are too many.

    The last word on a name counts: a retry may win after all. The newest lap's list is a word too, for what it says of
    laps that were deleted since; older lists are not asked, for a name may have left them for good reason.
    """
    # By when they were made: a retry gives an old lap a new start, but not a new list.
    newest = max((g for g in generations if g.status.revision is not None), key=_made, default=None)
    words = sorted([*_of_laps(generations), *_of_rollouts(rollouts)])
    handed_on = [(_made(newest), name, True) for name in newest.status.quarantined] if newest else []
    last = {name: bad for _, name, bad in sorted([*words, *handed_on])}
    # What serves all users has said nearly everything that is kept: without it there would be nothing to learn from.
    names = [name for name, bad in last.items() if bad and name != champion]
    times = {name: time for time, name, bad in words if bad}
    # Those that only the list remembers are the oldest. Their times are gone; of numbered names the longer ones are newer.
    names.sort(key=lambda name: (times.get(name, LONG_AGO), len(name), name))
    return tuple(sorted(names[-MAX_QUARANTINED:]))


def _made(generation: Generation) -> dt.datetime:
    return generation.metadata.creation_timestamp or LONG_AGO


def _of_laps(generations: Iterable[Generation]) -> Iterator[Word]:
    for generation in generations:
        decision = generation.status.decision
        if decision is not None and decision.verdict in ("RolledBack", "Promoted"):
            yield decision.time, generation.metadata.name, decision.verdict == "RolledBack"


def _of_rollouts(rollouts: Iterable[Rollout]) -> Iterator[Word]:
    for rollout in rollouts:
        status, name = rollout.status, rollout.spec.candidate.generation
        if status.phase == "RolledBack":  # "Failed" met no user and said nothing
            yield status.cutover_time or LONG_AGO, name, True
        elif status.decision and status.decision.verdict == "Promote" and status.cutover_time:
            yield status.cutover_time, name, False


def remembers_alone(generation: Generation, others: Sequence[Generation]) -> bool:
    """Whether a name would be forgotten if this lap went and the others stayed."""
    return not set(rejected([*others, generation], (), None)) <= set(rejected(others, (), None))
