"""Text on its way to Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

import flywheel_collector.conversations as conversations
from tests.collector.world import EXPERIMENT, World

IDLE = 300


def rows(world: World) -> list[dict[str, Any]]:
    files = sorted(world.settings.data.rglob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


def chat(world: World, *messages: str, user: str = "u1", **fields: Any) -> None:
    for message in messages:
        world.now += 1
        world.turn(user, message, **fields)
        world.post(world.said(f"about {message}", f"re {message}", user=user, message=message))


def test_an_idle_conversation_becomes_rows_joined_with_the_log(world: World) -> None:
    world.tells(routes={1: (EXPERIMENT, "salt", 10)})
    chat(world, "m1", "m2")
    world.post(world.event("thumbs_up", message="m1"), world.event("regenerate", message="m2"))
    world.run(IDLE - 10)
    assert rows(world) == []
    world.run(IDLE + 10)
    first, second = rows(world)
    assert first | {"user_hash": "?", "time": "?"} == {
        "conversation_id": "c-u1", "message_id": "m1", "turn": 1, "user_hash": "?", "time": "?", "flywheel": "demo", "generation": "g-old",
        "experiment": EXPERIMENT, "slice": "control", "messages": [{"role": "user", "content": "about m1"}], "response": "re m1",
        "continued": True, "thumbs": 1, "regenerated": False, "sampling": '{"temperature":0.8}', "propensity": 0.9, "revision": 1,
    }  # fmt: skip
    assert (second["turn"], second["continued"], second["thumbs"], second["regenerated"]) == (2, False, 0, True)
    (file,) = world.settings.data.rglob("*.parquet")
    assert [part.split("=")[0] for part in file.relative_to(world.settings.data).parts[:2]] == ["date", "generation"]
    assert world.value("flywheel_conversations_total", flywheel="demo") == 1


def test_nothing_is_written_twice(world: World) -> None:
    chat(world, "m1")
    world.run(400)
    world.restart()
    world.post(world.said("about m1", message="m1", time=1))  # the same message under another event id
    world.run(1000)
    assert len(rows(world)) == 1
    assert world.value("flywheel_conversations_total", flywheel="demo") == 1


def test_a_conversation_that_goes_on_later_adds_its_new_rows_only(world: World) -> None:
    chat(world, "m1")
    world.run(400)
    chat(world, "m2")
    world.run(1000)
    assert [(row["message_id"], row["turn"]) for row in rows(world)] == [("m1", 1), ("m2", 2)]
    assert world.value("flywheel_conversations_total", flywheel="demo") == 1


@pytest.mark.parametrize("step", ["before the file", "before the release"])
def test_a_kill_while_writing_neither_loses_nor_doubles_a_row(world: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    real = conversations.write_parquet

    def killed(path: Path, rows: list[dict[str, Any]]) -> None:
        if step == "before the release":
            real(path, rows)
        raise KeyboardInterrupt

    chat(world, "m1", "m2")
    chat(world, "m1", user="u2")
    monkeypatch.setattr(conversations, "write_parquet", killed)
    with pytest.raises(KeyboardInterrupt):
        world.run(400)
    monkeypatch.setattr(conversations, "write_parquet", real)
    world.restart()
    world.run(401)
    assert sorted((row["conversation_id"], row["message_id"]) for row in rows(world)) == [("c-u1", "m1"), ("c-u1", "m2"), ("c-u2", "m1")]
    assert world.value("flywheel_conversations_total", flywheel="demo") == 2


def test_text_waits_for_its_line_of_the_log(world: World) -> None:
    world.post(world.said("hello"))
    world.run(IDLE + 1)
    assert rows(world) == []
    world.turn(time=0)
    world.run(IDLE + 10)
    assert len(rows(world)) == 1


def test_text_without_a_line_in_the_log_is_dropped_and_counted(world: World) -> None:
    world.post(world.said("I never happened"))
    for now in range(0, 1000, 50):
        world.run(now)
    assert rows(world) == []
    assert world.value("flywheel_collector_unmatched_turns_total") == 1


def test_of_two_responses_to_a_message_the_later_is_kept(world: World) -> None:
    world.now = 5
    world.turn(time=1)
    late, early = world.said("hi", "second", time=3), world.said("hi", "first", time=2)
    world.post(late, early)
    world.run(400)
    (row,) = rows(world)
    assert (row["response"], row["regenerated"]) == ("second", True)


def test_generations_are_in_directories_of_their_own(world: World) -> None:
    chat(world, "m1")
    chat(world, "m2", slice="candidate")
    world.run(400)
    assert {file.parent.name for file in world.settings.data.rglob("*.parquet")} == {"generation=g-old", "generation=g-new"}


def test_personal_data_never_reaches_the_disk(world: World) -> None:
    world.turn()
    world.post(world.said("mail me: ann.lee@example.org", "or call +44 20 7946 0958"))
    world.collector.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    state = (world.root / "state.sqlite").read_bytes()
    assert b"example.org" not in state
    assert b"7946" not in state
    world.run(400)
    (row,) = rows(world)
    assert row["messages"][0]["content"] == "mail me: [email]"
    assert row["response"] == "or call [phone]"
