"""A user's data is deleted: from the numbers at once, from the files soon, and what comes late is not taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flywheel_collector import deletion
from flywheel_collector.identity import user_hash
from tests.collector.world import T0, World, at


def files(world: World) -> list[Path]:
    return sorted(world.settings.data.glob("date=*/generation=*/*.parquet"))


def users(world: World) -> list[str]:
    return sorted(row for path in files(world) for row in pq.read_table(path, partitioning=None)["user_hash"].to_pylist())


def who(world: World, user: str) -> str:
    return user_hash(world.collector.store.identity.user(user))


def talk(world: World, *names: str, time: float, message: str = "m1") -> None:
    for name in names:
        world.turn(name, message, time=time)
        world.post(world.said(f"I am {name}", user=name, message=message, time=time))


@pytest.fixture
def talked(world: World) -> World:
    world.register()
    talk(world, "ann", "bob", time=1)
    world.run(400)
    talk(world, "ann", time=401, message="m2")
    world.run(800)
    assert users(world) == sorted([who(world, "ann"), who(world, "ann"), who(world, "bob")])
    return world


def test_numbers_state_and_files_forget_and_others_stay(talked: World) -> None:
    assert (talked.assigned(), talked.moment("depth")[0]) == (2, 2)
    talked.collector.delete_user("ann", talked.ms)
    assert (talked.assigned(), talked.moment("depth")[0]) == (1, 1)
    for table in ("subject", "message", "signal", "utterance"):
        number = talked.collector.store.identity.user("ann")
        assert talked.collector.store.db.execute(f"SELECT count(*) FROM {table} WHERE user = ?", (number,)).fetchone() == (0,)
    talked.run(801)
    assert users(talked) == [who(talked, "bob")]
    assert talked.value("flywheel_collector_deletions_pending") == 0
    listed = json.loads((talked.settings.data / "tombstones.json").read_text())["users"]
    assert [entry["user_hash"] for entry in listed] == [who(talked, "ann")]
    assert listed[0]["deletedAt"].startswith(at(800)[:19])


def test_a_file_of_nobody_else_is_removed(talked: World) -> None:
    before = len(files(talked))
    talked.collector.delete_user("ann", talked.ms)
    talked.run(801)
    assert len(files(talked)) == before - 1


def test_what_is_told_late_of_a_deleted_user_is_not_taken_and_what_he_does_later_is(talked: World) -> None:
    talked.collector.delete_user("ann", talked.ms)
    talked.restart()
    talk(talked, "ann", time=799, message="m3")
    talked.run(1200)
    assert who(talked, "ann") not in users(talked)
    assert talked.moment("depth")[0] == 1
    talk(talked, "ann", time=1201, message="m4")
    talked.run(1600)
    assert users(talked) == sorted([who(talked, "ann"), who(talked, "bob")])
    assert talked.moment("depth")[0] == 2


@pytest.mark.parametrize("step", ["the list", "the first file", "the second file", "the end"])
def test_a_kill_at_any_moment_only_delays_it(talked: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    class Killed(BaseException):
        pass

    calls = {"the list": ("_list", 1), "the first file": ("_clean", 1), "the second file": ("_clean", 2), "the end": ("_clean", 3)}
    name, number = calls[step]
    real, count = getattr(deletion.Deletion, name), [0]

    def dies(self: Any, *arguments: Any) -> None:
        count[0] += 1
        if count[0] == number:
            raise Killed
        real(self, *arguments)
        if step == "the end" and count[0] == 2:
            raise Killed

    talked.collector.delete_user("ann", talked.ms)
    monkeypatch.setattr(deletion.Deletion, name, dies)
    with pytest.raises(Killed):
        talked.run(801)
    monkeypatch.undo()
    talked.restart()
    talked.run(802)
    assert users(talked) == [who(talked, "bob")]
    assert talked.value("flywheel_collector_deletions_pending") == 0


def test_deleting_twice_and_deleting_nobody_do_no_harm(talked: World) -> None:
    for user in ("ann", "ann", "nobody"):
        talked.collector.delete_user(user, talked.ms)
    talked.run(801)
    assert users(talked) == [who(talked, "bob")]
    assert talked.ms > T0
