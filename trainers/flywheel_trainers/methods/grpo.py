"""GRPO: online reinforcement learning; each reply is compared with the other replies to its prompt."""

from dataclasses import dataclass

from ..job import Job, Outcome
from ..parameters import option
from . import policy


@dataclass(frozen=True)
class Parameters(policy.PolicyParameters):
    """Parameters of GRPO."""

    lossType: str = option("dapo", "How token losses are averaged.", choices=("grpo", "dapo", "bnpo", "dr_grpo"))
    scaleRewards: str = option("group", "What advantages are divided by: the spread in the group, in the batch, or nothing.",
                               choices=("group", "batch", "none"))  # fmt: skip


def run(job: Job) -> Outcome:
    from trl import GRPOConfig, GRPOTrainer

    p: Parameters = job.parameters
    return policy.run(job, GRPOTrainer, {"loss_type": p.lossType, "scale_rewards": p.scaleRewards}, GRPOConfig)
