"""The GPU budgets at work: what all runs hold and wait for, kept up by the watches, and who is woken when GPUs become free.

A claim counts from the moment a plan has made it, before its status has reached the API server: between what is asked here and what is
claimed here nothing else runs, so that two passes at once never take the same GPUs. After a restart the statuses say the same.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from flywheel.api.reasons import Reason
from flywheel.api.training_run import TrainingRun
from flywheel.plan.base import LABEL, Manifest
from flywheel.plan.gpu_budget import Claim, Limits, Standing, Wait, gpus, held
from flywheel.runtime.keys import Key

_LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)


class GpuQueue:
    """All runs that hold or want GPUs. Its methods are synchronous: nobody sees half a change."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._flywheels: dict[str, int] = {}
        self._claims: dict[Key, Claim] = {}
        self._ahead: dict[Key, str] = {}  # claims on their way into a status, by the resourceVersion that they follow on
        self._wake: Callable[[Key], None] = lambda key: None
        self._waiting: set[Key] = set()
        self._stood: Standing | None = None  # None: to be worked out again
        self._told: frozenset[str] = frozenset()
        self._scheduled = False

    def wakes(self, wake: Callable[[Key], None]) -> None:
        """Whom to tell of a run whose turn it is."""
        self._wake = wake

    def seen(self, key: Key, body: Manifest | None) -> None:
        """An object as it stands now, or None if it is gone."""
        if key.kind == "Flywheel":
            budget = ((body or {}).get("spec") or {}).get("gpuBudget")
            self._change(self._flywheels, f"{key.namespace}/{key.name}", budget)
        elif key.kind == "TrainingRun":
            if body is not None and self._ahead.get(key) == body["metadata"].get("resourceVersion"):
                return  # what was claimed since is not in it yet
            self._ahead.pop(key, None)
            self._change(self._claims, key, _claim(key, body))

    def ask(self, run: TrainingRun) -> Wait | None:
        """What a run has to wait for before it may hold GPUs; None if it may now."""
        if not gpus(run.spec) or (self._limit is None and not self._flywheels):
            return None
        key = Key("TrainingRun", run.metadata.namespace, run.metadata.name)
        asked, standing = _of(key, run, wanted=gpus(run.spec)), self._standing()
        known = self._claims.get(key)
        if known is not None and known.held:  # it asks for what it may have instead
            standing = Standing([claim for at, claim in self._claims.items() if at != key], self._limits())
        return standing.wait(asked)

    def claim(self, key: Key, body: Manifest, status: dict[str, Any]) -> None:
        """What a plan has just decided about a run, which `body` was read for. Whatever it lets go is let go once its status says so."""
        decided, before = _claim(key, {**body, "status": status}), self._claims.get(key)
        if decided is not None and decided.held > (before.held if before else 0):
            self._ahead[key] = body["metadata"].get("resourceVersion", "")
            self._change(self._claims, key, decided)
        elif key in self._ahead and (decided is None or not decided.held):  # what was claimed did not get into the status
            del self._ahead[key]
            self._change(self._claims, key, _claim(key, body))

    # ------------------------------------------------------------------------------------------------------------ inside

    def _change(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        if table.get(key) == value:
            return
        if value is None:
            del table[key]
        else:
            table[key] = value
        self._stood = None
        if table is self._claims:
            (self._waiting.add if value is not None and value.wanted else self._waiting.discard)(key)
        if not self._scheduled and self._waiting:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        """Wake whose turn it has become."""
        self._scheduled = False
        may = self._standing().admitted
        for key in [key for key in self._waiting if self._claims[key].uid in may - self._told]:
            self._wake(key)
        self._told = may

    def _standing(self) -> Standing:
        if self._stood is None:
            self._stood = Standing(self._claims.values(), self._limits())
        return self._stood

    def _limits(self) -> Limits:
        return Limits(self._limit, dict(self._flywheels))


def _claim(key: Key, body: Manifest | None) -> Claim | None:
    """What a run holds or waits for; None if neither, which is most of them."""
    status = (body or {}).get("status") or {}
    if body is None or not (status.get("gpus") or _waits(status) or ("gpus" not in status and _under_way(status))):
        return None
    try:
        run = TrainingRun.model_validate(body)
    except ValidationError:  # of another version; its own pass tells
        return None
    holds = held(run)
    waits = not holds and _waits(status) and run.metadata.deletion_timestamp is None and not run.spec.suspend
    return _of(key, run, held=holds, wanted=gpus(run.spec) if waits else 0) if holds or waits else None


def _of(key: Key, run: TrainingRun, *, held: int = 0, wanted: int = 0) -> Claim:
    service = run.metadata.labels.get(LABEL + "flywheel")
    return Claim(
        uid=run.metadata.uid,
        name=f"{key.namespace}/{key.name}",
        created=run.metadata.creation_timestamp or _LONG_AGO,
        flywheel=f"{key.namespace}/{service}" if service else None,
        held=held,
        wanted=wanted,
    )


def _waits(status: Mapping[str, Any]) -> bool:
    reasons = {condition.get("reason") for condition in status.get("conditions") or () if condition.get("type") == "Progressing"}
    return bool(reasons & {Reason.WAITING_FOR_GPUS, Reason.GPU_BUDGET_TOO_SMALL})


def _under_way(status: Mapping[str, Any]) -> bool:
    attempts = list(status.get("attempts") or ())
    return bool(attempts) and not attempts[-1].get("endTime")
