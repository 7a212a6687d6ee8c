from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from flywheel.ports import ClusterError, Conflict, NameConflict
from flywheel.runtime.keys import Key
from flywheel.runtime.loop import EVENT_FLOOR, IDLE_LOOKS_OF_OTHERS, MAX_BACKOFF, OUTAGE_BACKOFF, RESYNC, ROUTINE_YIELDS, Loop, Outcome
from tests.runtime.faketime import START, LoopClock, now, run

A, B = Key("Rollout", "demo", "a"), Key("Rollout", "demo", "b")
Pass = Callable[[Key], Awaitable[Outcome]]


class Silent:
    def passed(self, key: Key, seconds: float, error: Exception | None) -> None: ...


class Recorder:
    """Counts passes and checks that no object ever has two at once."""

    def __init__(self, passes: Pass) -> None:
        self._pass = passes
        self.times: dict[Key, list[float]] = {}
        self.errors: list[tuple[Key, int]] = []
        self._running: set[Key] = set()

    async def reconcile(self, key: Key) -> Outcome:
        assert key not in self._running, f"{key} has two passes at once"
        self._running.add(key)
        self.times.setdefault(key, []).append(now())
        try:
            return await self._pass(key)
        finally:
            self._running.discard(key)

    async def failed(self, key: Key, error: Exception, failures: int) -> None:
        self.errors.append((key, failures))


@asynccontextmanager
async def running(passes: Pass, *, concurrency: int = 8, resync: float = 600.0) -> AsyncIterator[tuple[Loop, Recorder]]:
    recorder = Recorder(passes)
    loop = Loop(
        recorder.reconcile,
        clock=LoopClock(),
        watcher=Silent(),
        on_error=recorder.failed,
        concurrency=concurrency,
        resync=resync,
        jitter=lambda: 0.5,
    )
    loop.open()
    task = asyncio.create_task(loop.run())
    await asyncio.sleep(0)
    yield loop, recorder
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def done(_key: Key) -> Outcome:
    return Outcome()


def failing(error: Exception) -> Pass:
    async def fails(_key: Key) -> Outcome:
        raise error

    return fails


def lasting(seconds: float, outcome: Outcome | None = None) -> Pass:
    async def lasts(_key: Key) -> Outcome:
        await asyncio.sleep(seconds)
        return outcome or Outcome()

    return lasts


def test_an_object_woken_many_times_before_its_pass_has_one_pass() -> None:
    async def main() -> None:
        async with running(done) as (loop, recorder):
            for _ in range(100):
                loop.wake(A)
            await asyncio.sleep(1)
            assert recorder.times[A] == [0.0]

    run(main())


def test_an_object_woken_during_its_pass_has_exactly_one_more_after_it_and_never_two_at_once() -> None:
    async def main() -> None:
        async with running(lasting(2)) as (loop, recorder):
            loop.wake(A)
            for _ in range(10):
                await asyncio.sleep(0.1)
                loop.wake(A)
            await asyncio.sleep(10)
            assert recorder.times[A] == [0.0, 2.0]

    run(main())


def test_a_slow_object_delays_no_other() -> None:
    async def slow_or_quick(key: Key) -> Outcome:
        if key == A:
            await asyncio.sleep(60)
        return Outcome()

    async def main() -> None:
        async with running(slow_or_quick) as (loop, recorder):
            loop.wake(A)
            loop.wake(B)
            await asyncio.sleep(1)
            assert recorder.times == {A: [0.0], B: [0.0]}

    run(main())


def test_an_object_is_looked_at_again_when_its_plan_asks_for_it() -> None:
    async def main() -> None:
        async def in_a_minute(_key: Key) -> Outcome:
            return Outcome(requeue_at=START + dt.timedelta(seconds=now() + 60))

        async with running(in_a_minute) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(150)
            assert recorder.times[A] == [0.0, 60.0, 120.0]

    run(main())


