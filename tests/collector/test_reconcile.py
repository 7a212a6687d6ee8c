"""What the routers counted, what was read, and where their users belong: a loss or a wrong slice is found by counting."""

from __future__ import annotations

import json
import os
import random

import pytest

from flywheel_collector.logline import CANDIDATE, CONTROL, REST
from flywheel_collector.slices import Route, position, xxh64
from tests.collector.world import EXPERIMENT, T0, World


def lost(world: World, slice_: str) -> tuple[int, int]:
    labels = {"experiment": EXPERIMENT, "slice": slice_}
    return tuple(int(world.value(f"flywheel_experiment_{name}_requests", **labels)) for name in ("router", "lost"))  # type: ignore[return-value]


def wrong(world: World, slice_: str) -> tuple[int, int]:
    labels = {"experiment": EXPERIMENT, "slice": slice_}
    return tuple(int(world.value(f"flywheel_experiment_{name}_requests", **labels)) for name in ("checked", "misassigned"))  # type: ignore[return-value]


def test_a_one_per_cent_loss_in_one_arm_is_found_exactly(world: World) -> None:
    world.register()
    rng = random.Random(1)
    dropped = 0
    for number in range(2000):
        slice_ = ("control", "candidate")[number % 2]
        if slice_ == "candidate" and rng.random() < 0.01:
            dropped += 1
        else:
            world.turn(f"u{number}", time=1, slice=slice_)
    world.tells({EXPERIMENT: {"control": 1000, "candidate": 1000}}, time=2)
    world.run(3)
    assert lost(world, "candidate") == (0, 0), "not before everything that was counted must have been read"
    world.run(7)
    assert dropped > 3
    assert (lost(world, "control"), lost(world, "candidate")) == ((1000, 0), (1000, dropped))
    world.restart()
    world.run(8)
    assert lost(world, "candidate") == (1000, dropped)


def test_traffic_after_a_count_hides_no_loss_before_it(world: World) -> None:
    world.register()
    world.turn("u1", time=1, durationMs=10)
    world.tells({EXPERIMENT: {"control": 2}}, time=2)  # one of two lines is lost
    world.run(2.1)
    for number in range(20):
        world.turn(f"v{number}", time=2.3)
    world.run(7)
    assert lost(world, "control") == (2, 1)


def test_a_line_is_counted_when_its_request_ends(world: World) -> None:
    world.register()
    world.turn("u1", time=1, durationMs=3000)
    world.tells({EXPERIMENT: {"control": 0}}, time=2)
    world.run(3)
    world.tells({EXPERIMENT: {"control": 1}}, time=6)
    world.run(7)
    world.run(20)
    assert lost(world, "control") == (1, 0)


def test_pods_are_compared_each_with_its_own_counts(world: World) -> None:
    world.register()
    world.log(world.line("u1", time=1), pod="a")
    world.log(world.line("u2", time=1), world.line("u3", time=1), pod="b")
    world.tells({EXPERIMENT: {"control": 2}}, pod="a", time=2)
    world.tells({EXPERIMENT: {"control": 2}}, pod="b", time=2)
    world.run(2)
    world.run(9)
    assert lost(world, "control") == (4, 1)


def test_lines_that_are_rubbish_or_doubled_are_no_loss_and_hide_none_elsewhere(world: World) -> None:
    world.register()
    line = world.line("u1", time=1)
    world.log("{rubbish\n", line, line, world.line("u2", time=1))
    world.tells({EXPERIMENT: {"control": 3}}, time=2)
    world.run(2)
    world.run(9)
    assert lost(world, "control") == (3, 0), "Envoy wrote the doubled line twice, or somebody copied it: it lacks nothing"


def test_a_router_that_lives_but_cannot_write_holds_the_numbers_back(world: World) -> None:
    world.register()
    world.turn(time=0)
    world.tells({EXPERIMENT: {"control": 1}}, time=1)
    world.run(30)
    name = "flywheel_experiment_updated_timestamp_seconds"
    world.tells({EXPERIMENT: {"control": 1}}, time=10, alive=30)  # touched at 30, with the words of 10: the disk is full
    world.run(31)
    assert world.value(name, experiment=EXPERIMENT) == T0 / 1000 + 10
    world.tells({EXPERIMENT: {"control": 1}}, time=32)
    world.run(33)
    assert world.value(name, experiment=EXPERIMENT) == T0 / 1000 + 33


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "9" * 5000, '{"requests": 1, "routes": [1]}',
             '{"requests": {"x": {"control": -1}}, "routes": {"1": {"salt": 5}}}', '{"routes": {"-1": null}}',
             '{"requests": {"bad name": {"control": 1}}, "routes": {"2": {"experiment": "e", "salt": "s", "weightPercent": 70}}}']
)  # fmt: skip
def test_rubbish_in_a_routers_file_changes_nothing(world: World, text: str) -> None:
    world.register()
    world.turn(time=0)
    (world.settings.logs / "router-a" / "router.json").write_text(text)
    world.run(5)
    world.run(30)
    assert world.moment("depth") == (1, 0, 0)
    assert lost(world, "control") == (0, 0)


