"""What users like to talk about, and how they begin and go on."""

from __future__ import annotations

TOPICS = (
    "the weather", "my garden", "a new book", "the city", "my cat", "cooking", "a long walk", "the sea", "an old map", "music",
    "the night sky", "my work", "a train trip", "winter", "a good story", "tea", "the market", "painting", "the river", "my friend",
)  # fmt: skip
OPENINGS = (
    "hello, can we talk about {t}?", "what do you think of {t}?", "tell me something about {t}.", "i am bored, say something on {t}.",
    "do you like {t}?", "my day was all about {t}.", "why do people like {t}?", "any advice on {t}?",
)  # fmt: skip
FOLLOW_UPS = ("tell me more about {t}.", "what else about {t}?", "say something more on {t}.", "and why do people like {t}?")
