"""DPO: a small, direct patch from preference pairs, without a reward model."""

from dataclasses import dataclass

from .. import drift, models, training
from ..job import Job, Outcome
from ..parameters import option

COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Parameters(drift.Drift):
    """Parameters of DPO."""

    maxSteps: int = option(40, "Optimiser steps.", unit="steps", minimum=1, maximum=10_000_000)
    batchSize: int = option(16, "Preference pairs per step.", unit="pairs", minimum=1, maximum=65_536)
    learningRate: float = option(1e-6, "Peak learning rate; tiny models need about 3e-4.", minimum=1e-9, maximum=1.0)
    beta: float = option(0.1, "How strongly the model is held to where it starts.", minimum=0.0, maximum=100.0)
    labelSmoothing: float = option(0.0, "Assumed share of pairs with the wrong label.", minimum=0.0, maximum=0.5)
    maxLength: int = option(1024, "Longer conversations are cut.", unit="tokens", minimum=8, maximum=1_000_000)


def run(job: Job) -> Outcome:
    from trl import DPOConfig, DPOTrainer

    p: Parameters = job.parameters
    start = job.model()
    rows = job.all_rows(subset="preferences-reward", columns=COLUMNS, but=("eval",))
    trainer = DPOTrainer(
        model=models.load_causal(start),
        processing_class=models.load_tokenizer(start),
        train_dataset=training.chat_rows(rows, *COLUMNS),
        args=DPOConfig(
            **training.arguments(job, max_steps=p.maxSteps, learning_rate=p.learningRate, schedule="linear"),
            per_device_train_batch_size=training.share(p.batchSize, "parameters.batchSize"),
            beta=p.beta,
            label_smoothing=p.labelSmoothing,
            max_length=p.maxLength,
        ),
        **training.lora(job, "CAUSAL_LM"),
    )
    training.train(trainer, job)
    _, accuracy = training.ends(training.series(trainer, "rewards/accuracies"))
    _, margin = training.ends(training.series(trainer, "rewards/margins"))
    loss_first, loss_last = training.ends(training.series(trainer, "loss"))
    content = training.save_model(trainer, job, start)
    del trainer
    bent = drift.metrics(job, start, content, (row["prompt"] for row in rows))
    measured = {"loss_last": loss_last, "loss_first": loss_first, "train_accuracy": accuracy, "train_margin": margin, "pairs": len(rows)}
    return Outcome(
        kind="model",
        content=content,
        summary=f"Direct preference optimisation on {len(rows)} pairs.",
        metrics=measured | bent,
    )
