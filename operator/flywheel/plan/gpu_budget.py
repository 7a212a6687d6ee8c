"""Which training runs may have GPUs: a queue in the order of their making, under a limit of the operator and one of each Flywheel.

A run holds its GPUs from the decision to make an attempt until that attempt has ended or is paused, as its `status.gpus` says. The
oldest waiting run goes first: while the operator's limit has no room for it, what becomes free is kept for it, so that small runs
never starve a big one. A run that its own Flywheel's limit holds back keeps its place there and is in nobody else's way. Nothing
that runs is stopped when a limit is lowered.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flywheel.api.reasons import Reason
from flywheel.api.training_run import TrainingRun, TrainingTemplate

GPU = "nvidia.com/gpu"
NAMED = 3  # holders that a message names
AGAIN = dt.timedelta(seconds=30)  # the queue wakes a run whose turn it is; looks in between only renew what is said
A_PLACE = dt.timedelta(milliseconds=200)  # the farther back, the rarer, so that a long queue costs little


@dataclass(frozen=True)
class Claim:
    """What the queue knows of a run: the GPUs it holds, or those it waits for."""

    uid: str
    name: str  # namespace/name
    created: dt.datetime
    flywheel: str | None = None  # namespace/name of the Flywheel whose limit it is under
    held: int = 0
    wanted: int = 0  # 0: it does not wait

    @property
    def place(self) -> tuple[dt.datetime, str, str]:
        """Its place in the queue."""
        return self.created, self.name, self.uid


@dataclass(frozen=True)
class Limits:
    """How many GPUs may be in training at once."""

    operator: int | None = None
    flywheels: Mapping[str, int] | None = None  # by namespace/name

    def of(self, claim: Claim) -> int | None:
        """The limit of a run's Flywheel."""
        return (self.flywheels or {}).get(claim.flywheel) if claim.flywheel else None


@dataclass(frozen=True)
class Wait:
    """Why a run may not have GPUs yet."""

    reason: Reason
    message: str
    again: dt.timedelta = AGAIN


def gpus(spec: TrainingTemplate) -> int:
    """GPUs of all pods of an attempt."""
    limits = spec.resources.limits if spec.resources else {}
    named = str(limits.get(GPU, "0"))
    return spec.nodes * max(spec.gpus_per_node, int(named) if named.isdigit() else 0)


def admitted(claims: Iterable[Claim], limits: Limits) -> frozenset[str]:
    """Uids of the waiting runs that may begin now, all of them together."""
    everybody = list(claims)
    free = _Free(everybody, limits)
    found: list[str] = []
    for claim in sorted((c for c in everybody if c.wanted), key=lambda c: c.place):
        if free.take(claim):
            found.append(claim.uid)
    return frozenset(found)


class _Free:
    """What is left for whoever comes next in the queue."""

    def __init__(self, claims: Iterable[Claim], limits: Limits) -> None:
        self._limits, self._operator, self._flywheels = limits, limits.operator, dict(limits.flywheels or {})
        self._closed: set[str | None] = set()  # Flywheels whose next free GPUs are kept for a run that waits already
        self._kept = False  # whether the operator's next free GPUs are
        for claim in claims:
            if claim.held:
                self._subtract(claim, claim.held)

    def take(self, claim: Claim) -> bool:
        """Whether a waiting run may begin, after all that were asked before. What it may not take is kept for it."""
        if too_big(claim, self._limits) is not None:
            return False  # it can't ever begin, and is in nobody's way
        limited = self._limits.of(claim) is not None
        if limited and (claim.flywheel in self._closed or claim.wanted > self._flywheels[str(claim.flywheel)]):
            self._closed.add(claim.flywheel)
            return False
        if self._operator is not None and (self._kept or claim.wanted > self._operator):
            self._kept = True
            return False
        self._subtract(claim, claim.wanted)
        return True

    def _subtract(self, claim: Claim, amount: int) -> None:
        if self._operator is not None:
            self._operator -= amount
        if self._limits.of(claim) is not None:
            self._flywheels[str(claim.flywheel)] -= amount


def too_big(claim: Claim, limits: Limits) -> str | None:
    """The limit that a run can never meet, in words."""
    own = limits.of(claim)
    if own is not None and claim.wanted > own:
        return f"spec.gpuBudget of Flywheel {_name(claim.flywheel)} is {own}"
    if limits.operator is not None and claim.wanted > limits.operator:
        return f"the operator's gpuBudget is {limits.operator}"
    return None


def turn(claim: Claim, claims: Iterable[Claim], limits: Limits, *, may: bool) -> Wait | None:
    """What a run that wants GPUs has to wait for, with the numbers; None if it may begin. `may` is whether it is `admitted`."""
    if may:
        return None
    if (never := too_big(claim, limits)) is not None:
        message = f"needs {_gpus(claim.wanted)}, but {never}: it never begins; raise the budget, or ask for fewer GPUs"
        return Wait(Reason.GPU_BUDGET_TOO_SMALL, message)
    everybody = [other for other in claims if other.uid != claim.uid]
    own = limits.of(claim)
    peers = [other for other in everybody if other.flywheel == claim.flywheel]
    if own is not None and (_short(claim, peers, own) or limits.operator is None):
        where, limit, those = f"the {own} of Flywheel {_name(claim.flywheel)}", own, peers
    else:
        where, limit, those = f"the operator's {limits.operator}", limits.operator or 0, everybody
    before = [other for other in those if other.wanted and other.place < claim.place]
    message = f"needs {_gpus(claim.wanted)}, {max(0, limit - _held(those))} of {where} are free{_holders(those)}{_queue(before)}"
    return Wait(Reason.WAITING_FOR_GPUS, message, AGAIN + A_PLACE * len(before))


def _short(claim: Claim, peers: Iterable[Claim], limit: int) -> bool:
    """Whether the Flywheel's own limit has no room, for what is held and what waits before it."""
    ahead = [peer for peer in peers if peer.held or (peer.wanted and peer.place < claim.place)]
    return sum(peer.held or peer.wanted for peer in ahead) + claim.wanted > limit


def _held(claims: Iterable[Claim]) -> int:
    return sum(claim.held for claim in claims)


def _holders(claims: Iterable[Claim]) -> str:
    held = sorted((claim for claim in claims if claim.held), key=lambda c: (-c.held, c.place))
    if not held:
        return ""
    named = ", ".join(f"{claim.name} ({claim.held})" for claim in held[:NAMED])
    rest = f" and {len(held) - NAMED} more" if len(held) > NAMED else ""
    return f"; {named}{rest} {'holds' if len(held) == 1 else 'hold'} the others"


def _queue(before: list[Claim]) -> str:
    if not before:
        return ""
    first = min(before, key=lambda c: c.place)
    return f"; {first.name} is first in the queue, and {len(before)} in all go before" if len(before) > 1 else f"; {first.name} goes before"


def _gpus(count: int) -> str:
    return f"{count} GPU" if count == 1 else f"{count} GPUs"


def _name(key: str | None) -> str:
    return (key or "").rpartition("/")[2]


def held(run: TrainingRun) -> int:
    """GPUs that a run holds, as its status says; one begun by an operator that wrote no such number holds what it asked for."""
    if run.status.gpus is not None:
        return run.status.gpus
    attempts = run.status.attempts
    under_way = bool(attempts) and attempts[-1].end_time is None and run.status.phase != "Suspended"
    return gpus(run.spec) if under_way else 0