def test_an_object_that_asks_for_nothing_is_looked_at_again_all_the_same() -> None:
    async def main() -> None:
        async with running(done, resync=600) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(1300)
            assert recorder.times[A] == [0.0, 600.0, 1200.0]

    run(main())


def test_a_wake_up_far_in_the_future_is_not_trusted_to_one_timer() -> None:
    async def main() -> None:
        async def in_a_week(_key: Key) -> Outcome:
            return Outcome(requeue_at=START + dt.timedelta(days=7))

        async with running(in_a_week, resync=600) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(601)
            assert recorder.times[A] == [0.0, 600.0]

    run(main())


def test_a_plan_that_asks_for_the_past_does_not_spin() -> None:
    async def main() -> None:
        async with running(lasting(0, Outcome(requeue_at=START - dt.timedelta(days=1)))) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(1)
            assert len(recorder.times[A]) <= 21

    run(main())


def test_failures_are_retried_ever_more_slowly_and_at_least_every_five_minutes() -> None:
    async def main() -> None:
        async with running(failing(ValueError("a bug"))) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(3600)
            gaps = [b - a for a, b in zip(recorder.times[A], recorder.times[A][1:], strict=False)]
            assert gaps == sorted(gaps)
            assert gaps[0] < 1
            assert gaps[-1] == pytest.approx(MAX_BACKOFF * 0.75)
            assert recorder.errors[-1] == (A, len(recorder.times[A]))

    run(main())


def test_everything_goes_on_soon_after_the_api_server_is_back() -> None:
    async def main() -> None:
        down = ClusterError("no route", status=0, retryable=True)
        back_at = 1800.0

        async def while_down(_key: Key) -> Outcome:
            if now() < back_at:
                raise down
            return Outcome()

        async with running(while_down) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(back_at + OUTAGE_BACKOFF)
            assert recorder.times[A][-1] >= back_at

    run(main())


def test_the_server_is_given_the_time_it_asks_for() -> None:
    async def main() -> None:
        async with running(failing(ClusterError("busy", status=429, retryable=True, retry_after=42.0))) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(43)
            assert recorder.times[A] == [0.0, 42.0]

    run(main())


def test_changes_around_a_failing_object_bring_its_next_try_forward_but_not_in_a_storm() -> None:
    async def main() -> None:
        async with running(failing(ClusterError("no", status=422, retryable=False))) as (loop, recorder):
            loop.wake(A)
            for _ in range(100):
                await asyncio.sleep(0.1)
                loop.wake(A)
            assert 9 <= len(recorder.times[A]) <= 11
            gaps = [b - a for a, b in zip(recorder.times[A], recorder.times[A][1:], strict=False)]
            assert min(gaps) >= EVENT_FLOOR - 1e-6

    run(main())


def test_a_conflict_is_retried_at_once_and_is_no_failure() -> None:
    async def main() -> None:
        conflicts = [Conflict("written in between", status=409, retryable=True)]

        async def once(_key: Key) -> Outcome:
            if conflicts:
                raise conflicts.pop()
            return Outcome()

        async with running(once) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(0.1)
            assert len(recorder.times[A]) == 2
            assert recorder.errors == []

    run(main())


def test_a_name_that_is_taken_is_a_failure_and_not_a_conflict_to_spin_on() -> None:
    async def main() -> None:
        async with running(failing(NameConflict("taken", status=409, retryable=True))) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(0.1)
            assert recorder.errors == [(A, 1)]

    run(main())


def test_an_object_that_is_gone_is_forgotten() -> None:
    async def main() -> None:
        async with running(lasting(0, Outcome(gone=True)), resync=10) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(100)
            assert recorder.times[A] == [0.0]

    run(main())


def test_an_object_that_comes_back_during_its_last_pass_is_not_forgotten() -> None:
    async def main() -> None:
        async with running(lasting(1, Outcome(gone=True))) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(0.5)
            loop.wake(A)
            await asyncio.sleep(5)
            assert recorder.times[A] == [0.0, 1.0]

    run(main())


