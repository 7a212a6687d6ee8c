"""When a Flywheel starts its next lap, what keeps it from that, and what its laps are called."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel.api.base import Condition, OwnerReference, get_condition
from flywheel.api.flywheel import Flywheel, FlywheelStatus
from flywheel.api.generation import Generation
from flywheel.plan.base import Action, Create, Delete, Emit
from flywheel.plan.flywheel_backoff import delayed_until
from flywheel.plan.flywheel_laps import plan_laps
from flywheel.plan.flywheel_names import first_generation, lap_name
from tests.plan.test_flywheel import T0, flywheel
from tests.plan.test_flywheel import lap as a_lap

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
DAILY = {"schedule": "0 3 * * *"}
FIRST_DUE = dt.datetime(2026, 11, 24, 3, 0, tzinfo=dt.UTC)


class Loop:
    """A Flywheel whose laps end as a test says; one pass a step."""

    def __init__(self, name: str = "demo", **spec: Any) -> None:
        made = flywheel(**spec)
        self.flywheel = made.model_copy(update={"metadata": made.metadata.model_copy(update={"name": name})})
        self.laps: dict[str, Generation] = {}
        self.now = T0
        self.conversations: float | None = None
        self.deleted: list[str] = []
        self.events: list[str] = []

    @property
    def status(self) -> FlywheelStatus:
        return self.flywheel.status

    def step(self, at: dt.datetime | None = None, *, crash: bool = False) -> list[Action]:
        """One pass; `crash` loses what follows from the status."""
        self.now = at or self.now
        planned = plan_laps(self.flywheel, self.status, list(self.laps.values()), self.conversations, self.now)
        self.flywheel = self.flywheel.model_copy(update={"status": FlywheelStatus.model_validate(planned.status.dump())})
        for action in () if crash else planned.actions:
            if isinstance(action, Create):
                self.make(action.manifest["metadata"]["name"])
            elif isinstance(action, Delete):
                self.deleted.append(action.name)
                del self.laps[action.name]
            elif isinstance(action, Emit):
                self.events.append(action.reason)
        return list(planned.actions)

    def make(self, name: str, phase: str = "Pending", *, own: bool = True, begun: bool = False) -> None:
        lap = a_lap(name, phase)
        owner = OwnerReference(api_version="v", kind="Flywheel", name="demo", uid="u-f" if own else "somebody", controller=True)
        meta = lap.metadata.model_copy(update={"owner_references": (owner,), "creation_timestamp": self.now})
        status = lap.status.model_copy(update={"revision": 1 if begun else None, "completion_time": None})
        self.laps[name] = lap.model_copy(update={"metadata": meta, "status": status})

    def is_now(self, name: str, phase: str) -> None:
        lap = self.laps[name]
        ended = phase not in ("Pending", "Training", "Suspended", "RollingOut")
        status = lap.status.model_copy(update={"phase": phase, "revision": 1, "completion_time": self.now if ended else None})
        self.laps[name] = lap.model_copy(update={"status": status})

    def edit(self, **spec: Any) -> None:
        body = {**self.flywheel.dump(), "spec": {**self.flywheel.spec.dump(), **spec}}
        self.flywheel = Flywheel.model_validate(body)

    def annotate_retry(self, token: str) -> None:
        meta = self.flywheel.metadata.model_copy(update={"annotations": {"modelflywheel.dev/retry": token}})
        self.flywheel = self.flywheel.model_copy(update={"metadata": meta})

    def says(self) -> Condition:
        found = get_condition(self.status.conditions, "NextLap")
        assert found is not None
        return found


# ------------------------------------------------------------------------------------------------------------- schedule


def test_however_many_times_were_missed_one_lap_makes_up_for_all() -> None:
    loop = Loop(trigger=DAILY)
    loop.step()
    loop.step(T0 + 9 * DAY)
    assert sorted(loop.laps) == ["demo-1"]
    loop.is_now("demo-1", "Promoted")
    loop.step(T0 + 9 * DAY + HOUR)
    assert sorted(loop.laps) == ["demo-1"]
    assert loop.status.next_lap_time == FIRST_DUE + 9 * DAY


def test_what_was_missed_by_more_than_the_deadline_is_skipped_and_said() -> None:
    loop = Loop(trigger={**DAILY, "startingDeadline": "10m"})
    loop.step()
    loop.step(FIRST_DUE + HOUR)
    assert loop.laps == {}
    assert "the one of 2026-11-24 03:00 UTC was missed by more than startingDeadline" in loop.says().message
    assert loop.status.next_lap_time == FIRST_DUE + DAY
    loop.step(FIRST_DUE + DAY + dt.timedelta(minutes=9))
    assert sorted(loop.laps) == ["demo-1"]


def test_a_due_lap_waits_for_the_one_that_runs_says_so_and_starts_at_its_end() -> None:
    loop = Loop(trigger=DAILY)
    loop.make("by-hand", "Training", own=False)
    loop.step()
    loop.step(FIRST_DUE)
    assert sorted(loop.laps) == ["by-hand"]
    said = loop.says()
    assert (said.status, said.reason) == ("False", "LapRunning")
    assert said.message == "a lap is due, and starts when by-hand has ended (spec.concurrencyPolicy is Forbid)"
    loop.is_now("by-hand", "Rejected")
    loop.step(FIRST_DUE + HOUR)
    assert sorted(loop.laps) == ["by-hand", "demo-1"]
    assert loop.says().status == "True"


def test_a_due_lap_of_a_suspended_flywheel_says_so() -> None:
    loop = Loop(trigger={"newConversations": 5}, suspend=True)
    loop.conversations = 9
    loop.step()
    assert (loop.says().status, loop.says().reason) == ("False", "Suspended")
    loop.edit(suspend=False)
    loop.step()
    assert sorted(loop.laps) == ["demo-1"]


def test_a_flywheel_whose_laps_are_started_by_hand_says_nothing_of_a_next_one() -> None:
    loop = Loop(trigger=DAILY)
    loop.step()
    loop.edit(trigger={})
    loop.step()
    assert get_condition(loop.status.conditions, "NextLap") is None
    assert loop.status.next_lap_time is None


# -------------------------------------------------------------------------------------------------------------- replace


def replacing() -> Loop:
    """Lap 1 trains, and the next one is due."""
    loop = Loop(trigger=DAILY, concurrencyPolicy="Replace")
    loop.step()
    loop.step(FIRST_DUE)
    loop.is_now("demo-1", "Training")
    loop.step(FIRST_DUE + HOUR)
    return loop


def test_replace_deletes_what_still_trains_but_only_once_the_next_lap_has_begun() -> None:
    loop = replacing()
    loop.step(FIRST_DUE + DAY)
    assert (sorted(loop.laps), loop.deleted) == (["demo-1", "demo-2"], [])
    loop.step()
    assert loop.deleted == []  # whose replies users rejected is on record in the old lap alone as yet
    loop.is_now("demo-2", "Training")
    loop.step()
    assert (sorted(loop.laps), loop.deleted) == (["demo-2"], ["demo-1"])
    assert "LapReplaced" in loop.events
    loop.step()
    assert loop.status.replacing == ()


def test_a_crash_between_the_decision_to_replace_and_the_acts_changes_nothing() -> None:
    loop = replacing()
    loop.step(FIRST_DUE + DAY, crash=True)
    loop.step()
    loop.is_now("demo-2", "Training")
    loop.step(crash=True)
    loop.step()
    assert (sorted(loop.laps), loop.deleted) == (["demo-2"], ["demo-1"])


def test_a_lap_whose_model_meets_users_is_not_replaced() -> None:
    loop = replacing()
    loop.is_now("demo-1", "RollingOut")
    loop.step(FIRST_DUE + DAY)
    assert (sorted(loop.laps), loop.says().reason) == (["demo-1"], "LapRunning")
    assert "starts when demo-1 has ended: only what this Flywheel started and still trains is replaced" in loop.says().message


def test_a_lap_that_goes_to_users_while_the_next_begins_is_left_alone() -> None:
    loop = replacing()
    loop.step(FIRST_DUE + DAY)
    loop.is_now("demo-1", "RollingOut")
    loop.is_now("demo-2", "Training")
    loop.step()
    loop.step()
    assert (sorted(loop.laps), loop.deleted) == (["demo-1", "demo-2"], [])


def test_a_lap_made_by_hand_is_never_replaced() -> None:
    loop = Loop(trigger=DAILY, concurrencyPolicy="Replace")
    loop.make("by-hand", "Training", own=False)
    loop.step()
    loop.step(FIRST_DUE)
    assert (sorted(loop.laps), loop.says().reason) == (["by-hand"], "LapRunning")


def test_an_older_lap_that_somebody_retries_is_not_taken_for_one_to_replace() -> None:
    loop = replacing()
    loop.is_now("demo-1", "Rejected")
    loop.step(FIRST_DUE + DAY)
    loop.is_now("demo-2", "Training")
    loop.is_now("demo-1", "Training")
    loop.step()
    assert loop.deleted == []


# -------------------------------------------------------------------------------------------------------------- backoff

OFTEN = {"newConversations": 1}
SHORT = {"after": 2, "base": "1h", "max": "5h"}


def bad_laps(count: int, phase: str = "Rejected", **spec: Any) -> Loop:
    """So many laps have started by themselves and ended so, one right after the other's delay."""
    loop = Loop(trigger=OFTEN, backoff=SHORT, historyLimits={"failed": 0}, **spec)
    loop.conversations = 0
    loop.step()
    for _ in range(count):
        loop.conversations += 1
        loop.step(max(loop.now, loop.status.backoff_until or loop.now))
        name = loop.status.last_lap
        assert name in loop.laps
        loop.now += dt.timedelta(seconds=1)
        loop.is_now(str(name), phase)
        loop.step()
    loop.conversations += 1
    return loop


