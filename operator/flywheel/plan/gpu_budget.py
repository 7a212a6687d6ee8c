"""Which training runs may have GPUs: a queue in the order of their making, under a limit of the operator and one of each Flywheel.

A run holds its GPUs from the decision to make an attempt until that attempt has ended or is paused, as its `status.gpus` says. The
oldest waiting run goes first: while the operator's limit has no room for it, what becomes free is kept for it, so that small runs
never starve a big one. A run that its own Flywheel's limit holds back keeps its place there and is in nobody else's way. Nothing
that runs is stopped when a limit is lowered.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from flywheel.api.reasons import Reason
from flywheel.api.training_run import TrainingRun, TrainingTemplate

Place = tuple[dt.datetime, str, str]
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
    def place(self) -> Place:
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
    return Standing(claims, limits).admitted


class Standing:
    """The queue as it stands: worked out once a change, and asked by every run that waits."""

    def __init__(self, claims: Iterable[Claim], limits: Limits) -> None:
        self.limits = limits
        self._free, self._flywheels = limits.operator, dict(limits.flywheels or {})
        self._kept: Place | None = None  # of the first run for which the operator's next free GPUs are kept
        self._closed: dict[str | None, Place] = {}  # by Flywheel: of the first run that its own limit holds back
        self._scopes: dict[str | None, _Scope] = defaultdict(_Scope)  # of each Flywheel with a limit, and under None of the operator
        everybody = list(claims)
        for claim in everybody:
            if claim.held:
                self._subtract(claim, claim.held)
                for scope in self._scopes_of(claim):
                    scope.holders.append(claim)
        waiting = sorted((c for c in everybody if c.wanted), key=lambda c: c.place)
        self.admitted = frozenset(claim.uid for claim in waiting if self._take(claim))
        for claim in waiting:
            for scope in self._scopes_of(claim):
                scope.line_up(claim)

    def may(self, claim: Claim) -> bool:
        """Whether a run may begin that wants GPUs, and is perhaps not known yet."""
        if too_big(claim, self.limits) is not None:
            return False
        behind = [place for place in (self._kept, self._closed.get(claim.flywheel)) if place is not None and place < claim.place]
        if behind:
            return False
        others = [c for c in self._scopes[None].everybody() if c.uid != claim.uid]
        return claim.uid in admitted([*others, claim], self.limits)

    def wait(self, claim: Claim) -> Wait | None:
        """What a run that wants GPUs has to wait for, with the numbers; None if it may begin."""
        if claim.uid in self.admitted or self.may(claim):
            return None
        if (never := too_big(claim, self.limits)) is not None:
            message = f"needs {_gpus(claim.wanted)}, but {never}: it never begins; raise the budget, or ask for fewer GPUs"
            return Wait(Reason.GPU_BUDGET_TOO_SMALL, message)
        own, operator = self.limits.of(claim), self.limits.operator
        if own is not None and (operator is None or self._scopes[claim.flywheel].ahead(claim) + claim.wanted > own):
            where, limit, scope = f"the {own} of Flywheel {_name(claim.flywheel)}", own, self._scopes[claim.flywheel]
        else:
            where, limit, scope = f"the operator's {operator}", operator or 0, self._scopes[None]
        free, before = max(0, limit - scope.held), scope.before(claim)
        message = f"needs {_gpus(claim.wanted)}, {free} of {where} are free{scope.told}{scope.queue(before)}"
        return Wait(Reason.WAITING_FOR_GPUS, message, AGAIN + A_PLACE * before)

    def _take(self, claim: Claim) -> bool:
        """Whether a waiting run may begin, after all that were asked before. What it may not take is kept for it."""
        if too_big(claim, self.limits) is not None:
            return False  # it can't ever begin, and is in nobody's way
        limited = self.limits.of(claim) is not None
        if limited and (claim.flywheel in self._closed or claim.wanted > self._flywheels[str(claim.flywheel)]):
            self._closed.setdefault(claim.flywheel, claim.place)
            return False
        if self._free is not None and (self._kept is not None or claim.wanted > self._free):
            self._kept = self._kept or claim.place
            return False
        self._subtract(claim, claim.wanted)
        return True

    def _subtract(self, claim: Claim, amount: int) -> None:
        if self._free is not None:
            self._free -= amount
        if self.limits.of(claim) is not None:
            self._flywheels[str(claim.flywheel)] -= amount

    def _scopes_of(self, claim: Claim) -> list[_Scope]:
        limited = [self._scopes[claim.flywheel]] if self.limits.of(claim) is not None else []
        return [self._scopes[None], *limited]


class _Scope:
    """All runs under one limit: who holds, and who waits in which order."""

    def __init__(self) -> None:
        self.holders: list[Claim] = []
        self.waiting: list[Claim] = []
        self._places: list[Place] = []
        self._wanted: list[int] = [0]  # by all before

    def line_up(self, claim: Claim) -> None:
        """Next in the queue."""
        self.waiting.append(claim)
        self._places.append(claim.place)
        self._wanted.append(self._wanted[-1] + claim.wanted)

    def everybody(self) -> list[Claim]:
        """Holders and waiting ones."""
        return [*self.holders, *self.waiting]

    @cached_property
    def held(self) -> int:
        """GPUs that are held."""
        return sum(claim.held for claim in self.holders)

    def before(self, claim: Claim) -> int:
        """How many wait before a run."""
        return bisect_left(self._places, claim.place)

    def ahead(self, claim: Claim) -> int:
        """GPUs that are held, or wanted by runs before this one."""
        return self.held + self._wanted[self.before(claim)]

    @cached_property
    def told(self) -> str:
        """Who holds them."""
        held = sorted(self.holders, key=lambda c: (-c.held, c.place))
        if not held:
            return ""
        named = ", ".join(f"{claim.name} ({claim.held})" for claim in held[:NAMED])
        rest = f" and {len(held) - NAMED} more" if len(held) > NAMED else ""
        return f"; {named}{rest} {'holds' if len(held) == 1 else 'hold'} the others"

    def queue(self, before: int) -> str:
        """Who goes first."""
        if not before:
            return ""
        first = self.waiting[0].name
        return f"; {first} is first in the queue, and {before} in all go before" if before > 1 else f"; {first} goes before"


def too_big(claim: Claim, limits: Limits) -> str | None:
    """The limit that a run can never meet, in words."""
    own = limits.of(claim)
    if own is not None and claim.wanted > own:
        return f"spec.gpuBudget of Flywheel {_name(claim.flywheel)} is {own}"
    if limits.operator is not None and claim.wanted > limits.operator:
        return f"the operator's gpuBudget is {limits.operator}"
    return None


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
