"""KTO: learning from thumbs. Every row is one reply and whether it was liked; pairs are taken apart into two rows."""

from dataclasses import dataclass
from typing import Any

from .. import drift, models, training
from ..errors import RunError
from ..job import Job, Outcome
from ..parameters import option


@dataclass(frozen=True)
class Parameters(drift.Drift):
    """Parameters of KTO."""

    maxSteps: int = option(40, "Optimiser steps.", unit="steps", minimum=1, maximum=10_000_000)
    batchSize: int = option(16, "Replies per step (two or more: KTO compares within a batch).", unit="replies", minimum=2, maximum=65_536)
    learningRate: float = option(1e-6, "Peak learning rate; tiny models need about 3e-4.", minimum=1e-9, maximum=1.0)
    beta: float = option(0.1, "How strongly the model is held to where it starts.", minimum=0.0, maximum=100.0)
    desirableWeight: float = option(1.0, "Weight of liked replies.", minimum=0.0, maximum=100.0)
    undesirableWeight: float = option(1.0, "Weight of disliked replies.", minimum=0.0, maximum=100.0)
    maxLength: int = option(1024, "Longer conversations are cut.", unit="tokens", minimum=8, maximum=1_000_000)


def run(job: Job) -> Outcome:
    from trl import KTOConfig, KTOTrainer

    p: Parameters = job.parameters
    start = job.model()
    rows = [single for row in job.all_rows(subset="feedback", columns=("prompt",), but=("eval",)) for single in _singles(row)]
    trainer = KTOTrainer(
        model=models.load_causal(start),
        processing_class=models.load_tokenizer(start),
        train_dataset=training.chat_rows(rows, "prompt", "completion", "label"),
        args=KTOConfig(
            **training.arguments(job, max_steps=p.maxSteps, learning_rate=p.learningRate, schedule="linear"),
            per_device_train_batch_size=training.share(p.batchSize, "parameters.batchSize"),
            beta=p.beta,
            desirable_weight=p.desirableWeight,
            undesirable_weight=p.undesirableWeight,
            max_length=p.maxLength,
        ),
        **training.lora(job, "CAUSAL_LM"),
    )
    training.train(trainer, job)
    loss_first, loss_last = training.ends(training.series(trainer, "loss"))
    liked = sum(row["label"] for row in rows)
    content = training.save_model(trainer, job, start)
    del trainer
    bent = drift.metrics(job, start, content, (row["prompt"] for row in rows))
    return Outcome(
        kind="model",
        content=content,
        summary=f"Trained on {liked} liked and {len(rows) - liked} disliked replies.",
        metrics={"loss_last": loss_last, "loss_first": loss_first, "rows": len(rows), "liked": liked, **bent},
    )


def _singles(row: dict[str, Any]) -> list[dict[str, Any]]:
    if "label" in row and "completion" in row:
        return [row]
    if "chosen" in row and "rejected" in row:
        return [{"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"} for side in ("chosen", "rejected")]
    raise RunError("DatasetInvalid", "KTO needs columns prompt, completion, label (Curate's subset feedback) or prompt, chosen, rejected")