@pytest.mark.parametrize(("count", "hours"), [(1, 0), (2, 1), (3, 2), (4, 4), (5, 5), (9, 5)])
def test_each_further_bad_lap_doubles_the_delay_up_to_its_maximum(count: int, hours: int) -> None:
    loop = bad_laps(count)
    assert loop.status.consecutive_failures == count
    assert loop.status.backoff_until == (loop.now + hours * HOUR if hours else None)
    if hours:
        before = dict(loop.laps)
        loop.step(loop.now + hours * HOUR - dt.timedelta(seconds=1))
        assert loop.laps == before
        assert (loop.says().status, loop.says().reason) == ("False", "BackingOff")
        assert f"{count} laps in a row ended badly" in loop.says().message
        loop.step(loop.now + dt.timedelta(seconds=1))
        assert loop.status.last_lap == f"demo-{count + 1}"


@pytest.mark.parametrize("phase", ["Rejected", "RolledBack", "Held", "Failed"])
def test_every_bad_end_counts(phase: str) -> None:
    assert bad_laps(2, phase).status.backoff_until is not None


@pytest.mark.parametrize(("phase", "left"), [("Promoted", 0), ("Completed", 0), ("Inconclusive", 3)])
def test_a_good_end_begins_anew_and_an_undecided_one_changes_nothing(phase: str, left: int) -> None:
    loop = bad_laps(3)
    until = loop.status.backoff_until
    loop.make("by-hand", "Training", own=False)
    loop.step(loop.now + dt.timedelta(minutes=1))
    loop.is_now("by-hand", phase)
    loop.step()
    assert loop.status.consecutive_failures == left
    assert loop.status.backoff_until == (until if left else None)


