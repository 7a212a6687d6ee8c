"""Why an object is where it is, and what happens next and when. Pure: objects and the time in, lines of text out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence

from flywheel.cli.advice import Advice
from flywheel.cli.explain.flywheel import explain_flywheel
from flywheel.cli.explain.generation import explain_generation
from flywheel.cli.explain.reward_model import explain_reward_model
from flywheel.cli.explain.rollout import explain_rollout
from flywheel.cli.explain.story import Subject
from flywheel.cli.explain.training_run import explain_training_run
from flywheel.cli.reading import Body, text

EXPLAIN: Mapping[str, Callable[[Subject], None]] = {
    "Flywheel": explain_flywheel,
    "Generation": explain_generation,
    "TrainingRun": explain_training_run,
    "RewardModel": explain_reward_model,
    "Rollout": explain_rollout,
}


def explain(body: Body, related: Sequence[Body], advice: Mapping[str, Advice], now: dt.datetime) -> list[str]:
    """The explanation of an object; `related` are those it waits for or owns, as far as they could be read."""
    subject = Subject(body, related, advice, now)
    EXPLAIN[text(body, "kind")](subject)
    subject.tell_pending_edit()
    return subject.lines()
