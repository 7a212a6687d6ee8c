"""Reward: a pointwise Bradley-Terry reward model from preference pairs.

One scalar a reply: the probability that a beats b is the logistic function of the difference of their scores. The body
starts from a language model, the head from nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import estimates, models, scoring, training
from ..job import Job, Outcome
from ..parameters import option

COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Parameters:
    """Parameters of Reward."""

    maxSteps: int = option(60, "Optimiser steps.", unit="steps", minimum=1, maximum=10_000_000)
    batchSize: int = option(16, "Preference pairs per step.", unit="pairs", minimum=1, maximum=65_536)
    learningRate: float = option(1e-4, "Peak learning rate; tiny models need about 1e-3.", minimum=1e-9, maximum=1.0)
    maxLength: int = option(1024, "Longer conversations are cut.", unit="tokens", minimum=8, maximum=1_000_000)
    center: float = option(0.01, "Weight of the penalty that keeps scores near zero; 0 is off.", minimum=0.0, maximum=10.0)


def run(job: Job) -> Outcome:
    from trl import RewardConfig, RewardTrainer

    p: Parameters = job.parameters
    start = job.model()
    rows = job.rows("train", subset="preferences-reward", columns=COLUMNS)
    held_out = job.rows("eval", subset="preferences-eval", columns=COLUMNS) if job.has_dataset("eval") else []
    trainer = RewardTrainer(
        model=models.load_scorer(start, fresh_head=True),
        processing_class=models.load_tokenizer(start),
        train_dataset=training.chat_rows(rows, *COLUMNS),
        args=RewardConfig(
            **training.arguments(job, max_steps=p.maxSteps, learning_rate=p.learningRate, schedule="linear"),
            per_device_train_batch_size=training.share(p.batchSize, "parameters.batchSize"),
            max_length=p.maxLength,
            center_rewards_coefficient=p.center or None,
        ),
        **training.lora(job, "SEQ_CLS"),
    )
    training.train(trainer, job)
    loss_first, loss_last = training.ends(training.series(trainer, "loss"))
    content = training.save_model(trainer, job, start)
    metrics = accuracy(content, held_out) if held_out else {}
    return Outcome(
        kind="reward-model",
        content=content,
        summary=f"Pointwise preference model, trained on {len(rows)} pairs.",
        metrics={**metrics, "loss_last": loss_last, "loss_first": loss_first, "pairs": len(rows)},
    )


def accuracy(content: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Share of held-out pairs in which the chosen reply scores higher (ties ½), with Wilson's 95 % lower bound."""
    score = scoring.pointwise(content)
    chosen = score([(row["prompt"], row["chosen"][-1]["content"]) for row in rows])
    rejected = score([(row["prompt"], row["rejected"][-1]["content"]) for row in rows])
    right = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(chosen, rejected, strict=True))
    lower, upper = estimates.wilson(int(right), len(rows))
    margin = sum(a - b for a, b in zip(chosen, rejected, strict=True)) / len(rows)
    return {"accuracy": right / len(rows), "accuracy_lower": lower, "accuracy_upper": upper, "margin": margin, "eval_pairs": len(rows)}
