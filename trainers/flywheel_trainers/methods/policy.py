"""What GRPO and RLOO share: prompts, rewards, the prompt picker, and choosing a checkpoint by win rate.

Optimisation is single-turn: the prompt is a fixed history, only the last reply is trained. A reward model is right only near
the data it has seen, so the last checkpoint is seldom the one to take: candidates are kept on the way, and the one whose win
rate (by judges that training never saw) is nearest the target becomes the artifact.
"""

import gc
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

from .. import checkpoints, comparison, distributed, drift, estimates, models, scoring, style, training
from ..generation import Generator
from ..job import Job, Outcome
from ..parameters import option


@dataclass(frozen=True)
class Selection:
    """Choose the checkpoint whose win rate against the opponent is nearest a target."""

    target: float = option(0.6, "Wanted win rate. Far above it a reward model is being fooled more often than users are pleased.",
                           minimum=0.0, maximum=1.0)  # fmt: skip
    everySteps: int = option(5, "A candidate is kept every so many steps; the start is one too.", unit="steps", minimum=1)
    maxPrompts: int = option(48, "Prompts of dataset 'select' used per candidate; 0: all.", unit="prompts", minimum=0)
    samplesPerPrompt: int = option(4, "Replies per prompt and model.", minimum=1, maximum=256)


@dataclass(frozen=True)
class PolicyParameters(drift.Drift):
    """Parameters of GRPO and RLOO."""

    maxSteps: int = option(30, "Optimiser steps.", unit="steps", minimum=1, maximum=10_000_000)
    promptsPerStep: int = option(8, "Prompts per step.", unit="prompts", minimum=1, maximum=65_536)
    generations: int = option(8, "Replies per prompt, compared with each other.", minimum=2, maximum=1024)
    learningRate: float = option(1e-6, "Learning rate; tiny models need about 3e-4.", minimum=1e-9, maximum=1.0)
    schedule: str = option("constant", "Course of the learning rate.", choices=("cosine", "linear", "constant"))
    beta: float = option(0.02, "Weight of the distance to the start model; 0 is off.", minimum=0.0, maximum=100.0)
    temperature: float = option(1.0, "Sampling temperature in training.", minimum=0.01, maximum=5.0)
    maxNewTokens: int = option(48, "Longest reply.", unit="tokens", minimum=1, maximum=100_000)
    pick: str = option("all", "Prompts to train on: all, those with low scores (hard), or with much variance (varied).",
                       choices=("all", "hard", "varied"))  # fmt: skip
    pickFraction: float = option(0.5, "Share of the prompts picked, unless all.", minimum=0.01, maximum=1.0)
    pickSamples: int = option(4, "Replies per prompt the picker looks at.", minimum=2, maximum=256)
    selection: Selection | None = option(None, "Choose the checkpoint by win rate; none: the last one.")


def run(job: Job, trainer_class: Any, config: dict[str, Any], config_class: Any) -> Outcome:
    p: PolicyParameters = job.parameters
    start = job.model()
    opponent = job.opponent() if p.selection else None  # checked now, not after the training
    judges = job.rewards("Judge") if p.selection else []
    select_rows = job.rows("select", subset="prompts-select", columns=("messages",)) if p.selection else []
    rows = job.all_rows(subset="prompts-train", columns=("messages",), but=("select", "eval"))
    rewards = scoring.load(job.rewards("Reward"))
    if p.pick != "all":
        rows = distributed.agree(pick(rows, start, rewards, job) if distributed.leads() else [])

    places = checkpoints.Checkpoints.of(job)
    trainer = trainer_class(
        model=models.load_causal(start),
        processing_class=models.load_tokenizer(start),
        reward_funcs=[_reward_function(reward) for reward in rewards],
        train_dataset=training.chat_rows([{"prompt": row["messages"]} for row in rows], "prompt"),
        args=config_class(
            **training.arguments(job, max_steps=p.maxSteps, learning_rate=p.learningRate, schedule=p.schedule),
            per_device_train_batch_size=training.share(p.promptsPerStep * p.generations, "promptsPerStep × generations"),
            num_generations=p.generations,
            max_completion_length=p.maxNewTokens,
            temperature=p.temperature,
            beta=p.beta,
            reward_weights=[reward.weight for reward in rewards],
            **config,
        ),
        **training.lora(job, "CAUSAL_LM"),
    )
    if p.selection:
        trainer.add_callback(_candidates_callback(trainer, job, start, places, p.selection.everySteps))
    training.train(trainer, job)
    reward_first, reward_last = training.ends(training.series(trainer, "reward"))
    curve: dict[str, object] = {"reward_curve": training.series(trainer, "reward")}
    measured = {"reward_first": reward_first, "reward_last": reward_last, "prompts": float(len(rows))}
    content = training.save_model(trainer, job, start)
    selection = p.selection
    del trainer
    gc.collect()
    if selection and opponent:
        found = {0: start, **places.candidates(), p.maxSteps: content}
        prompts = [row["messages"] for row in select_rows][: selection.maxPrompts or None]
        wins = _win_rates(found, opponent, scoring.load(judges), prompts, selection, job)
        step = min(wins, key=lambda step: (abs(wins[step].mean - selection.target), step))
        if step != p.maxSteps:
            shutil.rmtree(content)
            models.save(models.load_causal(found[step]), content, ancestor=start)
        measured = {
            "selected_step": float(step),
            "selected_win_rate": wins[step].mean,
            "selected_win_rate_lower": wins[step].lower,
            "selected_win_rate_upper": wins[step].upper,
            **measured,
            **{f"win_rate_step_{step}": estimate.mean for step, estimate in sorted(wins.items())},
        }
        curve["win_rate_curve"] = [{"step": s, "win_rate": e.mean, "lower": e.lower, "upper": e.upper} for s, e in sorted(wins.items())]
    return Outcome(
        kind="model",
        content=content,
        summary=f"Trained by {job.config.method} on {len(rows)} prompts against {', '.join(r.name for r in rewards)}.",
        metrics=measured | drift.metrics(job, start, content, (row["messages"] for row in rows)),
        details=curve,
    )


