"""What is taken from an app, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flywheel_collector.events import MAX_BATCH, Refused
from tests.collector.world import World

SAID = [{"role": "user", "content": "hello"}]


def test_an_event_is_taken_once(world: World) -> None:
    event = world.event()
    assert world.post(event, event)[:2] == (1, 1)
    world.restart()
    assert world.post(event)[:2] == (0, 1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"type": "nonsense"}, "type must be one of"),
        ({"type": ["turn"]}, "type must be a string"),
        ({"id": ""}, "id must be 1 to"),
        ({"id": "x" * 201}, "id is longer"),
        ({"id": None}, "id must be a string"),
        ({"user": "-"}, "user must be 1 to"),
        ({"user": "a\nb"}, "user must be 1 to"),
        ({"user": "\ud800"}, "not valid Unicode"),
        ({"conversation": 5}, "conversation must be a string"),
        ({"message": {}}, "message must be a string"),
        ({"time": "yesterday"}, "time must be RFC 3339"),
        ({"time": "2099-01-01T00:00:00Z"}, "time is in the future"),
        ({"time": "1999-01-01T00:00:00Z"}, "time is too long ago"),
        ({"time": "2023-11-14T22:13:20"}, "time must be RFC 3339"),
        ({"type": "turn"}, "messages must be a list"),
        ({"type": "turn", "messages": SAID * 201, "response": "x"}, "messages must be a list of 1 to 200"),
        ({"type": "turn", "messages": ["hello"], "response": "x"}, "a message must be an object"),
        ({"type": "turn", "messages": [{"role": "god", "content": "x"}], "response": "x"}, "role must be one of"),
        ({"type": "turn", "messages": [{"role": "assistant", "content": "x"}], "response": "x"}, "the last of messages"),
        ({"type": "turn", "messages": SAID, "response": "x" * 32_769}, "response is longer"),
        ({"type": "turn", "messages": SAID, "response": "x", "sampling": []}, "sampling must be an object"),
        ({"type": "turn", "messages": SAID, "response": "x", "sampling": {"a": "x" * 5000}}, "sampling is longer"),
    ],
)
def test_a_bad_event_is_refused_with_its_reason_and_the_others_are_taken(world: World, change: dict[str, Any], why: str) -> None:
    taken = world.post(world.event(), world.event() | change, world.event())
    assert (taken.accepted, len(taken.rejected)) == (2, 1)
    assert taken.rejected[0]["index"] == 1
    assert why in str(taken.rejected[0]["error"])


@pytest.mark.parametrize("event", [None, 1, "x", [], [[]]])
def test_an_event_that_is_no_object_is_refused(world: World, event: object) -> None:
    assert world.post(event).rejected == [{"index": 0, "error": "an event must be an object"}]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"events": {}}', b"\xff\xfe", b"[" * 1_000_000, b'{"events": [NaN]}', b"9" * 10_000]
)
def test_a_bad_body_is_refused(world: World, body: bytes) -> None:
    with pytest.raises(Refused):
        world.collector.post_events(body, world.ms)


def test_an_infinite_number_is_refused(world: World) -> None:
    event = json.dumps(world.event() | {"type": "turn", "messages": SAID, "response": "x", "sampling": {"a": 1}}).replace(
        '"a": 1', '"a": 1e999'
    )
    taken = world.collector.post_events(f'{{"events": [{event}]}}'.encode(), world.ms)
    assert "finite" in str(taken.rejected[0]["error"])


def test_a_batch_has_a_limit(world: World) -> None:
    with pytest.raises(Refused, match="at most 1000"):
        world.collector.post_events(json.dumps({"events": [0] * (MAX_BATCH + 1)}).encode(), world.ms)


def test_no_user_id_is_stored(world: World) -> None:
    world.turn("alice-private")
    world.post(world.event(user="alice-private"), world.event("turn", user="alice-private", messages=SAID, response="x", conversation="c"))
    world.run(1)
    world.collector.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"alice-private" not in (world.root / "state.sqlite").read_bytes()
