"""Whatever duration the API server lets through, no planner fails on it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel.api.base import DURATION, MAX_DURATION, parse_duration
from tests.builders import T0, error_message, make_training_run
from tests.plan.rollout_world import BETTER, EQUAL, World, evidence, rollout_spec
from tests.plan.training_world import World as Training

DURATIONS = st.one_of(st.from_regex(DURATION, fullmatch=True), st.sampled_from(["99999h", "99999h99999h99999h99999h", "9999999m"])).filter(
    lambda text: 2 <= len(text) <= 24
)

ANALYSIS = ("window", "horizon", "interval", "patience", "staleAfter")


@given(DURATIONS)
def test_a_duration_is_never_longer_than_ten_years(text: str) -> None:
    length = parse_duration(text)
    assert dt.timedelta() <= length <= MAX_DURATION
    assert T0 + 100 * length > T0 - dt.timedelta(days=1)


@settings(max_examples=40, deadline=None)
@given(backoff=DURATIONS, deadline=DURATIONS)
def test_a_training_run_takes_any_backoff_and_deadline(backoff: str, deadline: str) -> None:
    world = Training(run=make_training_run(retry={"limit": 20, "backoff": backoff}, deadline=deadline)).step()
    for _ in range(18):
        world.starts().step(after=2).ends(75, error_message("StorageUnavailable")).step(after=2)
        world.step(after=700)
    assert len(world.attempts) > 1


@settings(max_examples=20, deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys((*ANALYSIS, "step", "watch", "ready"), DURATIONS)))
def test_a_rollout_takes_any_durations(given: dict[str, Any]) -> None:
    spec = rollout_spec().dump() | {
        "analysis": {name: given[name] for name in ANALYSIS},
        "traffic": {"steps": [{"weightPercent": 5, "duration": given["step"]}, {"weightPercent": 50}]},
        "watch": {"duration": given["watch"]},
        "serving": {"readyTimeout": given["ready"]},
    }
    world = World(type(rollout_spec()).model_validate(spec))
    world.evidence = evidence(EQUAL, BETTER)
    for hours in (0, 1, 24, 24 * 365, 24 * 365 * 60):
        world.now = T0 + dt.timedelta(hours=hours)
        for _ in range(4):
            world.step()
            world.now += dt.timedelta(seconds=1)
    assert world.rollout.status.phase
