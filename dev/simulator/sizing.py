"""The same users without HTTP: what breadth and depth are at a given share of good replies. Sizes the demo; used by the tests."""

from __future__ import annotations

import random
from typing import NamedTuple

from dev.simulator.person import Person

GOOD = "I love {t}! What do you like most about it?"
FLAT = "It depends on the details."


class Totals(NamedTuple):
    users: int
    breadth: float
    depth: float
    depths: list[int]


def simulate(good_share: float, users: int, seed: int) -> Totals:
    rng = random.Random(f"{seed}:replies")
    depths = []
    for number in range(users):
        person = Person(f"{seed}:{number}")
        again = True
        while again:
            person.says()
            reply = GOOD.format(t=person.topic) if rng.random() < good_share else FLAT
            again = person.hears(reply).again
        depths.append(person.turns - 1)
    return Totals(users, sum(depth > 0 for depth in depths) / users, sum(depths) / users, depths)