def test_nothing_is_passed_before_the_caches_are_complete() -> None:
    async def main() -> None:
        recorder = Recorder(done)
        loop = Loop(recorder.reconcile, clock=LoopClock(), watcher=Silent(), on_error=recorder.failed)
        task = asyncio.create_task(loop.run())
        loop.wake(A)
        await asyncio.sleep(5)
        assert recorder.times == {}
        loop.open()
        await asyncio.sleep(1)
        assert list(recorder.times) == [A]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())


def test_stopping_finishes_the_passes_that_run_and_begins_no_other() -> None:
    async def main() -> None:
        ended: list[Key] = []

        async def slow(key: Key) -> Outcome:
            await asyncio.sleep(3)
            ended.append(key)
            return Outcome()

        recorder = Recorder(slow)
        loop = Loop(recorder.reconcile, clock=LoopClock(), watcher=Silent(), on_error=recorder.failed, concurrency=1)
        loop.open()
        task = asyncio.create_task(loop.run())
        loop.wake(A)
        loop.wake(B)
        await asyncio.sleep(1)
        loop.stop()
        await asyncio.wait_for(task, 10)
        assert ended == [A]

    run(main())


def test_the_ticks_stop_when_every_worker_hangs() -> None:
    async def main() -> None:
        async with running(lasting(100), concurrency=1) as (loop, _):
            await asyncio.sleep(50)
            assert now() - loop.last_tick < 10
            loop.wake(A)
            await asyncio.sleep(90)
            assert now() - loop.last_tick > 80

    run(main())


def test_a_pass_that_hangs_for_ever_is_cut_off_and_retried() -> None:
    async def main() -> None:
        async with running(lasting(1e9)) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(300)
            assert len(recorder.times[A]) >= 2
            assert recorder.errors

    run(main())


def test_looks_that_find_nothing_to_do_are_rarer_the_more_objects_there_are_and_never_those_of_few() -> None:
    async def idle(key: Key) -> Outcome:
        return Outcome(requeue_at=LoopClock().now() + dt.timedelta(seconds=5), idle=True)

    async def main(count: int) -> float:
        async with running(idle) as (loop, recorder):
            for number in range(count):
                loop.wake(Key("Flywheel", "demo", f"f{number}"))
            await asyncio.sleep(100)
            times = recorder.times[Key("Flywheel", "demo", "f0")]
            return times[-1] - times[-2]

    assert run(main(10)) == pytest.approx(5, abs=0.5)
    assert run(main(300)) == pytest.approx(300 / IDLE_LOOKS_OF_OTHERS, abs=1)


def test_an_object_that_is_busy_or_about_to_act_is_looked_at_when_it_asks_however_many_others_there_are() -> None:
    async def soon(key: Key) -> Outcome:
        return Outcome(requeue_at=LoopClock().now() + dt.timedelta(seconds=1 if key == A else 5), idle=key == A)

    async def main() -> None:
        async with running(soon) as (loop, recorder):
            for number in range(300):
                loop.wake(Key("Rollout", "demo", f"r{number}"))
            loop.wake(A)
            await asyncio.sleep(30)
            assert len(recorder.times[A]) == pytest.approx(30, abs=2)
            assert len(recorder.times[Key("Rollout", "demo", "r7")]) == pytest.approx(6, abs=1)

    run(main())


def test_a_change_is_not_kept_waiting_by_a_thousand_looks_that_only_time_asks_for() -> None:
    takes = 0.0

    async def look(key: Key) -> Outcome:
        await asyncio.sleep(takes)
        return Outcome(requeue_at=LoopClock().now() + dt.timedelta(seconds=60))

    async def main() -> None:
        nonlocal takes
        async with running(look, concurrency=4) as (loop, recorder):
            for number in range(1000):
                loop.wake(Key("Rollout", "demo", f"r{number}"))
            await asyncio.sleep(1)
            takes = 0.1
            await asyncio.sleep(60)  # all ask for their next look at once: 25 seconds of work
            assert loop.depth > 900
            changed = [key for key, times in recorder.times.items() if len(times) == 1][::200]
            came = now()
            for key in changed:
                loop.wake(key)
            await asyncio.sleep(30)
            assert all(recorder.times[key][1] - came < 0.5 for key in changed)
            looks = {key: times for key, times in recorder.times.items() if len(times) != 2}
            assert not looks, "each has had its second look, and none a third"

    run(main())


