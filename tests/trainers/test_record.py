"""A generation's record in the store: what was handed over, whole, and a card that hostile text can't turn into something else."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flywheel_trainers.generation_card import generation_card
from flywheel_trainers.markdown import escaped

RECORD: dict[str, Any] = {
    "generation": "companion-3",
    "flywheel": "companion",
    "verdict": "Promoted",
    "reason": "Promoted",
    "message": "SuccessProven: breadth +12 %",
    "decisionTime": "2026-11-20T10:00:00Z",
    "parent": {"generation": "companion-2", "uri": "file:///flywheel/artifacts/p", "digest": "sha256:" + "a" * 64},
    "base": {"uri": "hf://org/base", "digest": "sha256:" + "b" * 64},
    "model": {"generation": "companion-3", "uri": "file:///flywheel/artifacts/m", "digest": "sha256:" + "c" * 64},
    "stages": [{"name": "sft", "method": "SFT", "phase": "Passed", "artifact": "sha256:" + "c" * 64, "image": "trainer@sha256:1"}],
    "data": [{"name": "curate", "uri": "file:///flywheel/artifacts/d", "digest": "sha256:" + "d" * 64, "rows": {"sft": 120}}],
    "gates": [
        {"stage": "evaluate", "metric": "win_rate_user", "operator": "LessThan", "limit": 0.65, "value": 0.6, "passed": True},
    ],
    "predictedWinRate": {"value": 0.6, "lower": 0.55, "upper": 0.64},
    "realisedLift": [{"metric": "breadth", "lift": 0.12, "lower": 0.05, "upper": 0.2, "users": 1810}],
    "cost": {
        "currency": "USD",
        "amount": 5.0,
        "gpuSeconds": 7200,
        "cpuSeconds": 900,
        "stages": [{"name": "sft", "gpuSeconds": 7200, "cpuSeconds": 900, "amount": 5.0}],
    },
}
HOSTILE = "x |\n---\n# Owned\n<script>alert(1)</script> [click](javascript:alert(1)) ![](http://evil/p.png) `rm` \u202e !!python/object"


def front(card: str) -> dict[str, Any]:
    """The front matter as a hub would read it."""
    assert card.startswith("---\n")
    found = yaml.safe_load(card[4:].partition("\n---\n")[0])
    assert isinstance(found, dict)
    return found


def test_the_record_and_its_card_are_an_artifact(runs: Any) -> None:
    result = runs("Record", parameters={"record": RECORD})
    assert json.loads((result.path / "generation.json").read_text())["record"] == RECORD
    card = (result.path / "README.md").read_text()
    assert front(card)["base_model"] == "hf://org/base"
    (index,) = front(card)["model-index"]
    assert index["results"][0]["metrics"] == [{"type": "win_rate", "value": 0.6}, {"type": "lift_breadth", "value": 0.12}]
    for said in ("companion\\-3", "**Promoted**", "+12.0 %", "sft 120", "| sft | 2.00 | 0.25 | 5 |", "60.0 %"):
        assert said in card.replace("\\+", "+").replace("\\:", ":"), said


def test_the_same_record_is_the_same_artifact_whoever_writes_it(runs: Any) -> None:
    first = runs("Record", parameters={"record": RECORD})
    second = runs("Record", parameters={"record": RECORD}, run={"namespace": "test", "name": "another", "uid": "x", "attempt": 7})
    assert first.ref == second.ref


def test_a_number_that_is_none_is_refused_with_the_mend(runs: Any) -> None:
    result = runs("Record", parameters={"record": {"generation": "g", "cost": {"amount": 10**400}}})
    assert result.code == 0, "a whole number of any size is JSON"
    result = runs.document(json.dumps(runs.config("Record", parameters={"record": {}})).replace('"record": {}', '"record": {"x": NaN}'))
    assert (result.code, result.reason) == (64, "InvalidConfig")


@pytest.mark.parametrize("field", ["generation", "flywheel", "verdict", "reason", "message"])
def test_hostile_text_is_shown_and_does_nothing(field: str) -> None:
    card = generation_card({**RECORD, field: HOSTILE})
    plain = generation_card(RECORD)
    assert set(front(card)) == set(front(plain))
    assert card.count("\n#") == plain.count("\n#"), "no heading of its own"
    assert card.count("\n") == plain.count("\n"), "no line of its own"
    body = card.partition("\n---\n")[2]
    for live in ("<script", "](java", "![](", "\u202e"):
        assert live not in body


def test_hostile_text_in_a_table_makes_no_cell_and_no_row() -> None:
    strange = {**RECORD, "data": [{"name": HOSTILE, "uri": HOSTILE, "digest": HOSTILE, "rows": {HOSTILE: HOSTILE}}]}
    rows = [line for line in generation_card(strange).splitlines() if line.startswith("| x ")]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 5


def test_half_a_character_is_no_reason_to_fail(runs: Any) -> None:
    result = runs("Record", parameters={"record": {**RECORD, "message": "\ud800 half"}})
    assert "? half" in (result.path / "README.md").read_text()


def test_strange_shapes_leave_a_card_without_their_part() -> None:
    card = generation_card({"generation": ["g"], "gates": "none", "data": [1, None, {"rows": 3}], "cost": [], "parent": "p", "base": 7})
    assert "# a generation" in card


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*RECORD, "name", "rows", "value", "digest"]), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(list(RECORD)), ANYTHING))
def test_any_record_makes_a_card_whose_front_matter_is_read_back(record: dict[str, Any]) -> None:
    assert front(generation_card(record))["library_name"] == "transformers"


@given(st.text())
def test_an_escaped_text_is_one_line_without_live_markup(text: str) -> None:
    line = escaped(text)
    assert len(line.splitlines()) <= 1
    assert "<" not in line
    assert "|" not in line.replace("\\|", "")
