"""One pass over one object: observe, plan, persist the status, then act."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError

from flywheel.api.base import format_time
from flywheel.api.reasons import Reason
from flywheel.plan.base import Action, Apply, Create, Delete, Emit, Manifest, Plan, PutExperiment
from flywheel.plan.parts import damaged, fields_of_ours
from flywheel.ports import Clock, Cluster, ClusterError, Experiments, NameConflict
from flywheel.runtime.cache import Cache, View, key_of
from flywheel.runtime.keys import CACHED, KINDS, WATCHED_FOR_EDITS, Key, Topic
from flywheel.runtime.loop import Outcome
from flywheel.runtime.metrics import Metrics

PlanOne = Callable[[View, Manifest, dt.datetime], Awaitable[Plan]]  # observe and plan one kind
CONDITION = "Reconciled"  # there only after something went wrong: False while it does, True once it has passed
SHOWN_AFTER = 3  # failures in a row; what no retry can mend is shown at once


class Reconciler:
    """The passes of all kinds."""

    def __init__(
        self, cache: Cache, cluster: Cluster, experiments: Experiments, clock: Clock, metrics: Metrics, planners: dict[str, PlanOne]
    ) -> None:
        self._cache, self._cluster, self._experiments = cache, cluster, experiments
        self._clock, self._metrics, self._planners = clock, metrics, planners
        self._reads: dict[Key, set[Topic]] = {}  # what each object's last pass looked at
        self._refused: dict[Key, str] = {}  # what no retry mends, until a pass goes through

    async def reconcile(self, key: Key) -> Outcome:
        """One pass."""
        body = self._cache.get(key)
        if body is None:
            self._cache.unsubscribe(key, self._reads.pop(key, ()))
            self._refused.pop(key, None)
            return Outcome(gone=True)
        if body["metadata"].get("deletionTimestamp"):
            return Outcome()  # what is on its way out makes nothing new; the garbage collector takes what it owned
        view = View(self._cache, key, refused=self._refused.get(key))
        try:
            plan = await self._planners[key.kind](view, body, self._clock.now())
        finally:
            before = self._reads.get(key, set())
            self._reads[key] = view.topics
            self._cache.unsubscribe(key, before - view.topics)
        if not await self._carry_out(body, plan):
            return Outcome()
        idle = not plan.actions and plan.status == (body.get("status") or {})
        return Outcome(requeue_at=plan.requeue_at, idle=idle)

    async def _carry_out(self, body: Manifest, plan: Plan) -> bool:
        """Decide, then act: nothing is done before the status that asks for it has been written. False: the object is gone."""
        current = body
        if plan.status != (body.get("status") or {}):
            try:
                current = await self._cluster.patch_status(body, plan.status)
            except ClusterError as error:
                if error.status == 404:
                    return False
                raise
            self._remember(current)
            self._count_verdict(body, plan.status)
        try:
            for action in plan.actions:
                await self._act(current, action)
        except ClusterError as error:
            if not error.retryable:
                self._refused[key_of(body)] = str(error)
            raise
        self._refused.pop(key_of(body), None)
        if (shown := _condition(plan.status)) is not None and shown["status"] == "False":
            await self._show(key_body=current, reason=Reason.READY, message="the last pass went through", healthy=True)
        return True

    async def _act(self, body: Manifest, action: Action) -> None:
        match action:
            case Apply(manifest):
                made = await self._cluster.apply(manifest)
                if made.get("kind") in WATCHED_FOR_EDITS and damaged(
                    [manifest], {(made["kind"], made["metadata"]["name"]): fields_of_ours(made)}
                ):
                    self._cache.accept(made)  # a webhook rewrites it at every apply: applying it again and again would change nothing
                self._remember(made)
            case Create(manifest):
                self._remember(await self._cluster.create(manifest))
            case Delete(api_version, kind, namespace, name, uid):
                await self._cluster.delete(api_version, kind, namespace, name, uid)
            case PutExperiment(collector, experiment, definition):
                try:
                    await self._experiments.put(collector, experiment, definition)
                except ClusterError as error:
                    if error.status != 409:
                        raise
                    # It counts already, by how it was first defined: that is no reason to hold up the users' routes.
                    await self._cluster.emit(body, "Warning", "ExperimentKept", str(error))
            case Emit(type_, reason, message):
                await self._cluster.emit(body, type_, reason, message)

    def _remember(self, body: Manifest) -> None:
        # A write is seen by the next pass even before its watch event: no decision is taken on a state we have changed ourselves.
        if body.get("kind") in CACHED:
            self._cache.put(body)

    def _count_verdict(self, body: Manifest, status: dict[str, Any]) -> None:
        new, old = status.get("decision"), (body.get("status") or {}).get("decision")
        if new and (not old or old.get("time") != new.get("time")):
            self._metrics.verdict(body["kind"], new["verdict"], new["reason"])

    async def failed(self, key: Key, error: Exception, failures: int) -> None:
        """Show on the object what keeps going wrong, as a condition and an event."""
        final = isinstance(error, NameConflict | ValidationError) or (isinstance(error, ClusterError) and not error.retryable)
        body = self._cache.get(key)
        if body is None or (failures < SHOWN_AFTER and not final):
            return
        reason, message = _explain(error)
        await self._cluster.emit(body, "Warning", reason.value, message)
        if key.kind not in KINDS:
            return  # it has no status
        await self._show(key_body=body, reason=reason, message=message, healthy=False)

    async def _show(self, *, key_body: Manifest, reason: Reason, message: str, healthy: bool) -> None:
        status = dict(key_body.get("status") or {})
        old = _condition(status)
        word = "True" if healthy else "False"
        if old is not None and (old["status"], old["reason"], old.get("message")) == (word, reason.value, message):
            return
        since = old["lastTransitionTime"] if old is not None and old["status"] == word else format_time(self._clock.now())
        new = {
            "type": CONDITION,
            "status": word,
            "reason": reason.value,
            "message": message,
            "observedGeneration": key_body["metadata"].get("generation", 0),
            "lastTransitionTime": since,
        }
        status["conditions"] = [c for c in status.get("conditions") or () if c["type"] != CONDITION] + [new]
        self._remember(await self._cluster.patch_status(key_body, status))


def _condition(status: dict[str, Any]) -> dict[str, Any] | None:
    return next((c for c in status.get("conditions") or () if c["type"] == CONDITION), None)


def _explain(error: Exception) -> tuple[Reason, str]:
    if isinstance(error, NameConflict):
        return Reason.NAME_CONFLICT, str(error)[:4096]
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Reason.INVALID_SPEC, f"{where}: {first['msg']}; this operator can't read the object, mend the field or upgrade the operator"[
            :4096
        ]
    retried = "it is tried again, less and less often"
    if isinstance(error, TimeoutError) and not str(error):
        return Reason.RETRYABLE_ERROR, f"a pass took too long; {retried}"
    return Reason.RETRYABLE_ERROR, f"{str(error) or type(error).__name__}; {retried}"[:4096]