def test_changes_that_never_end_keep_no_routine_look_waiting_for_ever() -> None:
    async def slow(key: Key) -> Outcome:
        await asyncio.sleep(0.1)
        return Outcome(requeue_at=LoopClock().now() + dt.timedelta(seconds=5) if key == A else None)

    async def main() -> None:
        async with running(slow, concurrency=1) as (loop, recorder):
            loop.wake(A)
            await asyncio.sleep(1)
            for number in range(3000):  # more than there is time for
                loop.wake(Key("Rollout", "demo", f"r{number % 500}"))
                await asyncio.sleep(0.05)
            waits = [after - before for before, after in itertools.pairwise(recorder.times[A])]
            assert waits
            assert max(waits) < 5 + ROUTINE_YIELDS + 0.1 * 500

    run(main())


def test_what_no_longer_asks_for_another_look_makes_room_for_the_others() -> None:
    over = False

    async def idle(key: Key) -> Outcome:
        done = over and key.name != "f0"
        return Outcome(requeue_at=None if done else LoopClock().now() + dt.timedelta(seconds=5), idle=True)

    async def main() -> None:
        nonlocal over
        async with running(idle) as (loop, recorder):
            for number in range(300):
                loop.wake(Key("Flywheel", "demo", f"f{number}"))
            await asyncio.sleep(100)
            over = True
            await asyncio.sleep(200)
            times = recorder.times[Key("Flywheel", "demo", "f0")]
            assert times[-1] - times[-2] == pytest.approx(5, abs=0.5)

    run(main())


class Set:
    """A wall clock that somebody sets."""

    def __init__(self) -> None:
        self.off = dt.timedelta()

    def now(self) -> dt.datetime:
        return LoopClock().now() + self.off


@pytest.mark.parametrize("jump", [dt.timedelta(hours=-1), dt.timedelta(days=1)])
def test_a_wall_clock_that_jumps_delays_no_look_for_longer_than_the_resync(jump: dt.timedelta) -> None:
    clock = Set()

    async def window(_key: Key) -> Outcome:
        end = START + dt.timedelta(hours=2)  # of a window, by the wall clock
        return Outcome(requeue_at=end if clock.now() < end else None)

    async def main() -> list[float]:
        recorder = Recorder(window)
        loop = Loop(recorder.reconcile, clock=clock, watcher=Silent(), on_error=recorder.failed, jitter=lambda: 0.5)
        loop.open()
        task = asyncio.create_task(loop.run())
        loop.wake(A)
        await asyncio.sleep(30)
        clock.off = jump
        await asyncio.sleep(3570)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return recorder.times[A]

    times = [time for time in run(main()) if time < 3600]
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert times[-1] > 2400
    assert max(waits) <= 1.2 * RESYNC
    if jump > dt.timedelta():
        assert any(time < 30 + 1.2 * RESYNC for time in times[1:]), "the window is over: it is seen at the next look"


def test_an_api_server_that_refuses_everything_is_not_asked_in_a_storm() -> None:
    async def main() -> None:
        async with running(failing(ClusterError("busy", status=503, retryable=True)), concurrency=64) as (loop, recorder):
            for number in range(300):
                loop.wake(Key("Rollout", "demo", f"r{number}"))
            await asyncio.sleep(60)
            begun = sum(len(times) for times in recorder.times.values())
            await asyncio.sleep(120)
            rate = (sum(len(times) for times in recorder.times.values()) - begun) / 120
            assert rate < 300 / OUTAGE_BACKOFF * 2

    run(main())
