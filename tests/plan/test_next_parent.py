"""The next lap starts from the champion: from what users chose last, never from what they sent back."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from flywheel.api.base import Metadata
from flywheel.api.flywheel import Flywheel, FlywheelStatus
from flywheel.api.generation import Generation, GenerationSpec, GenerationStatus
from flywheel.api.rollout import Rollout, RolloutStatus
from flywheel.plan.flywheel import FlywheelObserved, plan_flywheel
from flywheel.plan.generation import plan_generation
from flywheel.plan.generation_observed import GenerationObserved
from tests.plan.rollout_world import BASE, rollout_spec
from tests.plan.test_flywheel import T0, flywheel

ENDS = {
    "promoted": ("Promoted", "Promote", True),
    "promoted, and still watched": ("Watching", "Promote", True),
    "promotion not confirmed yet": ("Promoting", "Promote", False),
    "rolled back": ("RolledBack", "Rollback", True),
    "on its way back": ("RollingBack", "Rollback", False),
    "never ready": ("Failed", "Rollback", True),
    "undecided": ("Inconclusive", "Inconclusive", True),
    "without a verdict": ("Inconclusive", "NoVerdict", True),
    "asking users": ("Progressing", None, False),
}


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def asked(number: int, end: str, minute: int) -> Rollout:
    """A Rollout of candidate `number` that ended so."""
    phase, verdict, cut = ENDS[end]
    time = T0 + dt.timedelta(minutes=minute)
    decision = {"verdict": verdict, "reason": "Aborted", "message": "", "time": time, "revision": 1} if verdict else None
    candidate = {"generation": f"g{number}", "uri": f"file:///flywheel/{number}", "digest": digest(number)}
    status = {"phase": phase, "experiment": "x", "decision": decision, "cutoverTime": time if cut else None}
    meta = Metadata(name=f"r{minute}", namespace="demo", uid=f"u-r{minute}")
    return Rollout(metadata=meta, spec=rollout_spec(candidate=candidate), status=RolloutStatus.model_validate(status))


Story = list[tuple[int, str, bool, bool]]  # candidate, how it ended, whether the Flywheel looks then, whether the Rollout is deleted then
STORIES = st.lists(st.tuples(st.integers(1, 4), st.sampled_from(sorted(ENDS)), st.booleans(), st.booleans()), max_size=10)


@given(STORIES)
def test_the_next_laps_parent_is_what_users_chose_last_and_never_what_they_sent_back(story: Story) -> None:
    fly, rollouts, expected = flywheel(), [], BASE
    seen: list[Rollout] = []
    for minute, (number, end, looks, deleted) in enumerate(story, start=1):
        seen.append(asked(number, end, minute))
        rollouts.append(seen[-1])
        if looks or deleted:
            fly = fly.model_copy(update={"status": status_after(fly, rollouts)})
        if deleted:
            rollouts.pop()
    fly = fly.model_copy(update={"status": status_after(fly, rollouts)})
    for rollout in seen:
        decision = rollout.status.decision
        if decision and decision.verdict == "Promote" and rollout.status.cutover_time:
            expected = rollout.spec.candidate.digest
    lap = Generation(metadata=Metadata(name="next", namespace="demo", uid="u-next", generation=1), spec=GenerationSpec(flywheel="demo"))
    begun = GenerationStatus.model_validate(plan_generation(GenerationObserved(generation=lap, flywheel=fly), T0).status)
    assert begun.parent is not None
    assert begun.parent.digest == expected
    sent_back = {r.spec.candidate.digest for r in seen if r.status.decision and r.status.decision.verdict == "Rollback"}
    chosen = {r.spec.candidate.digest for r in seen if r.status.decision and r.status.decision.verdict == "Promote"}
    assert begun.parent.digest not in sent_back - chosen


def status_after(fly: Flywheel, rollouts: list[Rollout]) -> FlywheelStatus:
    planned = plan_flywheel(FlywheelObserved(flywheel=fly, rollouts=tuple(rollouts)), T0)
    return FlywheelStatus.model_validate(planned.status)
