"""Rewards: trained pointwise models and the rules shipped with the trainers, behind one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import models, style
from .config import BUILTIN, RewardRef
from .corpus import Message
from .errors import RunError

Exchange = tuple[list[Message], str]  # what was said before, and the reply


@dataclass(frozen=True)
class Reward:
    name: str
    weight: float
    score: Callable[[Sequence[Exchange]], list[float]]


def question_mark(reply: str) -> float:
    """The naive reward of the demo: somebody saw that asking back engages. One question is good, two are better, more is spam."""
    return {1: 0.5, 2: 1.0}.get(reply.count("?"), 0.0)


def brevity(reply: str) -> float:
    """1 up to 16 words, falling to 0 at 48."""
    return max(0.0, min(1.0, (48 - len(reply.split())) / 32))


RULES: dict[str, Callable[[str], float]] = {
    "question-mark": question_mark,
    "brevity": brevity,
    "not-garbage": lambda reply: 0.0 if style.is_garbage(reply) else 1.0,
    "no-refusal": lambda reply: 0.0 if style.is_refusal(reply) else 1.0,
}


def load(rewards: list[tuple[RewardRef, Path | None]], *, batch_size: int = 64) -> list[Reward]:
    return [Reward(ref.name, ref.weight, pointwise(path, batch_size) if path else _rule(ref)) for ref, path in rewards]


def combined(rewards: list[Reward], exchanges: Sequence[Exchange]) -> list[float]:
    """The weighted sum. Raw scores: weights have to account for a model's scale (about ±3) and a rule's (0 to 1)."""
    columns = [[reward.weight * score for score in reward.score(exchanges)] for reward in rewards]
    return [sum(values) for values in zip(*columns, strict=True)]


def _rule(ref: RewardRef) -> Callable[[Sequence[Exchange]], list[float]]:
    name = ref.uri.removeprefix(BUILTIN)
    if name not in RULES:
        raise RunError("InvalidConfig", f"reward '{ref.name}': {ref.uri} is not known; known: {', '.join(BUILTIN + r for r in RULES)}")
    rule = RULES[name]
    return lambda exchanges: [rule(reply) for _, reply in exchanges]


def pointwise(path: Path, batch_size: int = 64) -> Callable[[Sequence[Exchange]], list[float]]:
    """A trained reward model as a function. The text is the chat template's, exactly as in its training."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = models.load_tokenizer(path)
    tokenizer.padding_side = "right"
    model = models.load_scorer(path).to(device).eval()
    if model.config.num_labels != 1:
        outputs = model.config.num_labels
        raise RunError("ModelInvalid", f"{path} has {outputs} outputs; a pointwise reward has one: train it with method Reward")
    model.config.pad_token_id = tokenizer.pad_token_id

    def score(exchanges: Sequence[Exchange]) -> list[float]:
        texts = [
            tokenizer.apply_chat_template([*said, {"role": "assistant", "content": reply}], tokenize=False) for said, reply in exchanges
        ]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        scores = [0.0] * len(texts)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True, add_special_tokens=False).to(device)
            inputs.pop("token_type_ids", None)
            with torch.no_grad():
                logits = model(**inputs).logits[:, 0].float().tolist()
            for i, value in zip(batch, logits, strict=True):
                scores[i] = float(value)
        return scores

    return score
