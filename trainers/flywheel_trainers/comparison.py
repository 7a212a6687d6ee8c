"""Two models' replies to the same prompts, judged by pointwise reward models."""

from collections.abc import Sequence

from . import estimates
from .corpus import Message
from .scoring import Exchange, Reward


def prompt_scores(
    judges: Sequence[Reward], prompts: Sequence[list[Message]], ours: Sequence[list[str]], theirs: Sequence[list[str]]
) -> list[float]:
    """Per prompt, how often we win; several judges count by their weights."""
    total = sum(judge.weight for judge in judges)
    scores = [0.0] * len(prompts)
    for judge in judges:
        us, them = _scored(judge, prompts, ours), _scored(judge, prompts, theirs)
        for i in range(len(prompts)):
            scores[i] += judge.weight / total * estimates.win_score(us[i], them[i])
    return scores


def _scored(judge: Reward, prompts: Sequence[list[Message]], replies: Sequence[list[str]]) -> list[list[float]]:
    flat: list[Exchange] = [(prompt, reply) for prompt, group in zip(prompts, replies, strict=True) for reply in group]
    scores = iter(judge.score(flat))
    return [[next(scores) for _ in group] for group in replies]
