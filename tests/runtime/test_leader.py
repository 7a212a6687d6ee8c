from __future__ import annotations

import asyncio
import copy
import datetime as dt
from typing import Any

import pytest

from flywheel.ports import Clock, ClusterError, Conflict
from flywheel.runtime.leader import DURATION, RENEW_DEADLINE, REQUEST_TIMEOUT, RETRY, Leader
from tests.runtime.faketime import LoopClock, now, run


class Leases:
    """An API server with one lease."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down: set[str] = set()  # identities that can't reach it

    def api(self, identity: str) -> Any:
        return _Api(self, identity)


class _Api:
    def __init__(self, leases: Leases, identity: str) -> None:
        self._leases, self._identity = leases, identity

    async def request(self, method: str, path: str, *, body: Any = None, seconds: float, urgent: bool) -> dict[str, Any]:
        assert urgent, "the lease never waits behind ordinary requests"
        leases = self._leases
        if self._identity in leases.down:
            await asyncio.sleep(seconds)
            raise ClusterError("timeout", status=0, retryable=True)
        if method == "GET" and leases.lease is None:
            raise ClusterError("none", status=404, retryable=False)
        if method == "POST" and leases.lease is not None:
            raise Conflict("exists", status=409, retryable=True)
        if method == "PUT":
            assert leases.lease is not None
            if body["metadata"]["resourceVersion"] != leases.lease["metadata"]["resourceVersion"]:
                raise Conflict("changed", status=409, retryable=True)
        if method != "GET":
            leases.version += 1
            leases.lease = copy.deepcopy(body)
            leases.lease["metadata"]["resourceVersion"] = str(leases.version)
        assert leases.lease is not None
        return copy.deepcopy(leases.lease)


class Replica:
    """One operator process."""

    def __init__(self, leases: Leases, name: str, clock: Clock | None = None, pod: str = "") -> None:
        self.name = name
        self.leads_from: float | None = None
        self.lost_at: float | None = None
        self.leader = Leader(
            leases.api(name), namespace="flywheel-system", identity=name, clock=clock or LoopClock(), on_lost=self._lost, pod=pod
        )
        self.task = asyncio.create_task(self._live())

    def _lost(self, why: str) -> None:
        self.lost_at = now()

    async def _live(self) -> None:
        await self.leader.acquire()
        self.leads_from = now()
        await self.leader.hold()

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def test_the_first_replica_leads_and_the_second_stands_by() -> None:
    async def main() -> None:
        leases = Leases()
        first = Replica(leases, "first")
        await asyncio.sleep(1)
        second = Replica(leases, "second")
        await asyncio.sleep(300)
        assert first.leads_from is not None
        assert first.lost_at is None
        assert second.leads_from is None
        await first.end()
        await second.end()

    run(main())


def test_a_standby_takes_over_when_the_leader_was_killed() -> None:
    async def main() -> None:
        leases = Leases()
        first = Replica(leases, "first")
        await asyncio.sleep(1)
        second = Replica(leases, "second")
        await asyncio.sleep(30)
        await first.end()
        killed = now()
        await asyncio.sleep(60)
        assert second.leads_from is not None
        assert DURATION - 3 <= second.leads_from - killed <= DURATION + 2 * RETRY + 2
        await second.end()

    run(main())


def test_a_leader_that_can_not_renew_has_stopped_before_another_starts() -> None:
    async def main() -> None:
        leases = Leases()
        first = Replica(leases, "first")
        await asyncio.sleep(1)
        second = Replica(leases, "second")
        await asyncio.sleep(30)
        leases.down.add("first")
        await asyncio.sleep(120)
        assert first.lost_at is not None
        assert second.leads_from is not None
        assert first.lost_at < second.leads_from
        await first.end()
        await second.end()

    run(main())


def test_the_deadlines_are_nested() -> None:
    assert REQUEST_TIMEOUT < RENEW_DEADLINE
    assert RENEW_DEADLINE + REQUEST_TIMEOUT < DURATION


def test_a_short_outage_does_not_cost_the_lead() -> None:
    async def main() -> None:
        leases = Leases()
        first = Replica(leases, "first")
        await asyncio.sleep(10)
        leases.down.add("first")
        await asyncio.sleep(5)
        leases.down.clear()
        await asyncio.sleep(60)
        assert first.lost_at is None
        await first.end()

    run(main())


def test_a_lease_that_was_taken_away_is_lost_at_the_next_renewal() -> None:
    async def main() -> None:
        leases = Leases()
        first = Replica(leases, "first")
        await asyncio.sleep(10)
        assert leases.lease is not None
        leases.version += 1
        leases.lease["spec"]["holderIdentity"] = "thief"
        leases.lease["metadata"]["resourceVersion"] = str(leases.version)
        await asyncio.sleep(RETRY * 2)
        assert first.lost_at is not None
        await first.end()

    run(main())


def test_a_released_lease_is_taken_at_once() -> None:
    async def main() -> None:
        leases = Leases()
        first = Replica(leases, "first")
        await asyncio.sleep(1)
        second = Replica(leases, "second")
        await asyncio.sleep(30)
        await first.end()
        await first.leader.release()
        released = now()
        await asyncio.sleep(10)
        assert second.leads_from is not None
        assert second.leads_from - released < 2 * RETRY
        await second.end()

    run(main())


class Skewed:
    """The wall clock of a machine that is wrong by days."""

    def __init__(self, days: float) -> None:
        self._wrong = dt.timedelta(days=days)

    def now(self) -> dt.datetime:
        return LoopClock().now() + self._wrong


@pytest.mark.parametrize("days", [-1, 1, 365])
def test_a_standby_whose_wall_clock_is_wrong_neither_takes_a_held_lease_nor_waits_longer_for_one_that_ran_out(days: float) -> None:
    async def main() -> None:
        leases = Leases()
        first = Replica(leases, "first")
        await asyncio.sleep(1)
        second = Replica(leases, "second", Skewed(days))
        await asyncio.sleep(120)
        assert second.leads_from is None
        await first.end()
        killed = now()
        await asyncio.sleep(60)
        assert second.leads_from is not None
        assert DURATION - 3 <= second.leads_from - killed <= DURATION + 2 * RETRY + 2
        await second.end()

    run(main())


def test_nothing_may_be_written_before_the_lease_is_ours_and_none_of_it_after_it_could_not_be_renewed_in_time() -> None:
    async def main() -> None:
        leases = Leases()
        first = Replica(leases, "first")
        assert first.leader.fence() == "this replica does not lead"
        await asyncio.sleep(30)
        assert first.leader.fence() is None
        first.task.cancel()  # it stands still: no task of it runs, as after SIGSTOP
        await asyncio.sleep(RENEW_DEADLINE + RETRY + 0.1)
        assert first.leader.fence() == "the lease could not be renewed for 10 s"

    run(main())


@pytest.mark.parametrize(("pod", "waits"), [("operator-0", False), ("operator-1", True), ("", True)])
def test_only_a_container_that_was_started_again_in_the_holders_pod_takes_its_lease_without_waiting(pod: str, waits: bool) -> None:
    async def main() -> None:
        leases = Leases()
        first = Replica(leases, "operator-0_1111", pod="operator-0")
        await asyncio.sleep(10)
        await first.end()  # killed: nothing is released
        second = Replica(leases, f"{pod or 'operator-0'}_2222", pod=pod)
        await asyncio.sleep(RETRY * 2)
        assert (second.leads_from is None) == waits
        await second.end()

    run(main())
