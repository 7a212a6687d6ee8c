"""Whatever the order, the chunks, the duplicates and the restarts: the moments are those of a naive recount."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flywheel_collector.facts import Exposure, Message
from flywheel_collector.outcome import METRICS
from tests.collector.recount import recount
from tests.collector.world import EXPERIMENT, T0, World, at

HORIZON, CAP, END = 30.0, 3, 200.0
USERS = ("u1", "u2", "u3")


def _line(number: int, user: str, message: str, ms: int, status: int, slice_: str, purpose: str, fallback: bool) -> dict[str, Any]:
    arm = "new" if slice_ == "candidate" else "old"
    return {
        "time": at(ms / 1000), "requestId": f"r{number}", "status": status, "durationMs": 5, "user": user, "conversation": "c",
        "message": message, "purpose": purpose, "experiment": "-" if slice_ == "none" else EXPERIMENT, "slice": slice_, "assignedArm": arm,
        "answeredArm": "old" if fallback else arm, "assignedGeneration": arm, "answeredGeneration": arm,
    }  # fmt: skip


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    times = draw(st.lists(st.integers(0, 60_000), min_size=10, max_size=30, unique=True))
    slices = {user: draw(st.sampled_from(("control", "candidate"))) for user in USERS}
    lines = []
    for number, ms in enumerate(times):
        user = draw(st.sampled_from((*USERS, *USERS, "-")))
        slice_ = draw(st.sampled_from(("analysed", "analysed", "analysed", "analysed", "rest", "none")))
        slice_ = slices.get(user, "none") if slice_ == "analysed" else slice_
        message = draw(st.sampled_from(("m1", "m2", "m3", "m4", "m5")))
        status = draw(st.sampled_from((200, 200, 200, 201, 404, 503, 0)))
        purpose = draw(st.sampled_from(("-", "-", "-", "title")))
        lines.append(_line(number, user, message, ms, status, slice_, purpose, draw(st.booleans())))
    kinds = st.sampled_from(("thumbs_up", "thumbs_down", "report"))
    events = [
        {"id": f"e{n}", "type": kind, "time": at(ms / 1000), "user": user, "conversation": "c", "message": message}
        for n, (kind, ms, user, message) in enumerate(
            draw(st.lists(st.tuples(kinds, st.integers(0, 60_000), st.sampled_from(USERS), st.sampled_from(("m1", "m2"))), max_size=8))
        )
    ]
    return lines, events


def expected(lines: list[dict[str, Any]], events: list[dict[str, Any]], now: float = END) -> dict[str, Any]:
    assigned, moments = recount(lines, events, EXPERIMENT, HORIZON, CAP, T0 / 1000 + now)
    return {
        slice_: (assigned.get(slice_, 0), {metric: moments.get((slice_, metric), (0, 0, 0)) for metric in METRICS})
        for slice_ in ("control", "candidate")
    }


def published(world: World) -> dict[str, Any]:
    return {s: (world.assigned(s), {metric: world.moment(metric, s) for metric in METRICS}) for s in ("control", "candidate")}


@given(data=st.data(), facts=traffic())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_interleaving_in_any_chunks_gives_the_moments_of_a_recount(data: st.DataObject, facts: tuple[Any, Any]) -> None:
    lines, events = facts
    doubled = lines + data.draw(st.lists(st.sampled_from(lines), max_size=3))
    text = "".join(json.dumps(line) + "\n" for line in data.draw(st.permutations(doubled))).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), min_size=2, max_size=6)))
    steps: list[tuple[str, Any]] = [("bytes", text[a:b]) for a, b in pairwise([0, *cuts, len(text)])]
    for other in [("event", event) for event in events] + [("restart", None), ("rotate", None), ("again", None)]:
        steps.insert(data.draw(st.integers(0, len(steps))), other)
    steps.insert(data.draw(st.sampled_from((0, 0, 0, len(steps)))), ("register", None))
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), grace_ms=0, budget=1)
        log = world.settings.logs / "router" / "access.jsonl"
        log.parent.mkdir()
        for step, value in steps:
            world.now = data.draw(st.sampled_from((END, END, 60.0, 75.0)))  # mostly late: what comes next corrects published numbers
            if step == "bytes":
                with log.open("ab") as file:
                    file.write(value)
            elif step == "event":
                world.post(value)
            elif step == "register":
                world.register(HORIZON, CAP)
            elif step == "restart":
                world.restart()
            elif step == "rotate" and log.exists() and log.read_bytes().endswith(b"\n"):
                log.rename(log.with_name("access.jsonl.1"))
            elif step == "again":
                world.post(*events)
                world.post(*events)
            if data.draw(st.integers(0, 3)) < 3:
                world.collector.tick(world.ms)
        world.run(END)
        try:
            assert published(world) == expected(lines, events)
        finally:
            world.collector.store.close()


_small = st.integers(0, 3)
_messages = st.builds(
    Message, st.just(1), st.just(1), st.just(1), _small, _small, _small, _small, st.none() | _small, _small, _small, _small
)


def _known(message: Message) -> tuple[Any, ...]:
    """Two tries that began in the same millisecond under the same request id are the same try."""
    return (message.first_ms, message.first_request, message.answered_ms)


@given(_messages, _messages, _messages)
def test_merging_messages_has_no_order_and_no_repetition(a: Message, b: Message, c: Message) -> None:
    assert _known(a.merge(b)) == _known(b.merge(a))
    assert _known(a.merge(b).merge(c)) == _known(a.merge(b.merge(c)))
    assert a.merge(a) == a


@given(*[st.builds(Exposure, _small, _small, _small)] * 3)
def test_merging_exposures_has_no_order_and_no_repetition(a: Exposure, b: Exposure, c: Exposure) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a
