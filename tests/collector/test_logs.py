"""Files of the router: rotation, halves of lines, rubbish, duplicates, several pods, restarts."""

from __future__ import annotations

import json
import shutil

from tests.collector.world import World


def test_half_a_line_waits_for_its_other_half(world: World) -> None:
    line = json.dumps(world.line()) + "\n"
    world.log(line[:40])
    world.run(1)
    assert world.value("flywheel_turns_total") == 0
    world.log(line[40:])
    world.run(2)
    assert world.value("flywheel_turns_total") == 1


def test_several_router_pods_are_read(world: World) -> None:
    world.log(world.line("u1"), pod="a")
    world.log(world.line("u2"), pod="b")
    world.run(1)
    assert world.value("flywheel_turns_total") == 2


def test_a_file_renamed_in_between_is_read_to_its_end_and_not_again(world: World) -> None:
    path = world.log(world.line("u1"))
    world.run(1)
    world.log(world.line("u2"))
    path.rename(path.with_name("access.jsonl.1"))
    world.log(world.line("u3"))
    world.restart()
    world.run(2)
    assert world.value("flywheel_requests_total", generation="g-old", code="200") == 3
    path.with_name("access.jsonl.1").rename(path.with_name("access.jsonl.2"))
    path.rename(path.with_name("access.jsonl.1"))
    world.log(world.line("u4"))
    world.run(3)
    assert world.value("flywheel_requests_total", generation="g-old", code="200") == 4


def test_copy_and_truncate_loses_and_doubles_nothing(world: World) -> None:
    path = world.log(*(world.line(f"u{n}") for n in range(5)))
    world.run(1)
    world.log(world.line("u5"))
    shutil.copy(path, path.with_name("access.jsonl.1"))
    world.run(2)
    path.write_text("")
    world.log(*(world.line(f"v{n}") for n in range(20)))  # longer than the offset was
    world.run(3)
    assert world.value("flywheel_requests_total", generation="g-old", code="200") == 26


def test_compressed_and_foreign_files_are_left_alone(world: World) -> None:
    for name in ("access.jsonl.gz", "access.jsonl.1.gz", "other.jsonl"):
        world.log(world.line(), name=name)
    world.run(1)
    assert world.value("flywheel_turns_total") == 0


def test_malformed_lines_are_counted_and_skipped(world: World) -> None:
    rubbish = ["\n", "{\n", "[]\n", "[" * 100_000 + "\n", '{"time": "yesterday"}\n', '{"time": 5}\n', "\x00\x01\n", "9" * 5000 + "\n",
               '{"time": "2026-01-01T00:00:00", "status": 200}\n', json.dumps(world.line(time=10_000)) + "\n",
               json.dumps(world.line() | {"status": "200"}) + "\n", json.dumps(world.line() | {"user": 7}) + "\n",
               json.dumps(world.line() | {"durationMs": -1}) + "\n"]  # fmt: skip
    world.log(*rubbish, world.line())
    world.run(1)
    assert world.value("flywheel_collector_malformed_lines_total") == len(rubbish)
    assert world.value("flywheel_turns_total") == 1


def test_a_line_longer_than_the_buffer_does_not_stop_the_tail(world: World) -> None:
    world.collector._tail._budget = 1
    world.log("x" * 300_000 + "\n", world.line())
    world.run(1)
    assert world.value("flywheel_turns_total") == 1


def test_strange_text_in_headers_is_only_text(world: World) -> None:
    world.register()
    for user in ("'; DROP TABLE message; --", "\ud800", "\x00", "ü" * 10_000):
        world.turn(user, time=1)
    world.run(60)
    assert world.moment("depth") == (4, 0, 0)


def test_the_same_request_twice_is_counted_once(world: World) -> None:
    world.register()
    line = world.line(time=0)
    world.log(line, line)
    world.log(line, pod="b")
    world.run(1)
    world.restart()
    world.log(line, pod="c")
    world.run(30)
    assert world.value("flywheel_requests_total", generation="g-old", code="200") == 1
    assert world.value("flywheel_request_duration_seconds_count", generation="g-old") == 1
    assert world.moment("depth") == (1, 0, 0)


def test_everything_survives_a_restart(world: World) -> None:
    world.register()
    world.turn(message="m1", time=0)
    world.turn(message="m2", time=1, status=500)
    world.run(30)
    before = {name: value for name, value in world.series().items() if "lag" not in name[0]}
    world.restart()
    world.run(30)
    assert {name: value for name, value in world.series().items() if "lag" not in name[0]} == before


def test_generations_with_series_are_bounded(world: World) -> None:
    names = [f"g{n}" for n in range(150)] + ["Not A Name", "x" * 64, 'a"b']
    world.log(*(world.line(f"u{n}", answeredGeneration=name) for n, name in enumerate(names)))
    world.run(1)
    labels = {dict(labels)["generation"] for name, labels in world.series() if name == "flywheel_requests_total"}
    assert len(labels) == 102
    assert labels >= {"g0", "other", "none"}


def test_old_facts_are_forgotten_and_an_old_line_is_late(world: World) -> None:
    day = 86_400
    world.turn(time=0)
    world.run(1)
    world.turn("u2", time=3 * day)
    world.run(3 * day)
    world.turn("u3", time=10)
    world.run(3 * day + 60)
    assert world.value("flywheel_collector_late_lines_total") == 1
    assert world.collector.store.db.execute("SELECT count(*) FROM message").fetchone() == (1,)


def test_a_clock_that_jumps_ahead_forgets_nothing(world: World) -> None:
    world.turn(time=0)
    world.run(1)
    world.run(1e8)
    assert world.collector.store.db.execute("SELECT count(*) FROM message").fetchone() == (1,)
