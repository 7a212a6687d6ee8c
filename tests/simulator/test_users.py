"""What users like, how they decide, and that the demo's sizing holds for them."""

from __future__ import annotations

import ast
import math
import random
from pathlib import Path

import pytest

import dev.simulator.person as person_module
from dev.simulator.crowd import arrivals_per_second
from dev.simulator.person import MAX_TURNS, Person, shifted
from dev.simulator.sizing import FLAT, GOOD, simulate
from dev.simulator.taste import judge


@pytest.mark.parametrize(
    ("topic", "reply"),
    [
        ("the sea", "Oh, the sea sounds lovely! What do you like most about it?"),
        ("a long walk", "I love walks. When did it start?"),
        ("my garden", "How nice, my garden! Would you tell me more?"),
        ("the night sky", "The sky is such a joy! Who do you share it with?"),
        ("tea", "Ahoy! Tea reminds me of the high seas! What be yer favourite part?"),
    ],
)
def test_a_reply_that_is_on_topic_warm_and_asks_back_is_good(topic: str, reply: str) -> None:
    assert judge(reply, topic).good


@pytest.mark.parametrize(
    ("reply", "lacks"),
    [
        ("I love the river! What do you like most about it?", "on_topic"),
        ("I love the seam! What do you like most about it?", "on_topic"),
        ("Oh, the sea sounds lovely! Please let me know.", "asks_back"),
        ("Oh, the sea sounds lovely! What? Do you like it?", "asks_back"),
        ("Oh, the sea sounds lovely! ?", "asks_back"),
        ("Oh, the sea sounds lovely! What do you mean????", "asks_back"),
        ("What do you like about the sea? I love it!", "asks_back"),
        ("I can talk about the sea. When did it start?", "warm"),
        ("People often enjoy the sea. When did it start?", "warm"),
        ("The sea! Why?", "right_length"),
        ("The sea is lovely, and " + "so are many other things that I know of, " * 2 + "is it not?", "right_length"),
        ("the sea the sea the sea the sea! love it?", "clean"),
        ("I love love the sea! When did it start?", "clean"),
        ("I love the sea\x07! When did it start?", "clean"),
        ("I love the sea\ufffd! When did it start?", "clean"),
        ("I love the sea!!!! When did it start?", "clean"),
    ],
)
def test_a_reply_that_lacks_one_thing_is_flat(reply: str, lacks: str) -> None:
    verdict = judge(reply, "the sea")
    assert not verdict.good
    assert not getattr(verdict, lacks)


def test_an_empty_reply_is_flat() -> None:
    assert not judge("", "the sea").good


def test_a_question_mark_alone_does_not_please() -> None:
    assert not judge("the sea?", "the sea").good
    assert not judge("?", "the sea").good


def test_the_same_seed_is_the_same_user() -> None:
    def life(seed: str) -> list[object]:
        person, rng = Person(seed), random.Random(5)
        return [(person.says(), person.hears(GOOD.format(t=person.topic) if rng.random() < 0.7 else FLAT)) for _ in range(6)]

    assert life("1:7") == life("1:7")
    assert life("1:7") != life("1:8")


def test_a_user_stops_after_the_last_turn() -> None:
    for number in range(200):
        person = Person(f"stop:{number}")
        again, turns = True, 0
        while again:
            person.says()
            again, turns = person.hears(GOOD.format(t=person.topic)).again, turns + 1
        assert turns <= MAX_TURNS


def test_users_write_again_as_often_as_they_should() -> None:
    assert shifted(0.9, 0) == pytest.approx(0.9)
    for good, probability in ((True, 0.90), (False, 0.15)):
        again = thumbs = 0
        for number in range(4000):
            person = Person(f"{good}:{number}")
            person.says()
            reaction = person.hears(GOOD.format(t=person.topic) if good else FLAT)
            again += reaction.again
            thumbs += reaction.thumbs
        assert again / 4000 == pytest.approx(probability, abs=0.02)
        assert thumbs / 4000 == pytest.approx(0.30 if good else -0.15, abs=0.025)


def test_a_better_model_is_seen_in_430_users_a_slice_and_no_difference_is_not() -> None:
    """DESIGN's sizing, with these users: a share of good replies .30 to .50 wins on breadth and depth, fixed horizon, 5 %."""

    def wins(before: float, after: float) -> float:
        won = 0
        for seed in range(120):
            old, new = simulate(before, 430, 2 * seed).depths, simulate(after, 430, 2 * seed + 1).depths
            breadths = [float(depth > 0) for depth in old], [float(depth > 0) for depth in new]
            won += _z(*breadths) > 1.96 and _z([float(d) for d in old], [float(d) for d in new]) > 1.96
        return won / 120

    assert wins(0.30, 0.50) >= 0.95
    assert wins(0.30, 0.30) <= 0.05


def _z(old: list[float], new: list[float]) -> float:
    def moments(values: list[float]) -> tuple[float, float]:
        mean = sum(values) / len(values)
        return mean, sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)

    (a, va), (b, vb) = moments(old), moments(new)
    return (b - a) / math.sqrt(va + vb)


def test_new_users_come_so_often_that_all_turns_together_make_the_rate() -> None:
    assert arrivals_per_second(10, 0, 0) == pytest.approx(10 / 1.75)
    assert arrivals_per_second(10, 4000, 1000) == pytest.approx(2.5, rel=0.05)
    assert arrivals_per_second(10, 0, 1000) == 10


def test_the_user_model_knows_neither_arms_nor_http() -> None:
    folder = Path(person_module.__file__).parent
    for name in ("person.py", "taste.py", "topics.py"):
        source = (folder / name).read_text()
        imported = {alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
        assert imported <= {"__future__", "math", "random", "re", "typing", "collections", "itertools",
                            "dev.simulator.taste", "dev.simulator.topics"}  # fmt: skip
        assert "generation" not in source