def _reward_function(reward: scoring.Reward) -> Any:
    def score(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        return reward.score([(prompt, completion[-1]["content"]) for prompt, completion in zip(prompts, completions, strict=True)])

    score.__name__ = reward.name
    return score


def _candidates_callback(trainer: Any, job: Job, start: Path, places: checkpoints.Checkpoints, every: int) -> Any:
    from transformers import TrainerCallback

    class KeepCandidates(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % every == 0 and state.global_step < args.max_steps:
                name = f"candidate-{state.global_step}"
                if distributed.leads():
                    shutil.rmtree(places.directory / name, ignore_errors=True)
                training.write_model(trainer, job, places.directory / name, start, goes_on=True)
                if distributed.leads():
                    places.complete(name)

    return KeepCandidates()


def _win_rates(
    found: dict[int, Path], opponent: Path, judges: list[scoring.Reward], prompts: list[Any], selection: Selection, job: Job
) -> dict[int, estimates.Estimate]:
    p: PolicyParameters = job.parameters

    def replies(model: Path, seed: int, phase: str) -> list[list[str]]:
        generator = Generator(model, temperature=p.temperature, top_p=1.0, max_new_tokens=p.maxNewTokens, batch_size=128)
        return generator.replies(prompts, selection.samplesPerPrompt, job, seed=seed, phase=phase)

    theirs = replies(opponent, job.config.seed + 1, "Selecting: opponent")
    wins: dict[int, estimates.Estimate] = {}
    for step, path in sorted(found.items()):
        ours = replies(path, job.config.seed + 2, f"Selecting: step {step}")
        wins[step] = estimates.of_scores(comparison.prompt_scores(judges, prompts, ours, theirs))
        garbage = style.means(reply for group in ours for reply in group)["garbage"]
        interval = f"[{wins[step].lower:.3f}, {wins[step].upper:.3f}]"
        print(f"step {step}: win rate {wins[step].mean:.3f} {interval}, garbage {garbage:.2f}", flush=True)
    return wins


def pick(rows: list[dict[str, Any]], start: Path, rewards: list[scoring.Reward], job: Job) -> list[dict[str, Any]]:
    """The prompts worth training on: the model answers them badly, or now well and now badly."""
    p: PolicyParameters = job.parameters
    generator = Generator(start, temperature=p.temperature, top_p=1.0, max_new_tokens=p.maxNewTokens, batch_size=128)
    replies = generator.replies([row["messages"] for row in rows], p.pickSamples, job, seed=job.config.seed, phase="Picking prompts")
    flat = [(row["messages"], reply) for row, group in zip(rows, replies, strict=True) for reply in group]
    scores = iter(scoring.combined(rewards, flat))
    groups = [[next(scores) for _ in group] for group in replies]
    worth = [-fmean(group) if p.pick == "hard" else pvariance(group) for group in groups]
    order = sorted(range(len(rows)), key=lambda i: (-worth[i], i))[: max(1, round(p.pickFraction * len(rows)))]
    return [rows[i] for i in sorted(order)]
