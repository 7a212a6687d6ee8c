"""A state file of the first version goes on: its numbers stay, and what it did not keep is counted from what it has."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from flywheel_collector.store import Store
from tests.collector.world import EXPERIMENT, World

BACK = """
ALTER TABLE message DROP COLUMN revision;
ALTER TABLE experiment DROP COLUMN extra;
ALTER TABLE experiment DROP COLUMN first_ms;
ALTER TABLE subject DROP COLUMN messages;
ALTER TABLE subject DROP COLUMN segment;
ALTER TABLE subject DROP COLUMN covariate;
CREATE TABLE seen_request(id INTEGER PRIMARY KEY, ms INTEGER NOT NULL);
CREATE INDEX seen_request_age ON seen_request(ms);
INSERT INTO seen_request SELECT id, ms FROM request_id;
DROP TABLE request_id;
DROP TABLE stratum;
DROP TABLE route;
DROP TABLE line_count;
DROP TABLE reconciled;
DROP TABLE misassigned;
DROP TABLE tombstone;
PRAGMA user_version=1;
"""


def test_a_state_of_version_1_is_taken_over_with_its_numbers(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.register()
    for message in ("m1", "m2"):
        world.turn(message=message, time=1)
    world.turn("waiting", time=25)
    world.run(30)
    before = world.moment("depth")
    assert before == (1, 1, 1)
    world.collector.store.close()
    with sqlite3.connect(world.settings.state) as db:
        db.executescript(BACK)
    db.close()
    world.collector = type(world.collector)(world.settings)
    assert world.moment("depth") == before
    line = world.line(message="m2", time=1) | {"requestId": "r2"}
    world.log(line)  # known by its id
    world.run(60)
    assert world.moment("depth") == (2, 1, 1)
    assert world.value("flywheel_requests_total", generation="g-old", code="200") == 3
    place = {"experiment": EXPERIMENT, "slice": "control", "metric": "depth"}
    assert world.value("flywheel_experiment_denominator_cross_sum", **place) == 2
    assert world.value("flywheel_experiment_denominator_sum", **place) == 3
    world.collector.store.close()


def test_a_state_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.sqlite") as db:
        db.execute("PRAGMA user_version=3")
    db.close()
    with pytest.raises(RuntimeError, match="schema 3, this is 2"):
        Store(str(tmp_path / "state.sqlite"))
