"""RLOO: REINFORCE where each reply's baseline is the mean of the other replies to its prompt. Simpler than GRPO, no clipping of groups."""

from dataclasses import dataclass

from ..job import Job, Outcome
from ..parameters import option
from . import policy


@dataclass(frozen=True)
class Parameters(policy.PolicyParameters):
    """Parameters of RLOO."""

    normalizeAdvantages: bool = option(False, "Divide advantages by their spread in the batch.")


def run(job: Job) -> Outcome:
    from trl import RLOOConfig, RLOOTrainer

    p: Parameters = job.parameters
    return policy.run(job, RLOOTrainer, {"normalize_advantages": p.normalizeAdvantages}, RLOOConfig)
