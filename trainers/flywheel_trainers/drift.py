"""How far a training stage has bent the model's style: the same prompts, answered before and after.

Measured by each training method for itself (SFT, DPO, KTO, GRPO, RLOO), against the model it started from, so that a gate on
`style_<feature>_delta` fails at the stage that did it (CharacterFlywheel, mitigation of style artifacts: after SFT, after DPO, after RL).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import style
from .corpus import Message
from .generation import Generator
from .job import Job
from .parameters import option


@dataclass(frozen=True)
class Drift:
    """What every method that changes a model takes besides its own parameters."""

    driftPrompts: int = option(64, "Prompts of the training data answered before and after, to measure the drift of style; 0: none.",
                               unit="prompts", minimum=0, maximum=100_000)  # fmt: skip
    driftMaxNewTokens: int = option(64, "Longest of these replies.", unit="tokens", minimum=1, maximum=100_000)


def metrics(job: Job, start: Path, content: Path, prompts: Iterable[list[Message] | str]) -> dict[str, float]:
    """`style_<feature>` of the new model's replies and `style_<feature>_delta` against the start model's; greedy, so that nothing but the
    weights differs. Empty without prompts. The leader alone comes here (`training.save_model`)."""
    p: Any = job.parameters
    chosen = _spread(_distinct(prompts), p.driftPrompts)
    if not chosen:
        return {}
    before, after = (_style(job, model, chosen, phase) for model, phase in ((start, "Style before"), (content, "Style after")))
    return {f"style_{name}_delta": value - before[name] for name, value in after.items()} | {
        f"style_{name}": value for name, value in after.items()
    }


def _style(job: Job, model: Path, prompts: list[list[Message]], phase: str) -> dict[str, float]:
    generator = Generator(model, temperature=0.0, top_p=1.0, max_new_tokens=job.parameters.driftMaxNewTokens, batch_size=64)
    return style.means(reply for group in generator.replies(prompts, 1, job, seed=job.config.seed, phase=phase) for reply in group)


def _distinct(prompts: Iterable[list[Message] | str]) -> list[list[Message]]:
    """Each prompt once. TRL takes a plain text for a prompt too."""
    messages = ([{"role": "user", "content": p}] if isinstance(p, str) else list(p) for p in prompts)
    return list({str(prompt): prompt for prompt in messages if prompt}.values())


def _spread(prompts: list[list[Message]], count: int) -> list[list[Message]]:
    """At most `count` of them, evenly from the whole."""
    if len(prompts) <= count:
        return prompts
    return [prompts[i * len(prompts) // count] for i in range(count)]
