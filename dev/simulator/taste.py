"""What a user makes of a reply. Text in, verdict out; shares no code with any reward or trainer."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

WARM = frozenset(
    (
        "love",
        "loved",
        "lovely",
        "nice",
        "joy",
        "joyful",
        "glad",
        "happy",
        "wonderful",
        "great",
        "delight",
        "delightful",
        "beautiful",
        "charming",
    )
)
_WORD = re.compile(r"[a-z']+")


class Verdict(NamedTuple):
    on_topic: bool
    asks_back: bool
    warm: bool
    right_length: bool
    clean: bool

    @property
    def good(self) -> bool:
        return all(self)


def judge(reply: str, topic: str) -> Verdict:
    words = _WORD.findall(reply.lower())
    return Verdict(
        on_topic=_names(words, topic),
        asks_back=reply.count("?") == 1 and re.search(r"\w\?$", reply.rstrip()) is not None,
        warm="!" in reply or not WARM.isdisjoint(words),
        right_length=4 <= len(reply.split()) <= 16,
        clean=_clean(reply, words),
    )


def _names(words: list[str], topic: str) -> bool:
    """The topic, or its head word ("a long walk": walk), singular or plural."""
    head = topic.split()[-1]
    return head in words or head + "s" in words


def _clean(reply: str, words: list[str]) -> bool:
    if not reply.replace("\n", " ").isprintable() or "\ufffd" in reply or re.search(r"([^\w\s.])\1\1|\.{4}", reply):
        return False
    if any(first == second for first, second in pairwise(words)):
        return False
    return max(Counter(words).values(), default=0) <= 3