def test_the_hash_is_xxhash64() -> None:
    """Vectors of the reference implementation, seed 0."""
    assert xxh64(b"") == 0xEF46DB3751D8E999
    assert xxh64(b"a") == 0xD24EC4F1A98C6E5B
    assert xxh64(b"abc") == 0x44BC2CF5AD770999
    assert xxh64(b"Nobody inspects the spammish repetition") == 0xFBCEA83C8A378BF1


def test_control_takes_the_bottom_and_candidate_the_top() -> None:
    route = Route(EXPERIMENT, "salt", 2500)
    for number in range(200):
        place = position("salt", f"u{number}")
        assert route.slice(f"u{number}") == (CONTROL if place < 2500 else CANDIDATE if place >= 7500 else REST)


def test_a_user_logged_in_the_wrong_slice_is_counted(world: World) -> None:
    world.register()
    world.tells(routes={7: (EXPERIMENT, "salt", 10), 8: (EXPERIMENT, "salt", 50), 9: ("other", "salt", 50)})
    users = sorted((f"u{n}" for n in range(300)), key=lambda user: position("salt", user))
    for revision, parts in ((7, 1000), (8, 5000)):
        for user in users:
            place = position("salt", user)
            slice_ = "control" if place < parts else "candidate" if place >= 10_000 - parts else "rest"
            world.turn(user, f"m{revision}", time=1, slice=slice_, revision=revision)
    world.turn(users[0], "m", time=1, slice="candidate", revision=8)
    world.turn(users[0], "m", time=1, slice="candidate", revision=9)  # routes of another experiment say nothing
    world.turn(users[0], "m", time=1, slice="candidate", revision=99)  # routes nobody told of
    world.turn(users[0], "m", time=1, slice="candidate", revision=8, purpose="internal")
    world.run(2)
    checked, misplaced = zip(*(wrong(world, slice_) for slice_ in ("control", "rest", "candidate")), strict=True)
    assert (sum(checked), misplaced) == (601, (0, 0, 1))


def test_a_rotated_log_is_removed_when_it_is_read_and_at_rest(world: World) -> None:
    path = world.log(world.line("u1"))
    world.run(1)
    rotated = path.with_name("access.jsonl.1")
    path.rename(rotated)
    os.utime(rotated, (T0 / 1000 + 1,) * 2)
    world.run(100)
    assert rotated.exists(), "there is no new log yet: Envoy may still write to the old one"
    world.log(world.line("u2"))
    world.run(110)
    assert not rotated.exists()
    assert path.exists()
    world.restart()
    world.run(120)
    assert world.value("flywheel_requests_total", generation="g-old", code="200") == 2
    assert world.collector.store.db.execute("SELECT count(*) FROM log_file").fetchone() == (1,)


def test_a_rotated_log_with_a_torn_end_is_removed_and_the_end_counted(world: World) -> None:
    path = world.log(world.line("u1"), '{"answeredArm": "no space le')
    rotated = path.with_name("access.jsonl.1")
    path.rename(rotated)
    world.log(world.line("u2"))
    os.utime(rotated, (T0 / 1000,) * 2)
    world.run(100)
    assert not rotated.exists()
    assert world.value("flywheel_collector_malformed_lines_total") == 1
    assert world.value("flywheel_turns_total") == 2


def test_unread_logs_stay(world: World) -> None:
    world.collector._tail._budget = 1
    path = world.log(*(world.line(f"u{n}") for n in range(300)))
    rotated = path.with_name("access.jsonl.1")
    path.rename(rotated)
    os.utime(rotated, (T0 / 1000,) * 2)
    world.log(world.line("v"))
    world.now = 100
    world.collector.tick(world.ms)
    assert rotated.exists(), "a pass took a part of it"
    world.run(110)
    world.run(120)
    assert not rotated.exists()
    assert world.value("flywheel_turns_total") == 301


def test_the_directory_of_a_router_that_is_gone_is_removed_and_its_counts_stay(world: World) -> None:
    world.register()
    path = world.log(world.line("u1"), pod="gone")
    world.tells({EXPERIMENT: {"control": 3}}, pod="gone", time=1)
    world.log(world.line("u2"), pod="an-older-router")
    for file in world.settings.logs.glob("*/*"):
        os.utime(file, (T0 / 1000 + 1,) * 2)
    world.run(10)
    world.run(20)
    assert path.exists()
    world.run(4000)
    world.run(4010)
    assert not path.parent.exists()
    assert (world.settings.logs / "an-older-router" / "access.jsonl").exists(), "it never gave a sign of life: who knows"
    assert lost(world, "control") == (3, 2)


def test_names_told_by_a_router_are_bounded(world: World) -> None:
    world.tells({json.dumps(n): {"control": 1} for n in range(50)})
    world.run(1)
    assert world.collector.store.db.execute("SELECT count(*) FROM name").fetchone()[0] <= 50
