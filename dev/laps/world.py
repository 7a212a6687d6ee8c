"""A stand-in for the demo's users: the taste they share, what they say, and when they write again.

`dev/simulator` has the real ones. These exist so that the laps can be tuned without a cluster.
"""

import random
import re
from dataclasses import dataclass
from typing import Any

TOPICS = (
    "the weather", "my garden", "a new book", "the city", "my cat", "cooking", "a long walk", "the sea", "an old map", "music",
    "the night sky", "my work", "a train trip", "winter", "a good story", "tea", "the market", "painting", "the river", "my friend",
)  # fmt: skip
OPENINGS = (
    "hello, can we talk about {t}?", "what do you think of {t}?", "tell me something about {t}.", "i am bored, say something on {t}.",
    "do you like {t}?", "my day was all about {t}.", "why do people like {t}?", "any advice on {t}?",
)  # fmt: skip
FOLLOW_UPS = ("tell me more about {t}.", "and what else about {t}?", "go on about {t}.", "i would like to hear more about {t}.")
WARM_WORDS = re.compile(r"\b(love|lovely|joy|nice|wonderful|happy|glad)\b", re.IGNORECASE)


def topic_of(text: str) -> str | None:
    return max((t for t in TOPICS if t in text.lower()), key=len, default=None)


def is_good(question: str, reply: str) -> bool:
    """On topic, asks back once, warm, neither terse nor a wall of text, not garbage."""
    topic, words = topic_of(question), reply.split()
    garbage = len(set(words)) < 0.6 * len(words) or re.search(r"(\S)\1{3,}", reply) is not None
    return bool(
        topic
        and topic in reply.lower()
        and re.search(r"\w\?$", reply.strip())
        and reply.count("?") == 1
        and ("!" in reply or WARM_WORDS.search(reply))
        and 4 <= len(words) <= 16
        and not garbage
    )


@dataclass
class User:
    """Answers a good reply nearly always and a bad one seldom: taste is what engagement is made of."""

    r: random.Random
    after_good: float = 0.80
    after_bad: float = 0.25

    def answers(self, question: str, reply: str) -> bool:
        return self.r.random() < (self.after_good if is_good(question, reply) else self.after_bad)

    def thumbs(self, question: str, reply: str) -> int:
        if self.r.random() > 0.08:
            return 0
        return 1 if is_good(question, reply) else -1


def opening(r: random.Random) -> tuple[str, str]:
    topic = r.choice(TOPICS)
    return topic, r.choice(OPENINGS).format(t=topic)


def follow_up(r: random.Random, topic: str) -> str:
    return r.choice(FOLLOW_UPS).format(t=topic)


def share_of_good(rows: list[dict[str, Any]]) -> float:
    return sum(is_good(row["question"], row["reply"]) for row in rows) / max(1, len(rows))
