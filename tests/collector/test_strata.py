"""Covariates, messages tried, segments and burn-in equal a naive recount, whatever the order of the lines."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from flywheel_collector.experiments import Conflict, Invalid, parse_definition
from flywheel_collector.outcome import METRICS
from tests.collector.world import EXPERIMENT, World, at

P, H, EARLY, BURN, CAP = 40.0, 20.0, 30.0, 10.0, 2
SEGMENTS = ["known", "new", "early", "late", "paid", "free"]


def register(world: World, **more: Any) -> None:
    body = {"horizonSeconds": H, "winsorCap": CAP, "startedAt": at(0), "enrolUntil": None, "covariateSeconds": P, "segments": SEGMENTS,
            "earlySeconds": EARLY, "burnInSeconds": BURN}  # fmt: skip
    world.collector.put_experiment(EXPERIMENT, parse_definition(body | more))


def history(seed: int) -> list[dict[str, Any]]:
    """Users who were there before, in slice none, and then come to a slice; some of them only once."""
    rng = random.Random(seed)
    moments: list[dict[str, Any]] = []
    for number in range(40):
        user, exposed = f"u{number}", round(rng.uniform(100, 160), 3)
        slice_, plan = ("control", "candidate")[number % 2], rng.choice(("paid", "free", "-", "other"))
        for when in sorted(rng.uniform(exposed - 2 * P, exposed - 0.01) for _ in range(rng.choice((0, 0, 1, 4)))):
            moments.append({"user": user, "time": round(when, 3), "slice": "none"})
        for when in [exposed, *(rng.uniform(exposed + 0.01, exposed + 2 * H) for _ in range(rng.randrange(6)))]:
            moments.append({"user": user, "time": round(when, 3), "slice": slice_, "segment": plan})
    for place, moment in enumerate(moments):
        moment |= {"message": f"m{place}", "status": rng.choice((200, 200, 200, 503))}
    return moments


def naive(moments: list[dict[str, Any]]) -> dict[tuple[str, ...], dict[str, int]]:
    """(kind, slice, metric[, segment]) -> the sums, by the words of the contract."""
    first = {}
    for moment in sorted(moments, key=lambda m: m["time"]):
        if moment["slice"] != "none":
            first.setdefault(moment["user"], moment)
    start = min(moment["time"] for moment in first.values())
    sums: dict[tuple[str, ...], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for user, exposure in first.items():
        exposed = exposure["time"]
        if exposed < start + BURN:
            continue
        mine = [m for m in moments if m["user"] == user]

        def counted(low: float, high: float, mine: list[dict[str, Any]] = mine) -> tuple[dict[str, int], int]:
            tried = [m for m in mine if low <= m["time"] < high]
            turns = sum(m["status"] == 200 for m in tried)
            values = dict.fromkeys(METRICS, 0) | {"breadth": int(turns > 1), "depth": min(max(turns - 1, 0), CAP)}
            return values | {"errors": sum(m["status"] == 503 for m in tried)}, len(tried)

        y, d = counted(exposed, exposed + H)
        x, before = counted(exposed - P, exposed)
        mine_segments = ["known" if before else "new", "early" if exposed < start + EARLY else "late", exposure["segment"]]
        for metric in METRICS:
            place = exposure["slice"], metric
            for kind, other in (("messages", d), *((("known", x[metric]),) if before else ())):
                for field, value in {
                    "n": 1,
                    "y": y[metric],
                    "yy": y[metric] ** 2,
                    "x": other,
                    "xx": other**2,
                    "xy": other * y[metric],
                }.items():
                    sums[kind, *place][field] += value
            for segment in set(mine_segments) & set(SEGMENTS):
                for field, value in {"n": 1, "y": y[metric], "yy": y[metric] ** 2}.items():
                    sums["segment", *place, segment][field] += value
    return sums


SERIES = {
    "messages": {"n": "users", "y": "sum", "yy": "sum_squares", "x": "denominator_sum", "xx": "denominator_sum_squares",
                 "xy": "denominator_cross_sum"},
    "known": {"n": "known_users", "y": "known_sum", "yy": "known_sum_squares", "x": "covariate_sum", "xx": "covariate_sum_squares",
              "xy": "covariate_cross_sum"},
    "segment": {"n": "segment_users", "y": "segment_sum", "yy": "segment_sum_squares"},
}  # fmt: skip


def check(world: World, moments: list[dict[str, Any]]) -> None:
    expected, series = naive(moments), world.series()
    assert expected
    for (kind, slice_, metric, *segment), sums in expected.items():
        labels = {"experiment": EXPERIMENT, "slice": slice_, "metric": metric} | ({"segment": segment[0]} if segment else {})
        found = {field: series["flywheel_experiment_" + name, tuple(sorted(labels.items()))] for field, name in SERIES[kind].items()}
        assert found == {field: sums[field] for field in SERIES[kind]}, (kind, labels)


@pytest.mark.parametrize("seed", range(6))
def test_all_sums_equal_a_naive_recount(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, grace_ms=0)
    register(world)
    moments = history(seed)
    lines = [world.line(m["user"], m["message"], m["time"], **{k: m[k] for k in ("slice", "status", "segment") if k in m}) for m in moments]
    lines.sort(key=lambda line: line["time"])
    for place in range(0, len(lines), 17):
        world.log(*lines[place : place + 17])
        world.run(max(world.now, 60 + place / 17 * 10))
        if place % 3 == 0:
            world.restart()
    world.run(500)
    check(world, moments)
    world.collector.store.close()


def test_a_late_line_moves_a_user_exactly(tmp_path: Path) -> None:
    world = World(tmp_path, grace_ms=0)
    register(world, burnInSeconds=0, segments=["paid", "free"], earlySeconds=None)
    world.turn("a", "m0", time=90, slice="none")
    world.turn("a", "m1", time=100, segment="paid")
    world.turn("a", "m2", time=101, segment="paid")
    world.run(200)
    place = {"experiment": EXPERIMENT, "slice": "control", "metric": "depth"}
    assert world.value("flywheel_experiment_segment_sum", **place, segment="paid") == 1
    assert world.value("flywheel_experiment_denominator_cross_sum", **place) == 2
    world.turn("a", "m3", time=102, segment="paid")
    world.run(201)
    assert world.value("flywheel_experiment_segment_sum", **place, segment="paid") == 2
    assert world.value("flywheel_experiment_denominator_cross_sum", **place) == 6
    assert world.value("flywheel_experiment_known_sum", **place) == 2
    world.turn("a", "m4", time=99, segment="free", slice="candidate")  # the first was another slice, and another segment
    world.run(202)
    for name in ("segment_sum", "segment_users"):
        assert world.value(f"flywheel_experiment_{name}", **place, segment="paid") == 0
    assert world.value("flywheel_experiment_segment_users", **place | {"slice": "candidate"}, segment="free") == 1
    assert world.value("flywheel_experiment_known_users", **place) == 0
    assert world.value("flywheel_experiment_known_users", **place | {"slice": "candidate"}) == 1
    world.collector.store.close()


def test_what_is_published_is_there_from_the_start_and_only_what_was_asked_for(world: World) -> None:
    world.register()
    names = {name for name, _ in world.series()}
    assert "flywheel_experiment_denominator_sum" in names
    assert not {name for name in names if "known" in name or "segment" in name or "covariate" in name}
    world.collector.delete_experiment(EXPERIMENT)
    register(world)
    place = {"experiment": EXPERIMENT, "slice": "candidate", "metric": "errors"}
    keys = {labels for name, labels in world.series() if name == "flywheel_experiment_segment_users"}
    assert len(keys) == len(SEGMENTS) * 12
    assert ("flywheel_experiment_covariate_cross_sum", tuple(sorted(place.items()))) in world.series()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"covariateSeconds": 0}, "covariateSeconds"), ({"covariateSeconds": True}, "covariateSeconds"),
        ({"covariateSeconds": 3e6}, "at most"), ({"segments": []}, "1 to 8"), ({"segments": ["a"] * 2}, "twice"),
        ({"segments": ["A"]}, "characters"), ({"segments": "known"}, "list"),
        ({"segments": [f"s{n}" for n in range(9)]}, "1 to 8"), ({"segments": [1]}, "characters"), ({"covariateSeconds": None}, "need"),
        ({"earlySeconds": None}, "earlySeconds"), ({"segments": ["paid"]}, "earlySeconds"), ({"burnInSeconds": -1}, "burnInSeconds"),
    ],
)  # fmt: skip
def test_a_definition_that_makes_no_sense_is_refused(world: World, change: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words):
        register(world, **change)


def test_another_pre_period_is_another_definition(world: World) -> None:
    register(world)
    register(world)
    world.restart()
    register(world)
    with pytest.raises(Conflict):
        register(world, covariateSeconds=P + 1)
