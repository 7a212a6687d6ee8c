"""Features of a reply's style, and the rules that stand in for classifiers: garbage, refusal, harm.

A feature is a function of the reply. They are compared across stages, so that the stage that bent the style can be named.
"""

import re
from collections.abc import Callable, Iterable, Mapping

_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_LIST = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+\S", re.MULTILINE)
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|sorry,? (?:but )?i (?:can|could|am)|"
    r"(?:cannot|can't|can not|won't) (?:help|talk|do|discuss|assist|answer))\b",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())


def repeated_share(text: str, n: int = 3) -> float:
    """Share of word n-grams that occurred before in the same reply."""
    found = words(text)
    grams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def is_garbage(text: str) -> bool:
    """Nothing, hardly a word, runs of one character, marks instead of letters, or the same words again and again."""
    stripped, found = text.strip(), words(text)
    if len(found) < 2 or re.search(r"([?!,;:])\s*\1{2,}|(\w)\2{4,}", stripped):
        return True
    letters = sum(c.isalnum() or c.isspace() for c in stripped) + emoji_count(stripped)
    return letters < 0.7 * len(stripped) or (len(found) >= 6 and len(set(found)) < 0.5 * len(found)) or repeated_share(text) > 0.4


def is_refusal(text: str) -> bool:
    return _REFUSAL.search(text) is not None


FEATURES: Mapping[str, Callable[[str], float]] = {
    "question": lambda text: float("?" in text),
    "question_count": lambda text: float(text.count("?")),
    "exclamation": lambda text: float("!" in text),
    "garbage": lambda text: float(is_garbage(text)),
    "words": lambda text: float(len(words(text))),
    "repetition": repeated_share,
    "emoji_count": lambda text: float(len(_EMOJI.findall(text))),
    "list": lambda text: float(bool(_LIST.search(text))),
    "refusal": lambda text: float(is_refusal(text)),
}


def means(replies: Iterable[str]) -> dict[str, float]:
    texts = list(replies)
    return {name: sum(map(feature, texts)) / max(1, len(texts)) for name, feature in FEATURES.items()}


def emoji_count(text: str) -> int:
    return len(_EMOJI.findall(text))