def test_an_edit_of_the_template_or_a_retry_begins_anew_and_the_due_lap_starts() -> None:
    for mend in (lambda loop: loop.edit(generationTemplate={"seed": 5}), lambda loop: loop.annotate_retry("now")):
        loop = bad_laps(3)
        mend(loop)
        loop.step()
        assert (loop.status.consecutive_failures, loop.status.backoff_until) == (0, None)
        assert loop.status.last_lap == "demo-4"
        loop.step()
        assert loop.status.consecutive_failures == 0


def test_other_edits_forget_nothing_and_a_shorter_backoff_holds_at_once() -> None:
    loop = bad_laps(3)
    ended = loop.now
    loop.edit(suspend=True, backoff={"after": 2, "base": "1m", "max": "5h"})
    loop.step()
    assert (loop.status.consecutive_failures, loop.status.backoff_until) == (3, ended + dt.timedelta(minutes=2))


def test_a_lap_that_is_retried_and_ends_badly_again_counts_again() -> None:
    loop = Loop(trigger=OFTEN, backoff=SHORT)
    loop.step()
    loop.make("x", "Training")
    loop.is_now("x", "Failed")
    loop.step()
    loop.step(loop.now + HOUR)
    assert loop.status.consecutive_failures == 1
    loop.is_now("x", "Failed")
    loop.step()
    assert loop.status.consecutive_failures == 2


def test_an_upgrade_does_not_count_what_had_ended_before_it() -> None:
    loop = Loop(trigger=OFTEN, backoff=SHORT)
    for number in range(5):
        loop.make(f"old-{number}", "Rejected")
        loop.is_now(f"old-{number}", "Rejected")
    loop.step()
    assert (loop.status.consecutive_failures, loop.status.backoff_until) == (0, None)


