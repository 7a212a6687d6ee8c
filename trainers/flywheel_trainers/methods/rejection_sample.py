"""RejectionSample: many candidates for every prompt, from a pool of models; the rewards keep the best.

The result is a subset `sft`, made anew for every generation from the newest traffic: an off-policy method close to on-policy.
"""

from dataclasses import dataclass
from typing import Any

from .. import scoring, style, tables
from ..errors import RunError
from ..generation import Generator
from ..job import Job, Outcome
from ..parameters import option


@dataclass(frozen=True)
class Parameters:
    """Parameters of RejectionSample."""

    candidatesPerPrompt: int = option(4, "Replies drawn per prompt from each model of the pool.", minimum=1, maximum=1024)
    keepPerPrompt: int = option(1, "At most this many of a prompt's candidates are kept, best first.", minimum=1, maximum=1024)
    keepFraction: float = option(1.0, "Share of those kept overall, best first.", minimum=0.0, maximum=1.0)
    threshold: float | None = option(None, "Least reward of a kept reply; none: no threshold.")
    maxPrompts: int = option(0, "At most this many prompts are used; 0: all.", unit="prompts", minimum=0)
    temperature: float = option(1.0, "Sampling temperature.", minimum=0.0, maximum=5.0)
    topP: float = option(1.0, "Nucleus sampling.", minimum=0.01, maximum=1.0)
    maxNewTokens: int = option(48, "Longest reply.", unit="tokens", minimum=1, maximum=100_000)
    batchSize: int = option(128, "Replies generated at once.", minimum=1, maximum=65_536)


def run(job: Job) -> Outcome:
    p: Parameters = job.parameters
    prompts = job.rows("prompts", subset="prompts-train", columns=("messages",))[: p.maxPrompts or None]
    sources = ([job.model()] if job.config.model else []) + job.pool()
    if not sources:
        raise RunError("InvalidConfig", "RejectionSample needs a 'model' or a 'pool'; add one to the run's inputs")
    rewards = scoring.load(job.rewards("Reward"))

    candidates: list[dict[str, Any]] = []
    for number, source in enumerate(sources):
        generator = Generator(source, temperature=p.temperature, top_p=p.topP, max_new_tokens=p.maxNewTokens, batch_size=p.batchSize)
        replies = generator.replies([row["messages"] for row in prompts], p.candidatesPerPrompt, job, seed=job.config.seed + number)
        for i, group in enumerate(replies):
            candidates += [{"prompt": i, "reply": reply, "source": number} for reply in sorted(set(group)) if reply]
    if not candidates:
        raise RunError("DatasetEmpty", "the models gave no reply to any prompt; check the model and parameters.maxNewTokens")
    job.progress.begin("Scoring", len(candidates))
    scores = scoring.combined(rewards, [(prompts[c["prompt"]]["messages"], c["reply"]) for c in candidates])
    for candidate, score in zip(candidates, scores, strict=True):
        candidate["score"] = score

    kept = select(candidates, p)
    if not kept:
        why = f"no candidate reached the threshold {p.threshold} (best: {max(scores):.3g})"
        raise RunError("DatasetEmpty", f"{why}; lower parameters.threshold")
    content = job.scratch / "content"
    content.mkdir()
    tables.write(
        content,
        "sft",
        [
            {
                "messages": [*prompts[c["prompt"]]["messages"], {"role": "assistant", "content": c["reply"]}],
                "score": c["score"],
                "source": c["source"],
            }
            for c in kept
        ],
    )
    accepted, all_means = style.means(c["reply"] for c in kept), style.means(c["reply"] for c in candidates)
    return Outcome(
        kind="dataset",
        content=content,
        summary=f"The best {len(kept)} of {len(candidates)} candidates for {len(prompts)} prompts.",
        metrics={
            "acceptance_rate": len(kept) / len(candidates),
            "rows": len(kept),
            "candidates": len(candidates),
            "reward_accepted": sum(c["score"] for c in kept) / len(kept),
            "reward_all": sum(scores) / len(scores),
            **{f"style.{name}": value for name, value in accepted.items()},
            **{f"style.{name}_delta": value - all_means[name] for name, value in accepted.items()},
        },
    )


def select(candidates: list[dict[str, Any]], p: Parameters) -> list[dict[str, Any]]:
    """The best of each prompt, of those the ones above the threshold, of those the best share. Ties: the earlier candidate."""
    ranked = sorted(candidates, key=lambda c: -c["score"])
    taken: dict[int, int] = {}
    best: list[dict[str, Any]] = []
    for candidate in ranked:
        if taken.get(candidate["prompt"], 0) < p.keepPerPrompt and (p.threshold is None or candidate["score"] >= p.threshold):
            taken[candidate["prompt"]] = taken.get(candidate["prompt"], 0) + 1
            best.append(candidate)
    return best[: max(1, round(p.keepFraction * len(best)))] if p.keepFraction > 0 else []
