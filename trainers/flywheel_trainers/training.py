"""What every TRL trainer of ours has in common: arguments, LoRA, resuming, stopping."""

import math
import os
import shutil
from pathlib import Path
from typing import Any

from . import checkpoints, distributed, models
from .errors import RunError
from .job import Job


def arguments(job: Job, *, max_steps: int, learning_rate: float, schedule: str, warmup_steps: int = 0) -> dict[str, Any]:
    """Arguments for any TRL config. TRL's own defaults assume a GPU (bf16, activation checkpointing, pinned memory)."""
    import torch

    accelerated = torch.cuda.is_available()
    places = checkpoints.Checkpoints.of(job)
    return {
        "output_dir": str(places.directory),
        "max_steps": max_steps,
        "learning_rate": learning_rate,
        "lr_scheduler_type": schedule,
        "warmup_steps": warmup_steps,
        "logging_steps": 1,
        "save_strategy": "steps" if places.kept else "no",
        "save_steps": places.every_steps,
        "save_total_limit": places.keep,
        "seed": job.config.seed,
        "data_seed": job.config.seed,
        "use_cpu": not accelerated,
        "bf16": accelerated,
        "gradient_checkpointing": accelerated,
        "dataloader_pin_memory": accelerated,
        "report_to": "none",
        "disable_tqdm": True,
        **({"fsdp": True} if sharded(job) else {}),
    }


def sharded(job: Job) -> bool:
    """Whether each process holds a part of the weights only (FSDP through accelerate, which shards on GPUs alone).

    Asked for by FLYWHEEL_SHARDING=fsdp in the pod's environment: no test of ours has GPUs, so nobody gets it without asking.
    """
    if distributed.size() == 1 or job.config.adapter is not None or os.environ.get("FLYWHEEL_SHARDING") != "fsdp":
        return False
    import torch

    return bool(torch.cuda.is_available())


def share(total: int, parameter: str) -> int:
    """What one process takes of a step, so that a step is the same on one GPU and on many."""
    processes = distributed.size()
    if total % processes:
        raise RunError(
            "InvalidParameter", f"{parameter} is {total} a step, which {processes} processes can't share; choose a multiple of {processes}"
        )
    return total // processes


def lora(job: Job, task: str) -> dict[str, Any]:
    """`peft_config` for a TRL trainer, if the run asks for an adapter."""
    if job.config.adapter is None:
        return {}
    from peft import LoraConfig

    return {
        "peft_config": LoraConfig(
            r=job.config.adapter.rank,
            lora_alpha=job.config.adapter.alpha,
            target_modules="all-linear",
            task_type=task,
            modules_to_save=["score"] if task == "SEQ_CLS" else None,
        )
    }


def train(trainer: Any, job: Job) -> None:
    """Train from the newest complete checkpoint, or from the start. After SIGTERM: checkpoint, then `Interrupted`."""
    places = checkpoints.Checkpoints.of(job)
    trainer.add_callback(checkpoints.callback(job, places))
    if distributed.size() > 1 and distributed.leads():
        print(f"{distributed.size()} processes, by accelerate: {trainer.accelerator.distributed_type.value}", flush=True)
    newest = places.newest()
    if newest is None:
        trainer.train()
    else:
        step, path = newest
        print(f"resuming at step {step} from {path}", flush=True)
        if step >= trainer.args.max_steps and not sharded(job):
            # The training itself was over when the run was stopped; the trainer would do one step too many.
            trainer._load_from_checkpoint(str(path))
            trainer.state = type(trainer.state).load_from_json(str(path / "trainer_state.json"))
        else:
            trainer.train(resume_from_checkpoint=str(path))
    job.check()


def unwrapped(trainer: Any) -> Any:
    return trainer.accelerator.unwrap_model(trainer.model)


def save_model(trainer: Any, job: Job, ancestor: Path) -> Path:
    """The trained model. Only the leader comes back from here: what follows needs no other process."""
    content = job.scratch / "content"
    shutil.rmtree(content, ignore_errors=True)
    write_model(trainer, job, content, ancestor)
    if not distributed.leads():
        raise distributed.Follower
    return content


def write_model(trainer: Any, job: Job, target: Path, ancestor: Path, *, goes_on: bool = False) -> None:
    """The model as it is now, written by the leader. All processes call this: what is sharded they gather."""
    if sharded(job):
        trainer.save_model(str(target))
        (target / "training_args.bin").unlink(missing_ok=True)  # pickled
        if distributed.leads():
            models.inherit(target, ancestor)
    elif distributed.leads():
        model = unwrapped(trainer)
        # Merging changes the model in place: a LoRA run that goes on with its training must give away a copy.
        if goes_on and hasattr(model, "merge_and_unload"):
            import copy

            model = copy.deepcopy(model)
        models.save(model, target, ancestor=ancestor)


def series(trainer: Any, key: str) -> list[float]:
    """All logged values of a metric, in order; across interruptions too, since the trainer's state is in the checkpoint."""
    values = [float(entry[key]) for entry in trainer.state.log_history if key in entry]
    if any(not math.isfinite(value) for value in values):
        raise RunError("InvalidParameter", f"the training diverged ({key} is not finite); lower parameters.learningRate")
    return values


def ends(values: list[float]) -> tuple[float, float]:
    """Mean of the first and of the last tenth: single steps are noisy."""
    if not values:
        return 0.0, 0.0
    n = max(1, len(values) // 10)
    return sum(values[:n]) / n, sum(values[-n:]) / n


def chat_rows(rows: list[dict[str, Any]], *columns: str) -> Any:
    """A `datasets.Dataset` with exactly these columns: TRL takes any other column for input."""
    from datasets import Dataset

    return Dataset.from_list([{column: row[column] for column in columns} for row in rows])
