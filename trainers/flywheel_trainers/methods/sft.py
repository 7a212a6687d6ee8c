"""SFT: supervised fine-tuning on conversations, on every dataset of the run, mixed by weight.

By default only the last reply carries loss: what stands before it was said by whichever model served then, good or bad.
"""

import re
from dataclasses import dataclass

from .. import drift, models, training
from ..errors import RunError
from ..job import Job, Outcome
from ..parameters import option


@dataclass(frozen=True)
class Parameters(drift.Drift):
    """Parameters of SFT."""

    maxSteps: int = option(50, "Optimiser steps.", unit="steps", minimum=1, maximum=10_000_000)
    batchSize: int = option(16, "Conversations per step.", unit="conversations", minimum=1, maximum=65_536)
    learningRate: float = option(2e-5, "Peak learning rate; tiny models need about 1e-3.", minimum=1e-9, maximum=1.0)
    schedule: str = option("cosine", "Course of the learning rate.", choices=("cosine", "linear", "constant"))
    warmupSteps: int = option(0, "Steps until the peak.", unit="steps", minimum=0, maximum=1_000_000)
    maxLength: int = option(1024, "Longer conversations are cut.", unit="tokens", minimum=8, maximum=1_000_000)
    lossOn: str = option("last", "Which replies are learnt: the last one, or all of them.", choices=("last", "all"))


def run(job: Job) -> Outcome:
    from trl import SFTConfig, SFTTrainer

    p: Parameters = job.parameters
    start = job.model()
    tokenizer = models.load_tokenizer(start)
    rows = job.all_rows(subset="sft", columns=("messages",), but=("eval",))
    if p.lossOn == "all" and not re.search(r"\{%-?\s*generation\b", tokenizer.chat_template):
        raise RunError(
            "InvalidParameter", "parameters.lossOn=all needs a chat template with {% generation %} around replies; use lossOn: last"
        )
    if p.lossOn == "last":
        rows = [_split(row) for row in rows]
        dataset = training.chat_rows(rows, "prompt", "completion")
    else:
        dataset = training.chat_rows(rows, "messages")
    trainer = SFTTrainer(
        model=models.load_causal(start),
        processing_class=tokenizer,
        train_dataset=dataset,
        args=SFTConfig(
            **training.arguments(job, max_steps=p.maxSteps, learning_rate=p.learningRate, schedule=p.schedule, warmup_steps=p.warmupSteps),
            per_device_train_batch_size=training.share(p.batchSize, "parameters.batchSize"),
            max_length=p.maxLength,
            assistant_only_loss=p.lossOn == "all",
        ),
        **training.lora(job, "CAUSAL_LM"),
    )
    training.train(trainer, job)
    loss_first, loss_last = training.ends(training.series(trainer, "loss"))
    content = training.save_model(trainer, job, start)
    del trainer
    bent = drift.metrics(job, start, content, (row["prompt"] if "prompt" in row else row["messages"][:-1] for row in rows))
    return Outcome(
        kind="model",
        content=content,
        summary=f"Fine-tuned on {len(rows)} conversations.",
        metrics={"loss_last": loss_last, "loss_first": loss_first, "rows": len(rows), **bent},
    )


def _split(row: dict[str, list[dict[str, str]]]) -> dict[str, list[dict[str, str]]]:
    messages = row["messages"]
    if not messages or messages[-1]["role"] != "assistant":
        raise RunError("DatasetInvalid", "a conversation in the SFT data doesn't end with the assistant's reply; drop such rows")
    return {"prompt": messages[:-1], "completion": messages[-1:]}
