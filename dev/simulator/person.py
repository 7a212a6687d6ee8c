"""One user: what they say, and whether they go on. A function of a seed and of the replies' text; knows nothing of arms or of HTTP."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from dev.simulator.taste import judge
from dev.simulator.topics import FOLLOW_UPS, OPENINGS, TOPICS

AGAIN_AFTER_GOOD = 0.90
AGAIN_AFTER_FLAT = 0.15
SPREAD = 0.4
"""Standard deviation, on the logit, of how ready different users are to write again."""
MAX_TURNS = 6
THUMBS_UP_AFTER_GOOD = 0.30
THUMBS_DOWN_AFTER_FLAT = 0.15
CHANGES_TOPIC = 0.2
THINK_SECONDS = (0.2, 1.0)


class Reaction(NamedTuple):
    good: bool
    thumbs: int
    again: bool
    think_seconds: float


def shifted(probability: float, shift: float) -> float:
    return 1 / (1 + math.exp(-(math.log(probability / (1 - probability)) + shift)))


class Person:
    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._readiness = self._random.gauss(0, SPREAD)
        self.topic = self._random.choice(TOPICS)
        self.turns = 0

    def says(self) -> str:
        templates = FOLLOW_UPS if self.turns else OPENINGS
        if self.turns and self._random.random() < CHANGES_TOPIC:
            self.topic, templates = self._random.choice(TOPICS), OPENINGS
        self.turns += 1
        return self._random.choice(templates).format(t=self.topic)

    def hears(self, reply: str) -> Reaction:
        good = judge(reply, self.topic).good
        again = self._random.random() < shifted(AGAIN_AFTER_GOOD if good else AGAIN_AFTER_FLAT, self._readiness)
        thumb = self._random.random()
        thumbs = int(thumb < THUMBS_UP_AFTER_GOOD) if good else -int(thumb < THUMBS_DOWN_AFTER_FLAT)
        return Reaction(good, thumbs, again and self.turns < MAX_TURNS, self._random.uniform(*THINK_SECONDS))
