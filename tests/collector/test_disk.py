"""A full disk: nothing is counted wrong, somebody is told, and the collector helps itself by what it kept in reserve."""

from __future__ import annotations

import errno
import json
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flywheel_collector import conversations, openapi
from flywheel_collector.disk import Reserve, is_full
from flywheel_collector.loop import OVERLOAD_MS, Loop
from tests.collector.world import EXPERIMENT, T0, World


def fill(world: World) -> None:
    """The state can grow no further."""
    pages = world.collector.store.db.execute("PRAGMA page_count").fetchone()[0]
    world.collector.store.db.execute(f"PRAGMA max_page_count = {pages}")


def test_the_numbers_of_a_full_disk_stand_still_and_then_go_on_exactly(world: World) -> None:
    world.register()
    world.turn("u0", time=0)
    world.run(20)
    fill(world)
    loop = Loop(world.collector, lambda: world.ms)
    world.log(*(world.line(f"u{n}", f"m{k}", time=21) for n in range(1, 1500) for k in range(2)))
    before, world.now = world.series(), 60
    assert loop.step() is False
    assert "full" in (loop.problem(world.ms) or "")
    assert "full" in (loop.overload(world.ms) or "")
    after = world.series()
    for name in ("flywheel_experiment_users", "flywheel_experiment_sum", "flywheel_experiment_updated_timestamp_seconds"):
        assert {key: value for key, value in after.items() if key[0] == name} == {k: v for k, v in before.items() if k[0] == name}
    assert world.value("flywheel_experiment_updated_timestamp_seconds", experiment=EXPERIMENT) == T0 / 1000 + 20
    assert world.value("flywheel_collector_writable") == 0
    world.collector.store.db.execute("PRAGMA max_page_count = 1000000")
    while loop.step():
        pass
    world.run(61)
    assert loop.problem(world.ms) is None
    assert world.moment("depth") == (1500, 1499, 1499)
    world.run(64)
    assert world.value("flywheel_collector_writable") == 1


def test_the_reserve_is_given_up_once_and_made_again_when_there_is_space(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve", 1 << 20)
    reserve.restore()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 1 << 20, "it takes real space"
    reserve.spend()
    assert not (tmp_path / "reserve").exists()
    assert reserve.spent
    reserve.spend()
    reserve.restore()
    assert (tmp_path / "reserve").exists()
    assert not reserve.spent


def test_conversations_that_cannot_be_written_do_not_stop_the_numbers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.register()
    world.turn("u1", time=1)
    world.post(world.said("hello", time=1))
    world.run(2)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(conversations, "write_parquet", full)
    loop = Loop(world.collector, lambda: world.ms)
    world.turn("u2", time=390)
    world.now = 405
    while loop.step():
        pass
    assert "No space left" in (loop.problem(world.ms) or "")
    assert loop.overload(world.ms) is None
    assert world.value("flywheel_collector_writable") == 0
    assert world.moment("depth")[0] == 2
    monkeypatch.undo()
    world.run(420)
    assert world.value("flywheel_conversations_total") == 1
    assert loop.problem(world.ms) is None


def test_what_a_full_disk_looks_like() -> None:
    assert is_full(OSError(errno.ENOSPC, "x"))
    assert is_full(OSError(errno.EDQUOT, "x"))
    assert not is_full(OSError(errno.EIO, "x"))
    assert not is_full(ValueError("full"))
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t(x)")
    db.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as raised:
        db.execute("INSERT INTO t VALUES(zeroblob(100000))")
    assert is_full(raised.value)


def test_events_are_told_to_come_later_while_the_log_is_far_behind(world: World) -> None:
    world.run(1)
    loop = Loop(world.collector, lambda: world.ms)
    loop.step()
    assert loop.overload(world.ms) is None
    world.collector.lag_ms = OVERLOAD_MS + 1
    assert "late" in (loop.overload(world.ms) or "")


def test_a_conversation_is_not_closed_before_its_later_lines_were_read(world: World) -> None:
    world.collector._tail._budget = 1
    world.turn("u1", time=0)
    world.post(world.said("hello", time=0))
    world.run(1)
    world.log(*(world.line(f"v{n}", time=2) for n in range(400)), world.line("u1", "m2", time=3))
    world.now = 301
    world.collector.tick(world.ms)
    assert world.value("flywheel_conversations_total") == 0, "the log is read up to the second second"
    world.run(310)
    world.run(320)
    (path,) = world.settings.data.glob("date=*/generation=*/*.parquet")
    assert pq.read_table(path, partitioning=None)["continued"].to_pylist() == [True]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_responses_of_one_millisecond_leave_the_same_text_in_any_order(world: World, order: tuple[int, int]) -> None:
    events = [world.said("hello", f"answer {n}", time=1) for n in range(2)]
    third = world.said("hello", "answer 2", time=1)
    world.turn(time=1)
    for place in (*order,):
        world.post(events[place])
    world.post(third)
    numbers = {world.collector.store.identity.event(e["id"]): e["response"] for e in (*events, third)}
    (body,) = world.collector.store.db.execute("SELECT body FROM utterance").fetchone()
    assert json.loads(body)["response"] == numbers[max(numbers)]


def test_the_committed_openapi_document_is_the_one_that_is_served() -> None:
    committed = Path(__file__).parents[2] / "docs" / "collector-openapi.json"
    assert json.loads(committed.read_text()) == openapi.document()