def test_the_schedule_says_when_a_delayed_lap_starts() -> None:
    loop = bad_laps(4)
    until = loop.status.backoff_until
    assert until is not None
    loop.edit(trigger={"schedule": "*/10 * * * *"})
    loop.step()
    assert loop.status.next_lap_time == until
    loop.edit(trigger={"schedule": "*/10 * * * *", "startingDeadline": "5m"})
    loop.step()
    assert loop.status.next_lap_time is not None
    assert until <= loop.status.next_lap_time <= until + dt.timedelta(minutes=10)
    loop.step(loop.status.next_lap_time)
    assert loop.status.last_lap == "demo-5"


def test_laps_made_by_hand_are_delayed_by_nothing_and_a_flywheel_without_a_trigger_counts_all_the_same() -> None:
    loop = Loop()
    loop.step()
    for number in range(5):
        loop.make(f"hand-{number}", "Training", own=False)
        loop.is_now(f"hand-{number}", "Rejected")
        loop.step(loop.now + HOUR)
    assert loop.status.consecutive_failures == 5
    assert get_condition(loop.status.conditions, "NextLap") is None


@given(st.integers(0, 2000), st.integers(1, 20), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_delay_never_shrinks_with_failures_and_never_passes_its_maximum(failures: int, after: int, base: int, longest: int) -> None:
    fly = flywheel(backoff={"after": after, "base": f"{base}s", "max": f"{longest}s"})
    until, further = delayed_until(fly, failures, T0), delayed_until(fly, failures + 1, T0)
    if failures < after:
        assert until is None
    else:
        assert until is not None
        assert further is not None
        assert T0 < until <= further <= T0 + dt.timedelta(seconds=longest)


@given(
    st.lists(
        st.tuples(st.sampled_from(["Rejected", "RolledBack", "Held", "Failed", "Promoted", "Completed", "Inconclusive"]), st.booleans()),
        max_size=12,
    )
)
def test_the_count_is_that_of_the_ends_since_the_last_good_one_whatever_history_limits_delete(ends: list[tuple[str, bool]]) -> None:
    loop = Loop(trigger=DAILY, historyLimits={"failed": 0, "successful": 1})
    loop.step()
    expected = 0
    for number, (phase, together) in enumerate(ends):
        loop.now += dt.timedelta(seconds=1)
        loop.make(f"x{number}", "Training", own=False)
        loop.is_now(f"x{number}", phase)
        expected = 0 if phase in ("Promoted", "Completed") else expected + (phase != "Inconclusive")
        if not together:
            loop.step()
    loop.step()
    assert loop.status.consecutive_failures == expected


# ---------------------------------------------------------------------------------------------------------------- names

LONG = "a-model-whose-name-is-thirty-nine-long-x"


def test_two_long_names_that_begin_alike_give_different_laps_and_first_champions() -> None:
    one, other = Loop(LONG[:-1] + "y").flywheel, Loop(LONG[:-1] + "z").flywheel
    for name in (lambda f: lap_name(f, 1), first_generation):
        assert name(one) != name(other)
        assert len(name(one)) <= 40
    assert lap_name(Loop("short").flywheel, 3) == "short-3"


def test_a_lap_that_an_older_operator_was_about_to_make_keeps_its_name_and_the_next_gets_a_new_one() -> None:
    loop = Loop(LONG, trigger=OFTEN)
    loop.conversations = 1
    loop.step(crash=True)
    old = f"{LONG[:32]}-1"
    loop.flywheel = loop.flywheel.model_copy(update={"status": loop.status.model_copy(update={"last_lap": None, "active": (old,)})})
    loop.step()
    assert sorted(loop.laps) == [old]
    loop.is_now(old, "Promoted")
    loop.conversations = 2
    loop.step(loop.now + HOUR)
    assert len(loop.laps) == 2
    assert loop.status.last_lap == lap_name(loop.flywheel, 2) != f"{LONG[:32]}-2"


def test_a_first_champion_on_record_keeps_the_name_an_older_operator_gave_it() -> None:
    loop = Loop(LONG)
    old = f"{LONG[:32]}-initial"
    champion = {"generation": old, "uri": "file:///x", "digest": "sha256:" + "a" * 64, "arm": "x", "since": T0}
    assert first_generation(loop.flywheel) != old
    on_record = Flywheel.model_validate({**loop.flywheel.dump(), "status": {"champion": champion}})
    assert first_generation(on_record) == old
